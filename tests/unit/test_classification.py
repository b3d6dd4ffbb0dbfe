"""The task of chapter 16: its data, and what its metrics mean."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from eqreg import C4
from eqreg.data import digits, turn
from eqreg.tasks import get_task
from eqreg.tasks.classification import ANGLES, Batches, _parts
from eqreg.training.methods import METHODS, Row, prepare

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


def test_every_row_of_every_preset_exists():
    for preset in TASK.presets.values():
        for name in preset.methods:
            Row.parse(name, TASK.right, TASK.full, METHODS)


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
