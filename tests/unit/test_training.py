"""The training loop: what each method trains on, cost, reproducibility, errors; and artifacts."""

import json

import pytest
import torch
import torch.nn.functional as F
from flat import flat
from torch import nn

from eqreg import C2, C4, EquivarianceRegularizer, rotate
from eqreg.experiments import artifacts
from eqreg.experiments.artifacts import load_artifact
from eqreg.models import ResidualNet
from eqreg.training import Symmetry, fit
from eqreg.training.batch import turn
from eqreg.training.step import StepLoss

COARSE = torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))
CLEAN = nn.functional.interpolate(COARSE, (12, 12), mode="bilinear")
NOISY = CLEAN + 0.3 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))


def batch(generator):
    i = torch.randint(8, (4,), generator=generator)
    return NOISY[i], CLEAN[i]


def train(steps=30, seed=0, lam=None, **settings):
    torch.manual_seed(seed)
    model = ResidualNet(width=8, depth=3)
    if lam is not None:
        settings["lam"] = lam
        settings["regularizer"] = EquivarianceRegularizer(
            model, C4, generator=torch.Generator().manual_seed(seed)
        )
    generator = torch.Generator().manual_seed(seed)
    return model, fit(
        model,
        batch,
        steps=steps,
        lr=settings.pop("lr", 5e-3),
        generator=generator,
        **flat(**settings),
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("settings", [{}, {"augment": C4}, {"lam": 0.0}, {"lam": 0.01}], ids=str)
def test_every_method_learns(settings):
    _, history = train(steps=80, **settings)
    assert sum(history.loss[-10:]) < 0.5 * sum(history.loss[:10])


def test_history_counts_the_cost():
    _, plain = train()
    _, paired = train(lam=0.1)
    assert len(plain.loss) == len(paired.loss) == len(paired.penalty) == 30
    assert plain.penalty == []
    assert plain.images == 30 * 4 and paired.images == 30 * 8
    assert plain.seconds > 0


def test_the_penalty_lowers_the_error():
    _, loose = train(steps=60, lam=0.0)
    _, tight = train(steps=60, lam=0.1)
    assert sum(tight.penalty[-10:]) < 0.7 * sum(loose.penalty[-10:])


def test_augmentation_turns_input_and_label_by_every_element():
    pairs = []

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x):
            pairs.append([x])
            return self.scale * x

    def loss(prediction, y):
        pairs[-1].append(y)
        return (prediction - y).square().mean()

    def one(generator):
        return NOISY[:1], CLEAN[:1]

    fit(Watch(), one, steps=40, lr=1e-3, symmetry=Symmetry(augment=C4), loss=loss)
    turns = [k for x, _ in pairs for k in range(4) if torch.equal(x, rotate(NOISY[:1], k))]
    assert sorted(set(turns)) == [0, 1, 2, 3]
    assert all(torch.equal(y, rotate(CLEAN[:1], k)) for (_, y), k in zip(pairs, turns, strict=True))


def test_augmentation_turns_every_image_for_itself():
    x, label = torch.rand(64, 1, 6, 6), torch.arange(64)
    (turned, kept), y = turn(((x, label), x.flip(1)), C4, torch.Generator().manual_seed(0))
    turns = [[k for k in range(4) if torch.equal(turned[i], rotate(x[i], k))] for i in range(64)]
    assert torch.equal(kept, label) and torch.equal(y, turned)
    assert all(len(k) == 1 for k in turns)
    counts = [turns.count([k]) for k in range(4)]
    assert min(counts) >= 6  # 16 expected, standard deviation 3.5


def test_maps_of_classes_turn_with_their_images():
    """As EQ-Reg turns them: a map that stays where its image turns is a wrong label, and nobody is told."""
    x = torch.rand(64, 1, 6, 6)
    classes = (10 * x[:, 0]).long()
    for labels in (classes, classes > 4, classes.to(torch.uint8)):
        turned, moved = turn((x, labels), C4, torch.Generator().manual_seed(0))
        turns = [
            next(k for k in range(4) if torch.equal(t, rotate(i, k)))
            for t, i in zip(turned, x, strict=True)
        ]
        assert {0, 1, 2, 3} == set(turns)
        assert all(
            torch.equal(m, rotate(y, k)) for m, y, k in zip(moved, labels, turns, strict=True)
        )
    volumes = x.unflatten(0, (16, 4))  # (B, D, C, H, W)
    moved = turn((volumes, torch.rand(16, 3)), C4, torch.Generator().manual_seed(0))[0]
    assert all(
        any(torch.equal(m, rotate(v, k)) for k in range(4))
        for m, v in zip(moved, volumes, strict=True)
    )
    assert not torch.equal(moved, volumes)


@pytest.mark.parametrize(
    "unclear", [torch.rand(2, 6, 6), torch.rand(2, 5, 7)], ids=["map", "tokens"]
)
def test_what_may_be_an_image_or_tokens_is_refused(unclear):
    x = torch.rand(2, 1, 6, 6)
    for batch in ((x, unclear), ((x, unclear), x)):
        with pytest.raises(
            ValueError, match=r"augment=C4 cannot tell whether shape \(2, .* is an image"
        ):
            turn(batch, C4, None)


def test_images_that_are_not_square_are_not_turned_by_quarters():
    x = torch.rand(2, 1, 6, 4)
    with pytest.raises(
        ValueError, match=r"augment=C4 turns each image .* square images, got \(6, 4\)"
    ):
        turn((x, x), C4, None)
    assert turn((x, x), C2, None)[0].shape == x.shape


def test_pairs_have_the_loss_of_one_image_not_of_two():
    """So that clipping bites alike with and without pairs."""
    model = ResidualNet(width=8, depth=3)
    x, y = NOISY[:4], CLEAN[:4]
    for g in (1, 3):
        regularizer = EquivarianceRegularizer(model, C4)
        regularizer.draw = lambda g=g: C4.element(g)
        symmetry = Symmetry(regularizer=regularizer)
        task, _ = StepLoss(model, F.mse_loss, None, symmetry, 1, None).backward(x, y)
        with torch.no_grad():
            apart = [F.mse_loss(model(rotate(x, k)), rotate(y, k)) for k in (0, g)]
        assert float(task) == pytest.approx(float(sum(apart)) / 2, rel=1e-5)


@pytest.mark.parametrize("settings", [{}, {"augment": C2}, {"lam": 0.1}], ids=str)
def test_seeds_decide_and_the_global_state_is_left_alone(settings):
    first, _ = train(**settings)
    state = torch.get_rng_state()
    again, _ = train(**settings)
    other, _ = train(seed=1, **settings)
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    torch.manual_seed(0)
    ResidualNet(width=8, depth=3)
    assert state.equal(torch.get_rng_state()), "fit drew from the global generator"


def test_mode_is_restored():
    model = ResidualNet(width=8, depth=2).eval()
    fit(model, batch, steps=1, lr=1e-3)
    assert not model.training


def test_progress_shows_loss_and_penalty_only_when_asked(capfd):
    train(steps=5, lam=0.1, progress=True, label="EQ-Reg")
    shown = capfd.readouterr().err
    assert "EQ-Reg" in shown and "loss=" in shown and "penalty=" in shown
    train(steps=5)  # nobody watches a test
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive and at most 1e.37, got 0.0"),
        ({"lr": 1e39}, "lr must be positive and at most 1e.37, got 1e.39"),
        ({"lr": float("nan")}, "lr must be positive and at most 1e.37, got nan"),
        ({"lam": -0.1}, "lam must be at least 0 and finite, got -0.1"),
        ({"warmup": -1}, "warmup >= 0 and clip > 0, got -1 and 1.0"),
        ({"clip": 0.0}, "warmup >= 0 and clip > 0, got 20 and 0.0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        train(**settings)


def test_settings_that_do_not_belong_together():
    model = ResidualNet(width=8, depth=2)
    with pytest.raises(ValueError, match="lam=0.1 needs a regularizer, got none"):
        Symmetry(lam=0.1)
    regularizer = EquivarianceRegularizer(ResidualNet(width=8, depth=2), C4)
    with pytest.raises(ValueError, match="built on another model"):
        fit(model, batch, steps=1, lr=1e-3, symmetry=Symmetry(regularizer=regularizer))
    with pytest.raises(ValueError, match="ReLU has none"):
        fit(nn.ReLU(), batch, steps=1, lr=1e-3)


def test_labels_of_another_shape_are_not_broadcast():
    model = ResidualNet(width=8, depth=2)

    def rgb(generator):
        return NOISY, CLEAN.expand(-1, 3, -1, -1)

    with pytest.raises(ValueError, match=r"one shape, got \(8, 1, 12, 12\) and \(8, 3, 12, 12\)"):
        fit(model, rgb, steps=1, lr=1e-3)


@pytest.mark.parametrize(
    "loss",
    [F.mse_loss, F.l1_loss, nn.SmoothL1Loss(), nn.PoissonNLLLoss()],
    ids=["mse", "l1", "smooth", "poisson"],
)
@pytest.mark.parametrize("shape", [(8,), (8, 12, 12)], ids=str)
def test_no_loss_broadcasts_a_prediction_against_its_label(loss, shape):
    """(8, 1) against (8,) has 64 differences, of which 8 are meant."""
    head = nn.Sequential(nn.Flatten(), nn.LazyLinear(1)) if len(shape) == 1 else nn.Conv2d(1, 1, 1)
    head(NOISY)
    with pytest.raises(ValueError, match=r"one shape, got \(8, 1.* and \(8,"):
        fit(head, lambda _: (NOISY, torch.rand(shape)), steps=1, lr=1e-3, loss=loss)


def test_divergence_is_reported_where_it_happens():
    def broken(generator):
        return NOISY * float("nan"), CLEAN

    with pytest.raises(FloatingPointError, match=r"became nan at step 0 with lr=0.001"):
        fit(ResidualNet(width=8, depth=2), broken, steps=3, lr=1e-3)


# ---- artifacts


STAMP = {"device": "CPU", "date": "2026-01-01", "version": "0.1.0", "seeds": [0], "hours": 0.1}


def test_artifacts_are_read_from_the_first_place_that_has_them(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_PLACES", (tmp_path / "wheel", tmp_path))
    (tmp_path / "run.json").write_text(json.dumps({"stamp": STAMP, "rows": [1]}))
    assert load_artifact("run")["rows"] == [1]
    assert load_artifact("better", "run")["rows"] == [1]


def test_artifacts_need_a_file_json_and_a_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "_PLACES", (tmp_path,))
    with pytest.raises(FileNotFoundError, match=r"expected run.json at .*run.json, found none"):
        load_artifact("run")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run.json: expected .*stored results as JSON"):
        load_artifact("run")
    (tmp_path / "run.json").write_text(json.dumps({"stamp": {"device": "CPU"}}))
    with pytest.raises(ValueError, match="lacks date, version, seeds, hours"):
        load_artifact("run")
