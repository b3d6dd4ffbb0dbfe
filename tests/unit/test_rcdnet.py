"""The unfolded rain network: its steps are gradient steps, its background nets may be equivariant."""

import pytest
import torch

from eqreg import C2, C4, C8, EquivarianceDecay, EquivarianceRegularizer, layer_errors, rotate
from eqreg.models._unfolding import MapNet, largest_gain, strict_size
from eqreg.models.rcdnet import RCDNet, stage_loss, start

SMALL = {"stages": 2, "maps": 4, "width": 8, "blocks": 1, "dictionary_size": 5}
BACKGROUND = [f"background_nets.*.{part}" for part in ("lift", "blocks.*.0", "blocks.*.2", "read")]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def rainy():
    """(2, 3, 12, 12) float64."""
    return torch.rand(2, 3, 12, 12, generator=seeded(), dtype=torch.float64)


# ---- the problem


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradients_are_those_of_the_objective(channels):
    torch.manual_seed(0)
    model = RCDNet(**SMALL, channels=channels).double()
    b, o = torch.rand(2, 2, channels, 11, 12, generator=seeded(), dtype=torch.float64)
    m = torch.rand(2, 4, 11, 12, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    b.requires_grad_()
    by_autograd = torch.autograd.grad(model.objective(b, m, o), (b, m))
    for ours, theirs in zip(model.gradients(b, m, o), by_autograd, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_a_drop_draws_its_kernel():
    model = RCDNet(**SMALL)
    m = torch.zeros(1, 4, 9, 9)
    m[0, 2, 4, 4] = 1
    rain = model.rain(m)
    assert torch.equal(rain[0, :, 2:7, 2:7], model.dictionary[2].detach())
    assert rain.count_nonzero() == model.dictionary[2].count_nonzero()


def test_each_stage_takes_the_steps_of_the_problem(rainy):
    # With proximal maps that do no more than m >= 0, a stage is a gradient step in M and one in B.
    torch.manual_seed(0)
    model = RCDNet(**SMALL).double()
    for net in (*model.map_nets, *model.background_nets):
        net.refine = lambda h: h
    with torch.no_grad():
        for net in model.map_nets:
            net.threshold.zero_()
        for net in model.background_nets:
            net.read.weight.zero_()
            net.step.fill_(0.7)
    b, m = start(rainy), torch.zeros(2, 4, 12, 12, dtype=torch.float64)
    values = [model.objective(b, m, rainy).item()]
    for stage in model.unfold(rainy):
        m = m.detach().requires_grad_()
        (step,) = torch.autograd.grad(model.objective(b, m, rainy), m)
        m = (m - 0.5 * step).detach().relu()
        b = b.detach().requires_grad_()
        (step,) = torch.autograd.grad(model.objective(b, m, rainy), b)
        b = (b - 0.7 * step).detach()
        assert torch.allclose(stage.maps, m, atol=1e-12)
        assert torch.allclose(stage.rain, model.rain(m), atol=1e-12)
        assert torch.allclose(stage.estimate, b, atol=1e-12)
        assert torch.equal(stage.background, stage.estimate)
        values.append(model.objective(b, m, rainy).item())
    assert torch.allclose(model(rainy), b, atol=1e-12)
    assert values[0] > values[1] > values[2], "steps of this length descend"


def test_the_dictionary_has_norm_one():
    torch.manual_seed(0)
    model = RCDNet(**SMALL)
    m = torch.randn(1, 4, 40, 40, generator=seeded())
    with torch.no_grad():
        for _ in range(200):
            m = model.correlate(model.rain(m))
            norm = m.norm()
            m = m / norm
    assert 0.9 < float(norm) < 1.001


def test_the_gain_of_two_equal_kernels():
    # One kernel that only copies has gain 1; two of them, added, sqrt(2).
    copies = torch.zeros(1, 2, 3, 3)
    copies[:, :, 1, 1] = 1
    assert float(largest_gain(copies)) == pytest.approx(2**0.5)


def test_maps_are_never_negative():
    net = MapNet(4, 1, 3, None, positive=True)
    with torch.no_grad():
        net.threshold.fill_(0.3)
    net.refine = lambda h: h
    m = torch.tensor([-1.0, -0.2, 0.1, 0.5]).reshape(1, 4, 1, 1)
    out = net(m, torch.zeros_like(m)).flatten()
    assert torch.allclose(out, torch.tensor([0.0, 0.0, 0.0, 0.2]))
    assert all((s.maps >= 0).all() for s in RCDNet(**SMALL).unfold(torch.rand(1, 3, 12, 12)))


def test_it_starts_from_a_blur():
    o = torch.zeros(1, 1, 9, 9)
    o[0, 0, 4, 4], o[0, 0, 0, 0] = 25, 9
    b = start(o)[0, 0]
    assert b[4, 4] == b[2, 6] == 1 and b[0, 0] == 1, "9 of the 25 pixels are inside at the corner"
    assert b[7, 7] == 0


# ---- the network


def test_every_stage(rainy):
    torch.manual_seed(0)
    every = RCDNet(**SMALL, every_stage=True).double()
    last = RCDNet(**SMALL).double()
    last.load_state_dict(every.state_dict())
    backgrounds, rain = every(rainy)
    assert backgrounds.shape == rain.shape == (2, 6, 12, 12)
    assert torch.equal(backgrounds[:, -3:], last(rainy))
    for s, stage in enumerate(every.unfold(rainy)):
        assert torch.equal(rain[:, 3 * s : 3 * s + 3], stage.rain)
        assert torch.equal(backgrounds[:, 3 * s : 3 * s + 3], stage.background)


def test_the_loss_weighs_the_stages():
    truth = torch.zeros(1, 1, 2, 2)
    backgrounds = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    rain = torch.tensor([0.0, 1.0, 2.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
    # 0.1 (1 + 4) + 9 and 0.1 (0 + 1) + 0.9 * 4
    assert float(stage_loss((backgrounds, rain), (truth, truth))) == pytest.approx(13.2)
    shifted = stage_loss((backgrounds + 1, rain), (truth + 1, truth))
    assert float(shifted) == pytest.approx(13.2)


@pytest.mark.parametrize("strict", [None, C4], ids=str)
def test_every_part_learns(strict):
    torch.manual_seed(0)
    model = RCDNet(**SMALL, every_stage=True, strict=strict)
    o, b = torch.rand(2, 2, 3, 12, 12, generator=seeded())
    stage_loss(model(o), (b, o - b)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_it_starts_near_its_input_without_what_fits_the_dictionary():
    torch.manual_seed(0)
    o = torch.rand(1, 3, 24, 24)
    with torch.no_grad():
        assert (RCDNet(4, 8, 8, 1)(o) - o).std() < 0.5 * o.std()


def test_any_size_and_any_channel_count():
    assert RCDNet(**SMALL)(torch.rand(1, 3, 9, 14)).shape == (1, 3, 9, 14)
    assert RCDNet(**SMALL, channels=1)(torch.rand(2, 1, 8, 8)).shape == (2, 1, 8, 8)


# ---- symmetry


@pytest.mark.parametrize("match", ["width", "parameters"])
def test_the_background_nets_of_the_twin_are_equivariant(rainy, match):
    torch.manual_seed(0)
    plain = RCDNet(**SMALL).double()
    estimates = [torch.rand_like(rainy) for _ in range(2)]
    for model, low, high in ((plain, 1e-7, 1), (plain.twin(C4, match).double(), 0, 1e-24)):
        for k in (1, 3):
            turned = model.backgrounds([rotate(e, k) for e in estimates])
            for b, b_g in zip(model.backgrounds(estimates), turned, strict=True):
                error = (rotate(b, k) - b_g).square().sum() / b.square().sum()
                assert low <= error.item() <= high


def test_the_rain_of_the_twin_keeps_its_direction(rainy):
    torch.manual_seed(0)
    twin = RCDNet(**SMALL).twin(C4).double()
    assert not torch.allclose(rotate(twin(rainy), 1), twin(rotate(rainy, 1)), atol=1e-4)
    assert type(twin.map_nets[0].blocks[0][0]) is torch.nn.Conv2d


def test_backgrounds_are_those_of_the_network(rainy):
    torch.manual_seed(0)
    model = RCDNet(**SMALL).double()
    stages = list(model.unfold(rainy))
    for b, stage in zip(model.backgrounds(s.estimate for s in stages), stages, strict=True):
        assert torch.equal(b, stage.background)


def test_parameters_are_counted():
    plain = RCDNet(2, 4, 16, 1)
    # Each stage: 2 steps and a threshold; two 3 x 3 convolutions 4 -> 4 with biases; 3 -> 16, two 16 -> 16, 16 -> 3.
    nets = 3 + 2 * (4 * 4 * 9 + 4) + (3 * 16 * 9 + 16) + 2 * (16 * 16 * 9 + 16) + (16 * 3 * 9 + 3)
    assert parameters(plain) == 4 * 3 * 81 + 2 * nets
    strict = plain.twin(C4).background_nets[0]
    # Four orientations share: a quarter of the weights, and of the biases of regular fields.
    assert parameters(strict) == 1 + (3 * 16 * 9 + 16) // 4 + 2 * (16 * 16 * 9 + 16) // 4 + (
        16 * 3 * 9 // 4 + 3
    )
    equal = plain.twin(C4, "parameters")
    assert equal.width == strict_size(16, 3, C4) == 32
    ratio = parameters(equal.background_nets) / parameters(plain.background_nets)
    assert 0.9 < ratio < 1.1
    assert parameters(equal.map_nets) == parameters(plain.map_nets)


@pytest.mark.parametrize("group", [C2, C4], ids=str)
def test_the_background_nets_can_be_regularised_alone(rainy, group):
    torch.manual_seed(0)
    model = RCDNet(**SMALL, every_stage=True).double()
    reg = EquivarianceRegularizer(model, group, layers=BACKGROUND)
    assert len(reg.plan.fields) == 8
    images = {n: f for n, f in reg.plan.fields.items() if n.endswith("read")}
    assert len(images) == 2 and set(images.values()) == {group.field("3t")}
    out = reg(rainy)
    assert out.per_layer and all(name.startswith("background_nets.") for name in out.per_layer)
    out.penalty.backward()
    assert out.y[0].shape == out.y_g[1].shape == (2, 6, 12, 12)
    assert all(p.grad is not None for n, p in model.named_parameters() if "nets.0.lift" in n)


def test_the_decay_makes_them_strict(rainy):
    torch.manual_seed(0)
    model = RCDNet(**SMALL).double()
    before = model.map_nets[0].blocks[0][0].weight.clone()
    EquivarianceDecay(model, C4, float("inf"), layers=BACKGROUND).step(1.0)
    b, b_g = (
        torch.stack(model.backgrounds([rotate(rainy, k), rotate(rainy, k).square()]))
        for k in (0, 1)
    )
    assert torch.allclose(rotate(b, 1), b_g, atol=1e-12)
    assert torch.equal(model.map_nets[0].blocks[0][0].weight, before)


def test_its_strict_layers_have_no_error():
    torch.manual_seed(0)
    net = RCDNet(**SMALL, strict=C4).double().background_nets[0]

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net.prox(x, torch.zeros(1, 8, 12, 12, dtype=torch.float64))[0]

    x = torch.rand(1, 3, 12, 12, generator=seeded(), dtype=torch.float64)
    errors = layer_errors(Both(), x, C4)
    assert len(errors) == 4 and max(errors.values()) < 1e-25


def test_eighth_turns_need_larger_kernels():
    torch.manual_seed(0)
    model = RCDNet(**SMALL, kernel_size=5, strict=C8)
    assert model(torch.rand(1, 3, 12, 12)).shape == (1, 3, 12, 12)


# ---- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": 0}, "RCDNet: stages must be positive, got 0"),
        ({"maps": -1}, "maps must be positive, got -1"),
        ({"channels": 0}, "channels must be positive, got 0"),
        ({"dictionary_size": 4}, "dictionary_size must be odd, got 4"),
        ({"kernel_size": 2}, "kernel_size must be odd, got 2"),
        ({"width": 6, "strict": C4}, "width must be divisible by the 4 elements of C4, got 6"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        RCDNet(**{**SMALL, **options})


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8)])
def test_bad_images(shape):
    with pytest.raises(ValueError, match=r"expected images \(B, 3, H, W\), got \("):
        RCDNet(**SMALL)(torch.rand(shape))


def test_bad_twin():
    with pytest.raises(ValueError, match='must be "width" or "parameters", got \'depth\''):
        RCDNet(**SMALL).twin(C4, "depth")
