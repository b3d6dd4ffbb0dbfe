"""Half precision, outside and inside autocast: measured numbers are those of float32."""

import math

import pytest
import torch
from torch import nn

from eqreg import (
    C4,
    C8,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    equivariance_distance,
    equivariance_error,
    equivariant_init_,
    layer_errors,
    lie_error,
    luma,
    project,
    psnr,
    rotate,
    ssim,
    suggest_strength,
)
from eqreg.physics.ct import hu_to_mu, mu_to_hu
from eqreg.soft import PathwayDecay
from eqreg.strict import FourierConv2d, GroupConv2d, to_plain
from eqreg.training import Keeping, Symmetry, fit
from eqreg.training.checkpoint import load_checkpoint, save_checkpoint

HALVES = [torch.float16, torch.bfloat16]


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["plain", "autocast"])
def surroundings(request):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=request.param == "autocast"):
        yield request.param


@pytest.mark.parametrize("dtype", HALVES)
def test_equivariance_error_of_a_large_half_precision_image(dtype, surroundings):
    x = images(1, 1, 512, 512).to(dtype)
    ramp = torch.linspace(0.9, 1.1, 512).to(dtype)
    error = equivariance_error(lambda x: x * ramp, x, C4)
    y = (x * ramp).double()
    expected = 0.0
    for k in (1, 2, 3):
        f_g = (torch.rot90(x, k, (-2, -1)) * ramp).double()
        difference = f_g - torch.rot90(y, k, (-2, -1))
        expected += float(difference.square().sum() / y.square().sum()) / 3
    assert error.dtype == torch.float32
    assert error.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", HALVES)
def test_psnr_ssim_and_luma_of_half_precision_images(dtype, surroundings):
    y = images(2, 3, 64, 64).to(dtype)
    x = (y + 1e-3).to(dtype)
    mse = (x.double() - y.double()).square().mean((1, 2, 3))
    assert torch.allclose(psnr(x, y).double(), -10 * mse.log10(), rtol=1e-5)
    assert torch.allclose(ssim(y, y), torch.ones(2), atol=1e-6)
    assert torch.allclose(ssim(x, y), ssim(x.float(), y.float()), atol=1e-6)
    assert torch.allclose(psnr(x, y, channel="y"), psnr(x.float(), y.float(), channel="y"))
    assert torch.equal(luma(x), luma(x.float()).to(dtype))


def test_ssim_inside_autocast_is_that_outside():
    x, y = images(2, 3, 32, 32), images(2, 3, 32, 32, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim(x, y), ssim(x, x)
    assert torch.equal(inside[0], ssim(x, y))
    assert torch.allclose(inside[1], torch.ones(2), atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_interpolated_turns_of_half_precision_images(dtype, surroundings):
    """Coordinates up to 256 have steps of 1/4 (float16) or 2 (bfloat16) pixels in these types."""
    x = images(1, 1, 256, 256).to(dtype)
    expected = rotate(x.double(), 1, C8)
    assert rotate(x, 1, C8).dtype == dtype
    assert (rotate(x, 1, C8).double() - expected).abs().max() < torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALVES)
def test_lie_error_of_half_precision_images(dtype):
    row, column = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    x = (0.5 + 0.4 * torch.sin(row / 6) * torch.cos(column / 9))[None, None].to(dtype)
    exact = lie_error(lambda x: x * x[..., :1], x.double())
    assert lie_error(lambda x: x * x[..., :1], x).double().item() == pytest.approx(
        exact.item(), rel=0.05
    )
    assert lie_error(lambda x: x, x).item() < 1e-4


def small(dtype=torch.bfloat16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
    ).to(dtype)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("strength", [0.5, 10.0])
def test_decay_acts_on_half_precision_weights(dtype, strength):
    """A share of 1/2000 a step is below what bfloat16 can add to a weight."""
    low, high = small(dtype), small(torch.float32)
    high.load_state_dict(low.state_dict())
    start = equivariance_distance(high, C4)["0"]
    decays = [EquivarianceDecay(model, C4, strength) for model in (low, high)]
    for _ in range(300):
        for decay in decays:
            decay.step(1e-3)
    ours, exact = (equivariance_distance(model, C4)["0"] for model in (low, high))
    assert exact < 0.95 * start
    assert ours == pytest.approx(exact, rel=0.01, abs=1e-5)
    assert list(low.state_dict()) == list(high.state_dict())


def test_what_is_left_does_not_run_away_from_a_weight_that_others_move():
    model = small()
    decay = EquivarianceDecay(model, C4, 1.0)
    for _ in range(20):
        decay.step(1e-4)
        with torch.no_grad():
            for p in model.parameters():
                p.zero_()
    assert all(float(p.detach().abs().max()) < 1e-3 for p in model.parameters())


def half_resumed(kind, checkpoint=None, until=None, how=None):
    """Eight steps of training in half precision with a slow decay; made anew after ``until`` of them."""
    x = images(4, 1, 12, 12).bfloat16()
    for end in (until, None) if until else (None,):
        model, done = small(), []
        fit(
            model, lambda generator: (x, x), steps=8, lr=2e-3, progress=False,
            symmetry=Symmetry(decay=kind(model, C4, 2.0)),
            keeping=Keeping(checkpoint, 3, stop=lambda end=end, done=done: done.append(0) or len(done) == end),
        )  # fmt: skip
        if end and how:
            state = load_checkpoint(checkpoint)
            assert any(rest.any() for rest in state["remainders"].values())
            how(state)
            save_checkpoint(checkpoint, state)
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", [EquivarianceDecay, PathwayDecay])
def test_a_resumed_half_precision_run_keeps_what_rounding_took(kind, tmp_path):
    whole = half_resumed(kind)
    assert torch.equal(half_resumed(kind, tmp_path / "c", 5), whole)


def test_without_the_remainders_it_would_be_another_run(tmp_path):
    """The test above can fail; and a checkpoint of an earlier version, which has none, is gone on from."""
    whole = half_resumed(EquivarianceDecay)
    again = half_resumed(
        EquivarianceDecay, tmp_path / "c", 5, lambda state: state.pop("remainders")
    )
    assert not torch.equal(again, whole)
    assert torch.allclose(again, whole, rtol=2**-6, atol=2**-8)


@pytest.mark.parametrize("dtype", HALVES)
def test_pathways_decay_half_precision_weights(dtype):
    """A share of 1/5000 a step is below what either can add to a weight."""
    low, high = small(dtype), small(torch.float32)
    high.load_state_dict(low.state_dict())
    for model in (low, high):
        decay = PathwayDecay(model, C4, 0.2)
        decay._originals["0"][0].original1.data.fill_(0.5)
        for _ in range(1000):
            decay.step(1e-3)
    free = [m[0].parametrizations.weight.original1.double().mean().item() for m in (low, high)]
    assert free[0] == pytest.approx(0.5 * math.exp(-0.2), rel=2**-8)
    assert free[1] == pytest.approx(0.5 * math.exp(-0.2), rel=1e-5)


@pytest.mark.parametrize("kind", [EquivarianceDecay, PathwayDecay])
def test_the_state_of_a_decay(kind):
    first, second = (kind(small(), C4, strength) for strength in (3.0, 1.0))
    first.step(1e-3)
    state = first.state_dict()
    second.load_state_dict(state)
    assert second.strengths == first.strengths
    kept = second.state_dict()["remainders"]
    assert kept.keys() == state["remainders"].keys() and len(kept) >= 4
    assert all(torch.equal(v, kept[k]) and v.dtype == torch.float32 for k, v in kept.items())
    for wrong in (None, {}, [], {"strengths": 1.0}):
        with pytest.raises(ValueError, match="a state with the keys 'strengths' and 'remainders'"):
            second.load_state_dict(wrong)
    name = next(iter(kept))
    for rest in ({name: torch.zeros(3)}, {"odd": kept[name]}, {name: None}):
        with pytest.raises(ValueError, match="remainders: expected tensors of the shapes"):
            second.load_state_dict({**state, "remainders": rest})
    with pytest.raises(ValueError, match="remainders: expected tensors by name, got"):
        second.load_state_dict({**state, "remainders": [1]})


def test_fabric_keeps_the_decay(tmp_path):
    fabric_module = pytest.importorskip("lightning_fabric")
    fabric = fabric_module.Fabric(accelerator="cpu", devices=1)
    first, second = (EquivarianceDecay(small(), C4, strength) for strength in (3.0, 1.0))
    first.step(1e-3)
    fabric.save(tmp_path / "c", {"decay": first})
    fabric.load(tmp_path / "c", {"decay": second})
    ours, theirs = (d.state_dict()["remainders"] for d in (first, second))
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items()) and len(theirs) == 4
    assert second.strengths == first.strengths


def test_projection_distance_penalty_and_start(surroundings):
    low, high = small(), small(torch.float32)
    high.load_state_dict(low.state_dict())
    for name, distance in equivariance_distance(high, C4).items():
        assert equivariance_distance(low, C4)[name] == pytest.approx(distance, rel=1e-4)
    assert ProjectionPenalty(low, C4)().item() == pytest.approx(
        ProjectionPenalty(high, C4)().item(), rel=1e-4
    )
    w = low[0].weight.detach()
    field = C4.field("1t"), C4.field("2r")
    assert torch.equal(project(w, *field), project(w.float(), *field).bfloat16())
    equivariant_init_(low, C4)
    assert max(equivariance_distance(low, C4).values()) < 1e-5


def test_layer_errors_and_penalty_inside_autocast_are_float32_sums():
    conv = nn.Conv2d(1, 4, 3, padding=1)
    x = images(1, 1, 256, 256)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        penalty = EquivarianceRegularizer(conv, C4)(x, g=1).penalty
        error = layer_errors(conv, x, C4)["(model)"]
        z, z_g = conv(x).double(), conv(torch.rot90(x, 1, (-2, -1))).double()
    moved = torch.rot90(z, 1, (-2, -1)).roll(1, 1)
    expected = (moved - z_g).square().mean() / moved.square().mean()
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)
    assert 0.5 * penalty.item() < error < 2 * penalty.item()


def test_suggested_strength_of_half_precision_networks():
    def pilot(seed):
        torch.manual_seed(seed)
        return nn.Conv2d(1, 1, 3, padding=1)

    high = [pilot(seed) for seed in (0, 1)]
    x = images(4, 1, 24, 24)
    exact = suggest_strength(high, x, C4)
    low = suggest_strength([f.bfloat16() for f in high], x.bfloat16(), C4)
    assert low.asymmetry == pytest.approx(exact.asymmetry, rel=0.02)


def test_agreement_of_half_precision_gradients():
    model = small()
    decay = EquivarianceDecay(model, C4, 40.0)
    auto = AgreementStrength(decay)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(0)).to(p)
    auto.mark()
    for p in model.parameters():
        p.grad *= 2
    auto.update()  # both halves are equal, so they agree about every direction and strengths fall
    assert set(decay.strengths.values()) == {40.0 * math.exp(-0.05)}


@pytest.mark.parametrize("layer", [GroupConv2d, FourierConv2d])
def test_plain_layers_made_inside_autocast_are_those_made_outside(layer):
    torch.manual_seed(0)
    net = nn.Sequential(layer(C4.field("1t"), C4.field("2r"), 3), nn.ReLU())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = to_plain(net)
    assert inside[0].weight.dtype == torch.float32
    assert torch.equal(inside[0].weight, to_plain(net)[0].weight)


def test_hounsfield_units_of_half_precision_and_integers():
    hu = torch.tensor([-1000.0, 37.0, 1035.0])
    exact = hu_to_mu(hu)
    assert torch.equal(hu_to_mu(hu.half()), exact)
    assert torch.allclose(mu_to_hu(exact.half()), mu_to_hu(exact.half().float()))
    whole = torch.tensor([-1000, 0, 32767], dtype=torch.int16)
    assert hu_to_mu(whole).tolist() == pytest.approx([0.0, 0.192, 0.192 * 33.767])
