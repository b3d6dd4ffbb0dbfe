"""The task of chapter 16: its data, and what its metrics mean."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from eqreg import C4, rotate
from eqreg.data import TEXTURES, digits, turn
from eqreg.strict.escnn import EscnnConv2d
from eqreg.tasks import get_task
from eqreg.tasks.classification import ANGLES, Batches, _parts
from eqreg.training.methods import Row, prepare

REAL = Path(
    os.environ.get("EQREG_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
).resolve()
TASK = get_task("classification")
QUICK = TASK.preset("quick")
CPU = torch.device("cpu")


class Says(nn.Module):
    """Gives one answer to every image, with logits 0 and ``certainty``."""

    def __init__(self, answer, certainty=1.0):
        super().__init__()
        self.logits = nn.Parameter(certainty * torch.eye(10)[answer], requires_grad=False)

    def forward(self, x):
        return self.logits.expand(len(x), 10)


def test_metrics_are_one_number_for_each_digit():
    found = TASK.evaluate(Says(3), QUICK, "test", None)
    assert found["accuracy"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert all(found[f"accuracy_{angle}"] == found["accuracy"] for angle in ANGLES)
    # log(e + 9) - 1 for the threes, log(e + 9) for the others.
    assert found["log_loss"][3] == pytest.approx(1.4612, abs=1e-4)
    assert found["log_loss"][4] == pytest.approx(2.4612, abs=1e-4)
    assert found["error_C4"] == [0] * 10
    val = TASK.evaluate(Says(3), QUICK, "val", None)
    assert set(val) == {"accuracy", "log_loss"} and val[TASK.score] == found["accuracy"]


def test_batches_are_turned_digits_and_repeat_with_their_seed():
    a, b, c = (TASK.batches(QUICK, seed, 7, None, CPU) for seed in (0, 0, 1))
    assert a.fingerprint() == b.fingerprint() != c.fingerprint()
    x, y = a(torch.Generator().manual_seed(0))
    assert x.shape == (7, 1, 16, 16) and y.shape == (7,) and y.dtype == torch.int64
    again, _ = b(torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    # The same digits as upright, in another order and at other angles.
    upright = digits("train", size=16)
    assert torch.bincount(a.labels).tolist() == torch.bincount(upright.labels).tolist()
    g = torch.Generator().manual_seed(0)
    first = torch.randperm(1000, generator=g)[:1]
    angle = 360 * torch.rand(1000, generator=g)[:1]
    assert torch.allclose(a.images[:1], turn(upright.images[first], angle), atol=1e-5)


def test_batches_say_what_they_expect():
    with pytest.raises(ValueError, match="3 images, 2 labels and batch=4"):
        Batches(torch.zeros(3, 1, 4, 4), torch.zeros(2), 4)


def test_the_head_is_invariant_for_the_soft_methods():
    for name in ("eqreg", "decay"):
        row = Row.parse(name, TASK.right, TASK.full, TASK.methods)
        made = prepare(row, TASK.model(QUICK), 1.0, layers=TASK.layers, fields=TASK.fields)
        soft = made.symmetry.regularizer if name == "eqreg" else made.symmetry.decay
        rows = {planned.name: planned for planned in soft.plan.rows}
        field = rows["head"].field if name == "eqreg" else rows["head"].out_field
        assert field == C4.field("10t")


@pytest.mark.parametrize("task", [TASK, get_task("textures")])
def test_every_row_of_every_preset_exists(task):
    for preset in task.presets.values():
        for name in preset.methods:
            Row.parse(name, task.right, task.full, task.methods)


def law(name, **sizes):
    preset = TASK.preset(f"laws,law={name}")
    return replace(preset, sizes={**preset.sizes, **sizes})


def turns(images, upright):
    """By how many quarter turns each image differs from the upright one."""
    return [
        next(k for k in range(4) if torch.equal(x, rotate(u, k)))
        for x, u in zip(images, upright, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "kept"), [("upright", range(10)), ("mixed", (6, 9)), ("turned", ())]
)
def test_a_law_says_which_digits_are_turned(name, kept):
    part, x = TASK.training(law(name, train=60), 3, None), digits("train", size=16).images
    upright = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(3))[:60]]
    found = turns(part.images, upright)
    is_kept = torch.isin(part.labels, torch.tensor(list(kept), dtype=torch.long)).tolist()
    assert all(k == 0 for k, same in zip(found, is_kept, strict=True) if same)
    if name != "upright":  # 6 and 9 are among them where they may be turned
        assert {k for k, same in zip(found, is_kept, strict=True) if not same} == {0, 1, 2, 3}
    shown, (x, y) = TASK.held_out(law(name), "val", None), digits("val", size=16)
    assert shown.labels.tolist() == y.repeat(4).tolist()
    for k, view in enumerate(shown.images.split(len(y))):
        for c in range(10):
            assert torch.equal(view[y == c], rotate(x[y == c], 0 if c in kept else k))


def test_a_law_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="law=bent: expected one of any, upright, mixed, turned"):
        TASK.batches(law("bent"), 0, 4, None, CPU)


def test_rows_of_the_study_act_on_what_they_say():
    preset = TASK.preset("laws")

    def tied(name):
        row = Row.parse(name, TASK.right, TASK.full, TASK.methods)
        made = prepare(row, TASK.model(preset), 1.0, layers=TASK.layers, fields=TASK.fields)
        return {r.name for r in made.symmetry.decay.plan.rows if r.out_field is not None}

    body = {"body.0", "body.1", "body.2"}
    assert tied("start-decay") == {*body, "head"} and tied("start-decay-free-head") == body
    twin = TASK.network("escnn", preset)
    assert isinstance(twin.body[0], EscnnConv2d)
    with pytest.raises(ValueError, match="no network 'other'"):
        TASK.network("other", preset)


def test_textures_are_another_set_of_images_with_the_same_network():
    task = get_task("textures")
    preset = replace(task.preset("quick"), sizes={**task.preset("quick").sizes, "train": 8})
    batches = task.batches(preset, 0, 4, None, CPU)
    assert batches.images.shape == (8, 1, 24, 24) and batches.labels.tolist() == 2 * [0, 1, 2, 3]
    assert not torch.equal(batches.images, task.batches(preset, 1, 4, None, CPU).images)
    model = task.model(preset)
    row = Row.parse("eqreg", task.right, task.full, task.methods)
    made = prepare(row, model, 1.0, layers=task.layers, fields=task.fields)
    assert made.symmetry.regularizer.plan.fields["head"] == C4.field("4t")
    found = task.evaluate(model.eval(), preset, "test", None)
    assert set(found) == {"accuracy", "accuracy_ensemble", "log_loss", "error_C4"}
    assert {len(values) for values in found.values()} == {len(TEXTURES)}


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="set EQREG_DATA to a folder with MNIST")
def test_validation_digits_are_never_trained_on():
    parts = _parts("mnist", None, 2000, REAL)
    assert [len(part.labels) for part in parts.values()] == [58_000, 2000, 10_000]
    small = replace(TASK.preset("cpu"), sizes={**TASK.preset("cpu").sizes, "train": 50})
    batches = TASK.batches(small, 0, 5, REAL, CPU)
    assert batches.images.shape == (50, 1, 28, 28)
    # Together they are the training file, whose counts are known.
    joined = torch.bincount(torch.cat([parts["train"].labels, parts["val"].labels]))
    assert joined.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    _parts.cache_clear()
