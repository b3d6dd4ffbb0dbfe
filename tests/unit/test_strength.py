"""How much symmetry: strengths from pilots and during training, against cases worked out by hand."""

import math

import pytest
import torch
from flat import flat
from torch import nn

from eqreg import (
    C2,
    C4,
    C8,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    project,
    rotate,
    suggest_strength,
)
from eqreg.models import ResidualNet
from eqreg.soft.schedules import decreasing
from eqreg.training import Symmetry, fit


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


MASK = draw(1, 1, 6, 6)
X = draw(5, 1, 6, 6, seed=1)


def masked(scale, mask=MASK):
    """A linear map whose asymmetry is ``scale`` times that of another: ``f(gx) - g f(x) = gx (m - gm)``."""
    return lambda x: scale * mask.to(x.dtype) * x


def energy(group=C4):
    """Mean square of the asymmetry of ``masked(1)``, by hand."""
    lost = [
        (rotate(X, g, group) * (MASK - rotate(MASK, g, group))).square().mean()
        for g in group.elements[1:]
    ]
    return float(sum(lost) / len(lost))


def test_pilots_that_agree_leave_the_asymmetry_alone():
    found = suggest_strength([masked(1), masked(1)], X, C4)
    assert found.shrink == pytest.approx(1) and found.lam == pytest.approx(0, abs=1e-12)
    assert found.asymmetry == pytest.approx(energy()) == pytest.approx(found.agreed)
    assert found.interval == pytest.approx((1, 1)) and found.decay is None


def test_pilots_that_contradict_each_other_ask_for_full_symmetry():
    found = suggest_strength([masked(1), masked(-1)], X, C4, trial=(masked(0.5), 40.0))
    assert found.agreed == pytest.approx(-energy())
    assert (found.shrink, found.lam, found.decay) == (0, math.inf, math.inf)
    assert found.interval == (0, 0)


def test_a_trial_without_asymmetry_says_nothing():
    with pytest.raises(ValueError, match=r"the trial kept 1\.0% of the pilots' asymmetry.*than 40"):
        suggest_strength([masked(1), masked(1)], X, C4, trial=(masked(0.01), 40.0))


def test_equivariant_pilots_ask_for_full_symmetry():
    found = suggest_strength([lambda x: 2 * x, lambda x: x.square()], X, C4)
    assert (found.asymmetry, found.shrink, found.lam) == (0, 0, math.inf)


@pytest.mark.parametrize(
    ("share", "shrink"),
    # own energies 4 and 1, mean 2.5; common 2; so the variance of a pilot is 0.5
    [(1.0, 2 / 2.5), (0.5, 2 / 2.25), (0.25, 2 / 2.125)],
)
def test_the_factor_in_closed_form(share, shrink):
    found = suggest_strength([masked(2), masked(1)], X, C4, share=share)
    assert found.asymmetry == pytest.approx(2.5 * energy())
    assert found.agreed == pytest.approx(2 * energy())
    assert found.shrink == pytest.approx(shrink)
    # 1 / (1 + 2 lam t / (t-1)) is the factor, as the mean over t elements holds t-1 that count
    assert 1 / (1 + 2 * found.lam * 4 / 3) == pytest.approx(shrink)
    # Every image shows the same ratio, so the bootstrap finds no spread.
    assert found.interval == pytest.approx((shrink, shrink))


def test_half_of_the_data_is_the_spearman_brown_formula():
    found = suggest_strength([masked(2), masked(1)], X, C4)
    c = found.agreed / found.asymmetry
    assert found.shrink == pytest.approx(2 * c / (1 + c))


def test_lam_of_another_group():
    found = suggest_strength([masked(2), masked(1)], X, C2)
    assert found.asymmetry == pytest.approx(2.5 * energy(C2))
    assert found.lam == pytest.approx(1 / 2 * (1 / 9) / (2 * 8 / 9))


def test_three_pilots_average_over_their_pairs():
    found = suggest_strength([masked(c) for c in (1, 2, 4)], X, C4)
    assert found.asymmetry == pytest.approx((1 + 4 + 16) / 3 * energy())
    assert found.agreed == pytest.approx((2 + 4 + 8) / 3 * energy())


@pytest.mark.parametrize(
    ("trial", "strength", "decay"),
    # Factor 8/9 is wanted. The trial kept 1/2: h = 40, and 40/(40 + 5) = 8/9.
    # It kept 1/5: h = 10, and 10/(10 + 1.25) = 8/9. It kept everything: there is no way to tell.
    [(1 / 2, 40.0, 5.0), (1 / 5, 40.0, 1.25), (1 / 2, 8.0, 1.0), (1.0, 40.0, 40.0)],
)
def test_one_trial_turns_the_factor_into_a_strength(trial, strength, decay):
    kept = masked(trial * math.sqrt(2.5))
    found = suggest_strength([masked(2), masked(1)], X, C4, trial=(kept, strength))
    assert found.decay == pytest.approx(decay)


def test_no_shrinkage_is_strength_zero():
    for kept in (0.5, 1.0):
        found = suggest_strength([masked(1), masked(1)], X, C4, trial=(masked(kept), 40.0))
        assert found.decay == pytest.approx(0, abs=1e-9)


def test_the_interval_is_reproducible_and_holds_the_factor():
    other = draw(1, 1, 6, 6, seed=2)
    pilots = [masked(1, MASK + 0.4 * other), masked(1, MASK - 0.4 * other)]
    x = X * torch.tensor([0.1, 1, 1, 2, 3]).view(-1, 1, 1, 1)
    state = torch.get_rng_state()
    found, again = (suggest_strength(pilots, x, C4) for _ in range(2))
    assert found == again and state.equal(torch.get_rng_state())
    low, high = found.interval
    assert low < found.shrink < high


def test_float32_agrees_with_float64():
    pilots = [masked(2), masked(1)]
    single = suggest_strength(pilots, X.float(), C4, trial=(masked(0.5), 40.0))
    double = suggest_strength(pilots, X, C4, trial=(masked(0.5), 40.0))
    for name in ("asymmetry", "agreed", "shrink", "lam", "decay"):
        assert getattr(single, name) == pytest.approx(getattr(double, name), rel=1e-4)


def test_recovers_the_optimum_of_linear_models():
    """Pilots are the truth plus noise of a known variance: s = beta^2 / (beta^2 + V share)."""
    even = sum(rotate(MASK, k) for k in range(4)) / 4
    g = torch.Generator().manual_seed(3)
    agreed = asymmetry = 0.0
    for _ in range(200):
        noise = 0.5 * torch.randn(2, 1, 1, 6, 6, generator=g, dtype=torch.float64)
        found = suggest_strength([masked(1, MASK + e) for e in noise], X, C4)
        agreed, asymmetry = agreed + found.agreed, asymmetry + found.asymmetry
    beta2 = float((MASK - even).square().sum())
    variance = 0.25 * (36 - 9)  # the asymmetric masks: 36 values in orbits of four
    expected = beta2 / (beta2 + variance)
    assert agreed / asymmetry == pytest.approx(expected, abs=0.03)


def test_nothing_is_recorded_for_gradients():
    model = ResidualNet(width=4, depth=2)
    seen = []

    def pilot(x):
        seen.append(torch.is_grad_enabled())
        return model(x)

    suggest_strength([pilot, pilot], X.float(), C4)
    assert seen and not any(seen) and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pilots": [masked(1)]}, "expected at least 2 pilots, got 1"),
        ({"pilots": []}, "expected at least 2 pilots, got 0"),
        ({"share": 0.0}, r"share must lie in \(0, 1\], got 0.0"),
        ({"share": 1.5}, r"share must lie in \(0, 1\], got 1.5"),
        ({"share": math.nan}, r"share must lie in \(0, 1\], got nan"),
        ({"trial": (masked(1), 0.0)}, "strength must be positive and finite, got 0.0"),
        ({"trial": (masked(1), math.inf)}, "strength must be positive and finite, got inf"),
        ({"x": X[0]}, r"expected images \(B, C, H, W\), got shape \(1, 6, 6\)"),
        ({"x": X[:0]}, r"expected images \(B, C, H, W\), got shape \(0, 1, 6, 6\)"),
        ({"group": C8}, "expected a group of quarter turns such as C4, got C8"),
    ],
)
def test_suggest_says_what_is_wrong(change, message):
    given = {"pilots": [masked(1), masked(2)], "x": X, "group": C4} | change
    with pytest.raises(ValueError, match="suggest_strength: .*" + message):
        suggest_strength(given.pop("pilots"), given.pop("x"), given.pop("group"), **given)


# ---------------------------------------------------------------- the agreement of half batches


def tied(strength=40.0, **settings):
    torch.manual_seed(0)
    model = ResidualNet(width=8, depth=3)
    decay = EquivarianceDecay(model, C4, strength)
    return model, decay, AgreementStrength(decay, **settings)


def split(tensor, row):
    """A random symmetric direction and two asymmetric ones, orthogonal and of one length."""
    inputs = row.in_field if tensor.ndim > 1 else None
    a, b, c = (draw(*tensor.shape, seed=s, dtype=torch.float32) for s in (1, 2, 3))
    even = project(a, inputs, row.out_field)
    odd, other = (t - project(t, inputs, row.out_field) for t in (b, c))
    if odd.norm() < 1e-5:  # a bias of a trivial field has no asymmetric part
        return even, torch.zeros_like(odd), torch.zeros_like(odd)
    other = other - odd * (odd * other).sum() / odd.square().sum()
    return even / even.norm(), odd / odd.norm(), other / other.norm()


def halves(decay, cosine, names=None):
    """Gradients of both halves: symmetric parts equal, asymmetric ones at the given cosine."""
    first, second = [], []
    for name, row in decay.plan.tied.items():
        for tensor, _ in row.tensors():
            even, odd, other = split(tensor, row)
            c = cosine if names is None or name in names else -cosine
            first.append((tensor, even + odd))
            second.append((tensor, even + c * odd + math.sqrt(1 - c * c) * other))
    return first, second


def one_update(decay, auto, cosine, names=None):
    first, second = halves(decay, cosine, names)
    for tensor, grad in first:
        tensor.grad = grad.clone()
    auto.mark()
    for tensor, grad in second:
        tensor.grad += grad
    auto.update()


@pytest.mark.parametrize(("cosine", "sign"), [(1, -1), (0.8, -1), (0.7, 1), (0, 1), (-1, 1)])
def test_one_update_moves_by_exactly_the_rate(cosine, sign):
    _, decay, auto = tied()
    one_update(decay, auto, cosine)
    for value in decay.strengths.values():
        assert value == pytest.approx(40 * math.exp(sign * 0.05))


def test_kappa_and_rate_are_heard():
    _, decay, auto = tied(kappa=0.6, rate=0.3)
    one_update(decay, auto, 0.7)
    assert set(decay.strengths.values()) == {40 * math.exp(-0.3)}


def test_scale_of_the_gradients_does_not_matter():
    _, decay, auto = tied()
    first, second = halves(decay, 0.7)
    for tensor, grad in first:
        tensor.grad = 1e-6 * grad
    auto.mark()
    for tensor, grad in second:
        tensor.grad += 1e-4 * grad
    auto.update()
    assert set(decay.strengths.values()) == {40 * math.exp(0.05)}


def test_each_layer_decides_for_itself():
    _, decay, auto = tied()
    names = list(decay.strengths)
    one_update(decay, auto, 0.9, names=names[:1])
    assert decay.strengths[names[0]] < 40
    assert all(decay.strengths[name] > 40 for name in names[1:])


@pytest.mark.parametrize(
    ("start", "cosine", "end"),
    [(99, 0, 100), (2.01, 1, 2), (0, 0, 2 * math.exp(0.05)), (0, 1, 2), (math.inf, 1, 100)],
)
def test_strengths_stay_within_bounds(start, cosine, end):
    _, decay, auto = tied(start, bounds=(2.0, 100.0))
    one_update(decay, auto, cosine)
    assert list(decay.strengths.values()) == pytest.approx([end] * len(decay.strengths))


def test_frozen_layers_keep_their_strength():
    model, decay, auto = tied()
    frozen = next(iter(decay.strengths))
    model.get_submodule(frozen).requires_grad_(False)
    one_update(decay, auto, 0)
    assert decay.strengths[frozen] == 40
    assert all(s > 40 for name, s in decay.strengths.items() if name != frozen)


def test_gradients_are_left_as_they_are():
    model, _, auto = tied()
    x = draw(4, 1, 8, 8, dtype=torch.float32)
    model(x[:2]).square().sum().backward()
    auto.mark()
    model(x[2:]).square().sum().backward()
    auto.update()
    split_up = [p.grad for p in model.parameters()]
    model.zero_grad()
    model(x).square().sum().backward()
    for a, p in zip(split_up, model.parameters(), strict=True):
        torch.testing.assert_close(a, p.grad)


def test_mark_and_update_come_in_turns():
    model, decay, auto = tied()
    with pytest.raises(RuntimeError, match=r"call mark\(\) after the first half's backward\(\)"):
        auto.update()
    with pytest.raises(RuntimeError, match=r"found none; call backward\(\) first"):
        auto.mark()
    one_update(decay, auto, 0)
    with pytest.raises(RuntimeError, match=r"call mark\(\)"):
        auto.update()  # the mark was used up


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kappa": 0.0}, r"kappa must lie in \(0, 1\], got 0.0"),
        ({"kappa": 1.1}, r"kappa must lie in \(0, 1\], got 1.1"),
        ({"rate": 0.0}, "rate must be positive and finite, got 0.0"),
        ({"rate": math.inf}, "rate must be positive and finite, got inf"),
        ({"bounds": (0.0, 1.0)}, r"bounds must be 0 < low <= high < inf, got \(0.0, 1.0\)"),
        ({"bounds": (2.0, 1.0)}, r"bounds must be 0 < low <= high < inf, got \(2.0, 1.0\)"),
        ({"bounds": (1.0, math.inf)}, r"bounds must be .* got \(1.0, inf\)"),
    ],
)
def test_agreement_says_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        tied(**settings)


# ---------------------------------------------------------------- in the training loop

CLEAN = nn.functional.interpolate(draw(8, 1, 3, 3, dtype=torch.float32), (12, 12), mode="bilinear")
NOISY = CLEAN + 0.3 * draw(8, 1, 12, 12, seed=1, dtype=torch.float32)


def batches(size):
    def sample(generator):
        i = torch.randint(8, (size,), generator=generator)
        return NOISY[i], CLEAN[i]

    return sample


def trained(size=5, steps=12, strength=None, bounds=None, **settings):
    torch.manual_seed(0)
    model = ResidualNet(width=8, depth=3)
    if strength is not None:
        settings["decay"] = EquivarianceDecay(model, C4, strength)
    if bounds is not None:
        settings["automatic"] = AgreementStrength(settings["decay"], bounds=bounds)
    g = torch.Generator().manual_seed(1)
    history = fit(model, batches(size), steps=steps, lr=1e-2, generator=g, **flat(**settings))
    return model, history, settings.get("decay")


def same(model, other):
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [2, 4, 5])
def test_two_halves_make_the_gradient_of_the_batch(size):
    """With strengths pinned, halving changes nothing, for odd batches neither."""
    plain, history, _ = trained(size)
    halved, again, _ = trained(size, strength=1e-9, bounds=(1e-9, 1e-9))
    same(plain, halved)
    assert again.loss == pytest.approx(history.loss, rel=1e-4)
    assert again.images == history.images == 12 * size


def test_pinned_automatic_strength_is_decay():
    same(trained(strength=30)[0], trained(strength=30, bounds=(30, 30))[0])


def test_the_strengths_move_at_every_fourth_step():
    _, _, decay = trained(steps=9, strength=40, bounds=(0.5, 2000))  # steps 0, 4, 8
    for value in decay.strengths.values():
        moves = math.log(value / 40) / 0.05
        assert round(moves) in (-3, -1, 1, 3) and moves == pytest.approx(round(moves))


def test_the_schedule_acts_on_decay_and_penalty():
    off = {"schedule": lambda step, steps: 0.0}
    same(trained()[0], trained(strength=300, **off)[0])
    asked = []

    def watch(step, steps):
        asked.append((step, steps))
        return decreasing(step, steps)

    trained(steps=3, strength=300, schedule=watch)
    assert asked == [(0, 3), (1, 3), (2, 3)]
    torch.manual_seed(0)
    model = ResidualNet(width=8, depth=3)
    g = torch.Generator().manual_seed(1)
    penalty = ProjectionPenalty(model, C4)
    symmetry = Symmetry(regularizer=penalty, lam=1.0, **off)
    fit(model, batches(5), steps=12, lr=1e-2, symmetry=symmetry, generator=g)
    same(trained()[0], model)


def test_batches_too_small_to_halve():
    with pytest.raises(ValueError, match="needs batches of at least 2 images, got 1"):
        trained(size=1, strength=40, bounds=(1, 100))


def test_what_does_not_belong_together():
    model, decay, auto = tied()
    other = tied()[2]
    common = {"steps": 1, "lr": 1e-3}
    with pytest.raises(ValueError, match="automatic= needs the decay= that it was built on"):
        Symmetry(automatic=auto)
    with pytest.raises(ValueError, match="automatic= needs the decay= that it was built on"):
        Symmetry(decay=decay, automatic=other)
    for regularizer in (EquivarianceRegularizer(model, C4), ProjectionPenalty(model, C4)):
        with pytest.raises(ValueError, match="automatic= and regularizer= cannot be combined"):
            Symmetry(decay=decay, automatic=auto, regularizer=regularizer)
    with pytest.raises(ValueError, match="the decay was built on another model"):
        fit(ResidualNet(width=8, depth=3), batches(4), symmetry=Symmetry(decay=decay), **common)
    with pytest.raises(ValueError, match="the regularizer was built on another model"):
        symmetry = Symmetry(regularizer=ProjectionPenalty(model, C4))
        fit(ResidualNet(width=8, depth=3), batches(4), symmetry=symmetry, **common)


def test_halves_that_are_compared_are_turned_independently(monkeypatch):
    from eqreg.training import step

    seen = []
    original = step.StepLoss._compare_halves

    def spy(self, x, y, automatic):
        seen.append(x.clone())
        return original(self, x, y, automatic)

    monkeypatch.setattr(step.StepLoss, "_compare_halves", spy)
    image = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(5, 1, 8, 8)
    torch.manual_seed(0)
    model = ResidualNet(width=4, depth=2)
    decay = EquivarianceDecay(model, C4, 1.0)
    fit(
        model, lambda g: (image, image), steps=40, lr=1e-3,
        symmetry=Symmetry(augment=C4, decay=decay, automatic=AgreementStrength(decay)),
        generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    # A half of two and one of three images: each image is turned for itself, so halves differ.
    assert len(seen) == 10
    assert {len({tuple(x[i].flatten().tolist()) for x in seen}) for i in range(5)} <= {3, 4}
    assert any(not torch.equal(x[0], x[2]) for x in seen)


def test_halves_must_go_through_the_same_layers():
    torch.manual_seed(0)
    model = ResidualNet(width=4, depth=2)
    auto = AgreementStrength(EquivarianceDecay(model, C4, 1.0))
    model.body[0].bias.requires_grad_(False)
    model(torch.rand(1, 1, 8, 8)).sum().backward()
    auto.mark()
    model.body[0].bias.requires_grad_(True)
    model(torch.rand(1, 1, 8, 8)).sum().backward()
    with pytest.raises(RuntimeError, match=r"1 parameters of layer 'body.0'.*now 2 have"):
        auto.update()
