"""Estimates of a risk that nobody can see, against the risk."""

import copy

import pytest
import torch
import torch.nn.functional as F

from eqreg.extras import require
from eqreg.measure.quality import rei_psnr
from eqreg.models.unet import UNet
from eqreg.physics.inpainting import deepinv_operator, measure, random_mask
from eqreg.training.losses import (
    RobustEquivariantImaging,
    equivariant_imaging,
    poisson_sure,
    poisson_sure_derivative,
    poisson_sure_exact,
    random_shift,
)

GAMMA = 0.1


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def toy():
    """Many pictures of one scene of 4 x 4 pixels, float64."""
    y = torch.rand(1, 1, 4, 4, dtype=torch.float64, generator=seeded(0))
    x = measure(y.expand(20_000, -1, -1, -1), torch.ones(4, 4), GAMMA, generator=seeded(1))
    return y, x


def blur(x):
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="circular"), 3, 1) + 0.1


def bent(x):
    return torch.tanh(2 * blur(x) * x)


def interval(values):
    return values.mean(), 4 * values.std() / len(values) ** 0.5


@pytest.mark.parametrize("h", [blur, bent, lambda x: (x > 0.35).to(x)])
def test_exact_form_is_unbiased(toy, h):
    y, x = toy
    gap, tolerance = interval(poisson_sure_exact(h, x, GAMMA) - (h(x) - y).square().mean((1, 2, 3)))
    assert abs(gap) < tolerance < 0.01


def test_derivative_form_is_exact_for_affine_maps(toy):
    _, x = toy
    exact, derivative = poisson_sure_exact(blur, x, GAMMA), poisson_sure_derivative(blur, x, GAMMA)
    assert torch.allclose(exact, derivative, atol=1e-12)


def test_derivative_form_is_biased_where_h_bends(toy):
    y, x = toy
    gap, tolerance = interval(
        poisson_sure_derivative(bent, x, GAMMA) - (bent(x) - y).square().mean((1, 2, 3))
    )
    assert abs(gap) > 2 * tolerance


def test_probe_has_the_mean_of_the_derivative_form(toy):
    _, x = toy
    probed = poisson_sure(bent, x, GAMMA, tau=1e-5, generator=seeded(2))
    gap, tolerance = interval(probed - poisson_sure_derivative(bent, x, GAMMA))
    assert abs(gap) < tolerance < 0.01


def test_by_hand():
    """h doubles: h - x = x, and the change of 2 x is 2 gamma, so 2 x (2 gamma) in all forms."""
    x = torch.tensor([0.2, 0.0]).reshape(1, 1, 1, 2)
    expected = (0.04 - 0.1 * 0.2 + 2 * 0.1 * 0.2 * 2) / 2

    def double(t):
        return 2 * t

    for form in (poisson_sure, poisson_sure_exact, poisson_sure_derivative):
        assert float(form(double, x, GAMMA)) == pytest.approx(expected, abs=1e-5)


def test_dark_pixels_have_no_weight():
    """h may be wild where no photon came: its value at x - gamma e_i is multiplied by 0."""
    x = torch.tensor([0.0, 0.3]).reshape(1, 1, 1, 2)

    def wild(t):
        return torch.where(t < 0, 1e6 * torch.ones_like(t), t)

    assert float(poisson_sure_exact(wild, x, GAMMA)) == pytest.approx((-0.03 + 0.06) / 2, abs=1e-5)


def test_mask_counts_kept_pixels_only():
    x = torch.tensor([0.2, 0.0]).reshape(1, 1, 1, 2)
    mask = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    seen = []

    def h(t):
        seen.append(t)
        return mask * t

    value = poisson_sure(h, x, GAMMA, mask=mask, generator=seeded(0))
    assert float(value) == pytest.approx(-0.1 * 0.2 + 2 * 0.1 * 0.2, abs=1e-6)
    assert all(t[..., 1] == 0 for t in seen)  # lost pixels are not probed


def test_saturation_biases():
    y = torch.full((20_000, 1, 2, 2), 0.9, dtype=torch.float64)
    x = measure(y, torch.ones(2, 2), GAMMA, saturation=1.0, generator=seeded(0))
    gap, tolerance = interval(
        poisson_sure_exact(blur, x, GAMMA) - (blur(x) - y).square().mean((1, 2, 3))
    )
    assert abs(gap) > 10 * tolerance


# ---- deepinv's losses


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = UNet(width=4, levels=1)
    y = torch.rand(2, 1, 8, 8, generator=seeded(0))
    mask = random_mask((2, 8, 8), generator=seeded(1))
    return model, mask, measure(y, mask, 0.05, generator=seeded(2))


def test_sure_agrees_with_deepinv(setting):
    model, mask, x = setting
    theirs = require("deepinv.loss", extra="tasks").SurePoissonLoss(
        gain=0.05, tau=1e-2, rng=seeded(3)
    )(x, model(x), deepinv_operator(mask, 0.05), lambda t, physics: model(t))
    ours = poisson_sure(lambda t: mask * model(t), x, 0.05, tau=1e-2, generator=seeded(3))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_imaging_agrees_with_deepinv(setting):
    model, mask, x = setting
    loss = require("deepinv.loss", extra="tasks").EILoss(
        transform=lambda t: t.roll((3, 1), (-2, -1))
    )
    theirs = loss(
        model(x), deepinv_operator(mask, 0.05, generator=seeded(4)), lambda t, physics: model(t)
    )
    g = seeded(4)
    ours = equivariant_imaging(
        model,
        model(x),
        lambda y: measure(y, mask, 0.05, generator=g),
        transform=lambda t, generator: t.roll((3, 1), (-2, -1)),
    )
    assert torch.allclose(ours, theirs, rtol=1e-5)


# ---- the objective


def test_objective_is_the_sum_of_its_parts(setting):
    model, mask, x = setting
    prediction = model(x)
    both = RobustEquivariantImaging(0.05, alpha=2.0)(model, prediction, x, mask, seeded(5))
    g = seeded(5)
    sure = poisson_sure(lambda t: mask * model(t), x, 0.05, mask=mask, tau=1e-2, generator=g).mean()
    imaging = equivariant_imaging(
        model, prediction, lambda y: measure(y, mask, 0.05, generator=g), generator=g
    )
    assert torch.allclose(both, sure + 2 * imaging, rtol=1e-4)
    alone = RobustEquivariantImaging(0.05, alpha=0.0)(model, prediction, x, mask, seeded(5))
    assert torch.allclose(alone, sure, rtol=1e-4)


def test_gradient_reaches_the_network(setting):
    model, mask, x = copy.deepcopy(setting[0]), *setting[1:]
    RobustEquivariantImaging(0.05, copies=2)(model, model(x), x, mask, seeded(6)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_imaging_is_empty_without_a_mask():
    """A camera that loses nothing commutes with shifts: whatever f does, A f does at once."""
    y = torch.rand(1, 1, 8, 8, generator=seeded(0))

    def smooth(x):
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="circular"), 3, 1)

    value = equivariant_imaging(lambda x: x, smooth(y), lambda t: t, generator=seeded(1))
    assert value == 0


def test_random_shift_is_a_shift():
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    shifted = random_shift(x, seeded(0))
    assert sorted(shifted.flatten().tolist()) == sorted(x.flatten().tolist())
    found = [torch.equal(shifted, x.roll((a, b), (-2, -1))) for a in range(3) for b in range(4)]
    assert sum(found) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: poisson_sure(blur, torch.rand(1, 1, 4, 4), 0.0), "gamma must be positive"),
        (lambda: poisson_sure_exact(blur, torch.rand(1, 1, 4, 4), -1.0), "gamma must be positive"),
        (lambda: poisson_sure(blur, torch.rand(1, 1, 4, 4), 0.1, tau=0.0), "tau must be positive"),
        (lambda: RobustEquivariantImaging(0.1, alpha=-1.0), "alpha >= 0 and copies >= 1, got -1.0"),
        (lambda: RobustEquivariantImaging(0.1, copies=0), "copies >= 1, got 1.0 and 0"),
    ],
)
def test_bad_settings(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_grey_answer_to_a_colour_picture_is_refused():
    """Broadcast, each of its pixels would be compared with three, and the risk be that of another network."""
    x, mask = torch.rand(2, 3, 5, 5), torch.ones(2, 1, 5, 5)

    def grey(x):
        return x.mean(1, keepdim=True)

    shapes = r"expected shape \(2, 3, 5, 5\), got \(2, 1, 5, 5\)"
    for call in (
        lambda: poisson_sure(grey, x, GAMMA),
        lambda: poisson_sure(lambda t: t, x, GAMMA, hx=grey(x)),
        lambda: poisson_sure_exact(grey, x, GAMMA),
        lambda: poisson_sure_derivative(grey, x, GAMMA),
        lambda: equivariant_imaging(grey, x, lambda y: y),
        lambda: RobustEquivariantImaging(GAMMA)(grey, grey(x), x, mask),
    ):
        with pytest.raises(ValueError, match=shapes):
            call()
    with pytest.raises(ValueError, match=r"rei_psnr: .* got \(2, 1, 5, 5\) and \(2, 3, 5, 5\)"):
        rei_psnr(grey(x), x)
