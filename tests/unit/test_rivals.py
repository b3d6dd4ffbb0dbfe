"""Rivals from other papers: what each promises, in closed form, and that the engine trains them."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from eqreg import C2, C4, equivariance_distance, equivariance_error, load_pretrained, rotate
from eqreg.experiments import comparison, tuning
from eqreg.experiments.runs import Run, prepared, train
from eqreg.layers.reynolds import reynolds
from eqreg.models import ResidualNet
from eqreg.soft import (
    AdaptiveConstraint,
    EquivarianceDecay,
    PathwayDecay,
    ProjectionNorms,
    soft_projection_,
    soften,
)
from eqreg.tasks import Preset, get_task
from eqreg.tasks.rain import Rain
from eqreg.training import Keeping, Row, Symmetry, fit, prepare
from eqreg.training.checkpoint import CheckpointError

RIVALS = (
    "projection-norms", "projection-norms-both", "train-then-project", "pathways", "soft-projection",
    "adaptive-constraint",
)  # fmt: skip
TINY = Preset(
    steps=6, images=4, methods=RIVALS, seeds=(0,), rates=(1e-3,), tuning_steps=3, tuning_seeds=(100,),
    expects="a second", watch=2,
    sizes={"patches": 2, "patch": 32, "crop": 16, "size": 24, "spread": 20.0, "width": 4, "depth": 3},
)  # fmt: skip
X = torch.rand(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return ResidualNet(width=8, depth=3)


def one_layer():
    """A convolution from an image to one, whose asymmetric part has the norm 2."""
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 1, 3, bias=False).double()
    even = mean(layer.weight.data)
    rest = layer.weight.data - even
    layer.weight.data = even + 2 * rest / rest.norm()
    return layer


def mean(weight):
    """Over the quarter turns of a kernel from an image to an image."""
    return torch.stack([rotate(weight, k) for k in range(4)]).mean(0)


FIELDS = {"fields": {"(model)": "1t"}, "in_fields": {"(model)": "1t"}}


# ---- norms of both parts


def test_the_norms_are_those_of_an_orthogonal_split():
    model = net()
    norms = ProjectionNorms(model, C4, symmetric=0.5)
    by_hand = []
    for name, (rest, even) in norms.per_layer().items():
        layer = model.get_submodule(name)
        whole = sum(p.square().sum() for p in layer.parameters())
        assert torch.isclose(rest**2 + even**2, whole, rtol=1e-5)
        by_hand.append(rest + even / 2)
    assert torch.isclose(norms(), sum(by_hand) / 3)
    before = norms().item()
    for p in model.parameters():
        p.data *= 3
    assert norms().item() == pytest.approx(3 * before, rel=1e-5)  # a norm, not its square


@pytest.mark.parametrize(("lam", "symmetric"), [(0.5, 0.0), (1.5, 0.2), (2.5, 0.0), (2.5, 0.2)])
def test_a_norm_cuts_off_what_is_smaller_than_its_weight(lam, symmetric):
    """min |W - W0|^2 / 2 + lam (|W - PW| + a |PW|): both norms of the optimum are lam, or a lam, smaller, or 0."""
    layer = one_layer()
    start = layer.weight.detach().clone()
    norms = ProjectionNorms(layer, C4, symmetric=symmetric, **FIELDS)
    for step in range(1000):
        layer.zero_grad()
        (0.5 * (layer.weight - start).square().sum() + lam * norms()).backward()
        layer.weight.data -= 0.05 / (1 + step / 50) * layer.weight.grad
    [(rest, even)] = norms.per_layer().values()
    assert rest.item() == pytest.approx(max(0.0, 2 - lam), abs=0.02)
    assert even.item() == pytest.approx(
        max(0.0, mean(start).norm().item() - symmetric * lam), abs=0.01
    )


def test_a_symmetric_network_has_a_finite_gradient():
    model = net()
    decay = EquivarianceDecay(model, C4, math.inf)
    decay.step(1.0)
    ProjectionNorms(model, C4)().backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    with pytest.raises(ValueError, match="ProjectionNorms: symmetric"):
        ProjectionNorms(model, C4, symmetric=-1.0)


# ---- soft projection


@pytest.mark.parametrize("b", [0.0, 0.3, 1.0])
def test_one_number_scales_the_asymmetry_of_every_layer(b):
    model, plain = soft_projection_(net(), C4, b), net()
    before = ProjectionNorms(plain, C4).per_layer()
    for name in before:
        seen = model.get_submodule(name)
        plain.get_submodule(name).load_state_dict({"weight": seen.weight, "bias": seen.bias})
    for name, (rest, even) in ProjectionNorms(plain, C4).per_layer().items():
        assert rest.item() == pytest.approx((1 - b) * before[name][0].item(), abs=1e-6)
        assert even.item() == pytest.approx(before[name][1].item(), rel=1e-5)
    softened = soften(
        net(), C4, b, example=X
    ).model  # by tracing, which knows the ties by other means
    assert torch.allclose(softened(X), model(X), atol=1e-5)
    if b == 0:
        assert torch.allclose(model(X), net()(X), atol=1e-6)
    if b == 1:
        assert equivariance_error(model.double().body, X.double(), C4).max() < 1e-12
    with pytest.raises(ValueError, match="soft_projection_: b"):
        soft_projection_(net(), C4, 1.5)


# ---- two paths


def test_pathways_start_strict_with_the_norms_that_they_had():
    plain, model = net(), net()
    PathwayDecay(model, C4)
    assert equivariance_error(model.double().body, X.double(), C4).max() < 1e-12
    for name in ("body.0", "body.2", "body.4"):
        ours, theirs = model.get_submodule(name).weight, plain.get_submodule(name).weight
        assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=1e-5)


def test_two_decays_are_two_priors():
    """min |W - W0|^2 / 2 + p |U|^2 / 2 + q |B|^2 / 2 for W = PU + B: variances 1/p + 1/q and 1/q."""
    layer = one_layer()
    start = layer.weight.detach().clone()
    q = 1.0
    p = 0.01 * q
    decay = PathwayDecay(layer, C4, q, **FIELDS)
    optimizer = torch.optim.SGD(layer.parameters(), 0.02)
    for _ in range(4000):
        optimizer.zero_grad()
        (0.5 * (layer.weight - start).square().sum()).backward()
        optimizer.step()
        decay.step(0.02)
    even, rest = mean(start), start - mean(start)
    both = 1 / p + 1 / q
    expected = even * both / (both + 1) + rest * (1 / q) / (1 / q + 1)
    assert torch.allclose(layer.weight, expected, atol=0.02)


def test_pathways_decay_by_their_strengths():
    model = net()
    decay = PathwayDecay(model, C4, 40.0)
    decay.set_strength({"body.0": 40.0})
    assert decay.strengths == {"body.0": 40.0, "body.2": 0.0, "body.4": 0.0}
    paths = {n: model.get_submodule(n).parametrizations.weight for n in ("body.0", "body.2")}
    for path in paths.values():
        path.original1.data.fill_(1.0)
    before = paths["body.0"].original0.clone()
    decay.step(0.01)
    assert torch.allclose(paths["body.0"].original1, torch.tensor(math.exp(-0.4)))
    assert torch.allclose(paths["body.0"].original0, before * math.exp(-0.004))
    assert (paths["body.2"].original1 == 1).all()
    with pytest.raises(ValueError, match="expected names among"):
        decay.set_strength({"head": 1.0})


# ---- constraint


@pytest.mark.parametrize(("worth", "rho"), [(1.0, 1.0), (3.0, 0.5), (0.0, 1.0)])
def test_the_dual_method_ends_where_the_constraint_pays(worth, rho):
    """A task that pays worth * (gamma - 1)^2 / 2 for an open gate: gamma = u = nu = worth / (worth + rho)."""
    layer = one_layer()
    constraint = AdaptiveConstraint(layer, C4, **FIELDS)
    [gate] = constraint.gates
    optimizer = torch.optim.SGD([gate.gamma], 0.05)
    path = []
    for _ in range(1000):
        optimizer.zero_grad()
        loss = 0.5 * worth * (gate.gamma - 1).square() + rho * constraint()
        loss.backward()
        optimizer.step()
        constraint.step(0.05)
        path.append(gate.multiplier.item())
    assert 0 < path[0] < path[1]  # the strength starts at nothing and grows while the gate is open
    found = worth / (worth + rho)
    for value in (gate.gamma.abs(), gate.slack, gate.multiplier):
        assert value.item() == pytest.approx(found, abs=0.02)


def test_a_closed_gate_is_a_strict_layer_and_an_open_one_the_plain_layer():
    model = net()
    constraint = AdaptiveConstraint(model, C4)
    assert torch.allclose(model(X), net()(X), atol=1e-6) and constraint().item() == 0
    for gate in constraint.gates:
        gate.gamma.data.zero_()
    assert equivariance_error(model.double().body, X.double(), C4).max() < 1e-12
    with pytest.raises(ValueError, match="lr"):
        constraint.step(-1.0)


# ---- the engine


def batch(generator):
    y = torch.rand(4, 1, 12, 12, generator=generator)
    return y + 0.1 * torch.randn(y.shape, generator=generator), y


def trained(name, checkpoint=None, stops=(), steps=9):
    """Stopped after the given steps and called again with everything made anew, as after a kill."""
    for until in (*stops, None):
        torch.manual_seed(0)
        strength = 0.0 if name in ("plain", "train-then-project") else 0.5
        made = prepare(Row.parse(name, C2, C4), ResidualNet(width=8, depth=3), strength)
        seen = []
        history = fit(
            made.model, batch, steps=steps, lr=5e-3, symmetry=made.symmetry, progress=False,
            generator=torch.Generator().manual_seed(1),
            on_step=lambda step, _, seen=seen: seen.append(step),
            keeping=Keeping(
                checkpoint, 4, stop=lambda seen=seen, until=until: until is not None and seen[-1:] == [until - 1]
            ),
        )  # fmt: skip
        assert history.finished == (until is None)
    return made.model, history


@pytest.mark.parametrize("name", RIVALS)
def test_a_stopped_rival_ends_with_the_same_weights_to_the_last_bit(tmp_path, name):
    model, history = trained(name)
    again, resumed = trained(name, tmp_path / "c", stops=(3, 8))
    assert resumed.loss == history.loss and resumed.penalty == history.penalty
    assert model.state_dict().keys() == again.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    third, _ = trained(name, tmp_path / "c")  # a finished run that is called once more stays
    assert all(torch.equal(v, third.state_dict()[k]) for k, v in model.state_dict().items())


def test_train_then_project_is_plain_until_the_last_step(tmp_path):
    plain, seen = trained("plain")
    strict, history = trained("train-then-project-C2")
    assert history.loss == seen.loss
    norms = ProjectionNorms(plain, C2)
    for name, layer in norms.plan.tied.items():
        for tensor, index in layer.tensors():
            parameter = "weight" if tensor.ndim > 1 else "bias"
            ours = getattr(strict.get_submodule(name), parameter)
            assert torch.allclose(ours, reynolds(tensor, index), atol=1e-6)
    assert max(equivariance_distance(strict, C2).values()) < 1e-12
    trained("plain", tmp_path / "c")
    with pytest.raises(CheckpointError, match="decay was 'none'"):
        trained("train-then-project", tmp_path / "c")
    with pytest.raises(ValueError, match="ends_strict=True needs a decay="):
        Symmetry(ends_strict=True)


def test_the_multipliers_move_while_it_trains():
    model, history = trained("adaptive-constraint")
    gates = [m for m in model.modules() if hasattr(m, "multiplier")]
    assert len(gates) == 6 and all(g.multiplier > 0 for g in gates)
    assert history.penalty[0] == 0 < history.penalty[-1]


@pytest.mark.parametrize("task", ["rain", "classification"])
def test_the_preset_of_rivals_stands_beside_the_evidence(task):
    known = get_task(task)
    preset, evidence = known.preset("opponents"), known.preset("evidence")
    for part in ("steps", "images", "sizes", "seeds", "tuning_steps"):
        assert getattr(preset, part) == getattr(evidence, part)
    assert not set(preset.methods) & set(evidence.methods) and preset.study
    assert {m.removesuffix("-C2") for m in preset.methods} >= set(RIVALS)
    for method in preset.methods:
        model, row = prepared(Run(task, "opponents", method, 0, 1e-3))[2::2]
        groups = {row.group, row.decay_group} - {None}
        control = method in ("eqreg-C4", "eqreg-D4")
        larger = (
            control or method == "automatic"
        )  # the decay's group, as in the rows of the evidence
        assert all((g == known.right) != larger for g in groups) or task == "classification"
        assert control == (method == preset.methods[-1])
        assert sum(p.numel() for p in model.parameters()) > 1000
    assert preset.varied("width", "8").beside == ""


def test_rows_of_two_presets_stand_in_one_table(tmp_path, monkeypatch):
    rivals = replace(TINY, methods=("soft-projection",), beside="base", study=True)
    base = replace(TINY, methods=("plain",))
    odd = replace(rivals, steps=7)
    monkeypatch.setattr(Rain, "presets", {"base": base, "rivals": rivals, "odd": odd})
    train(Run("rain", "base", "plain", 0, 1e-3), tmp_path)
    train(Run("rain", "rivals", "soft-projection", 0, 1e-3, 3.0), tmp_path)
    tuned = tuning.tune("rain", "base", "plain", tmp_path)
    content = comparison.collect(tmp_path, "rain", "rivals")
    assert list(content["rows"]) == ["plain", "soft-projection"]
    assert content["tuning"] == {"plain": tuned} and content["settings"]["preset"] == "rivals"
    assert list(comparison.collect(tmp_path, "rain", "base")["rows"]) == ["plain"]
    with pytest.raises(
        ValueError, match="'odd' of rain stands beside 'base', whose steps must be the same"
    ):
        comparison.collect(tmp_path, "rain", "odd")


def test_studies_of_the_claim_have_its_five_rows():
    five = {"plain", "augmentation", "strict-equal", "pairs", "eqreg"}
    for task in ("rain", "inpainting"):
        preset = get_task(task).preset("claim,patches=256")
        assert set(preset.methods) == five and preset.sizes["patches"] == 256 and preset.study
    dose = get_task("rain").preset("dose,spread=50")
    assert {m.removesuffix("-C4") for m in dose.methods} == five and dose.sizes["spread"] == 50.0
    assert {Row.parse(m, C2, C4).group for m in dose.methods} == {None, C4}


@pytest.mark.parametrize("name", RIVALS)
def test_the_engine_tunes_trains_measures_and_loads_a_rival(name, tmp_path, monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})
    task, preset = Rain(), TINY
    strength = next(iter(preset.strengths_of(task.methods[name])))
    result = train(Run("rain", "tiny", name, 0, 1e-3, strength), tmp_path)
    assert result["silent"] == [] and not result["mute"]
    strict = name == "train-then-project"
    assert (result["metrics"]["error_C4"] < 1e-9) == strict
    if name == "projection-norms":
        found = tuning.tune("rain", "tiny", name, tmp_path)
        assert {t["strength"] for t in found["tried"]} >= {1e-4, 1e-3, 1e-2}
    path = tmp_path / "rain/tiny" / name / "seed-0/weights.safetensors"
    model = load_pretrained(str(path))
    again = task.evaluate(model, preset, "test", None)["psnr"]
    assert again == pytest.approx(result["per_image"]["psnr"], abs=1e-3)
