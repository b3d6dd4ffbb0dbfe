"""Digits turned by any angle, with the network of chapter 16."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Labelled, digits, mnist, turn
from ..data.crops import fingerprint
from ..models import Classifier
from ..symmetry.actions import rotate
from ..symmetry.groups import C4
from .task import Preset, Root, Task

_ROWS = (
    "plain", "augmentation", "strict", "strict-equal", "strict-C8",
    "pairs", "eqreg", "decay", "start-decay",
)  # fmt: skip
CLASSES = 10
ANGLES = (0, 15, 30, 45, 60, 75, 90, 135, 180)
_CURVE_IMAGES = 1000
_EVALUATION_SEED = 10_000
_AT_ONCE = 500


class Classification(Task):
    """Which digit is it, when each is turned by an angle of its own?

    The law of the images knows no direction, so every rotation is right (but for 6 and 9, which tell
    nobody which of the two they are). C4 is the group whose elements move pixels to pixels.

    The training set follows the convention of rotated MNIST (Larochelle et al., 2007): 12 000 images,
    each turned once by a uniform angle, none new afterwards. Which images and which angles is drawn
    with the seed. 2000 other training images, turned, are for validation; the published set takes
    its validation images out of the 12 000, and tests on 50 000. The quick preset takes scikit-learn's
    digits, which need no file.
    """

    name = "classification"
    title = "digits turned by any angle, small convolutional network"
    right = C4
    full = C4
    score = "accuracy"
    margin = 0.005
    fields = MappingProxyType({"head": "10t"})  # a turned digit has the same ten logits
    presets = {
        "quick": Preset(
            steps=150, images=32, methods=_ROWS[:1] + _ROWS[6:7], seeds=(0, 1),
            rates=(8e-3,), tuning_steps=60,
            sizes={"data": "digits", "size": 16, "train": 1000, "width": 16, "depth": 3},
            expects="under a minute on one CPU core; too short to learn much",
        ),
        "cpu": Preset(
            steps=1500, images=32, methods=_ROWS[:4] + _ROWS[5:8], seeds=(0, 1, 2),
            rates=(4e-3, 8e-3, 1.6e-2, 3.2e-2), tuning_steps=300, tuning_seeds=(100, 101), watch=2,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 16, "depth": 3},
            expects="half an hour of one CPU core",
        ),
        "full": Preset(
            steps=12_000, images=128, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-3, 2e-3, 4e-3), tuning_steps=2000,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 64, "depth": 3},
            expects="30 minutes of one H200-class GPU; not yet run",
        ),
        "paper": Preset(
            steps=40_000, images=64, methods=_ROWS, seeds=(0, 1, 2, 3, 4, 5),
            rates=(1e-3, 2e-3), tuning_steps=6000,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 96, "depth": 4},
            expects="a day of one GPU; our own protocol, since the paper has none; not yet run",
        ),
    }  # fmt: skip

    def model(self, preset: Preset) -> nn.Module:
        """A classifier of the preset's width and depth."""
        return Classifier(width=preset.sizes["width"], depth=preset.sizes["depth"])

    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> Batches:
        """Random batches of the turned training images."""
        pool = _of(preset, root)["train"]
        g = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(pool.labels), generator=g)[: preset.sizes["train"]]
        images = turn(pool.images[chosen], 360 * torch.rand(len(chosen), generator=g))
        return Batches(images.to(device), pool.labels[chosen].to(device), batch)

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """Share of right answers and mean log loss, one number for each of the ten digits.

        On images turned by random angles; for "test" also at each of ``ANGLES`` (``accuracy_45`` and so
        on), and the change of the logits under quarter turns (``error_C4``).
        """
        device = next(model.parameters()).device
        part = _of(preset, root)[split]
        g = torch.Generator().manual_seed(_EVALUATION_SEED)
        x = turn(part.images, 360 * torch.rand(len(part.labels), generator=g)).to(device)
        y = part.labels.to(device)
        logits = _logits(model, x)
        found = {
            "accuracy": _by_class((logits.argmax(1) == y).float(), y),
            "log_loss": _by_class(F.cross_entropy(logits, y, reduction="none"), y),
        }
        if split != "test":
            return found
        few, y = part.images[:_CURVE_IMAGES].to(device), y[:_CURVE_IMAGES]
        for angle in ANGLES:
            right = (_logits(model, turn(few, float(angle))).argmax(1) == y).float()
            found[f"accuracy_{angle}"] = _by_class(right, y)
        x, logits = x[:_CURVE_IMAGES], logits[:_CURVE_IMAGES]
        change = torch.stack([_logits(model, rotate(x, k)) - logits for k in (1, 2, 3)])
        power = logits.square().sum(1).clamp_min(torch.finfo(logits.dtype).tiny)
        found["error_C4"] = _by_class(change.square().sum(2).mean(0) / power, y)
        return found

    def loss(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(prediction, y)


class Batches:
    """A sampler for :func:`eqreg.training.fit`: random images with their labels, from memory.

    Args:
        images: (N, C, H, W).
        labels: (N,).
        batch: images per call.

    >>> x, y = Batches(torch.rand(5, 1, 8, 8), torch.arange(5), 3)(None)
    >>> x.shape, y.shape
    (torch.Size([3, 1, 8, 8]), torch.Size([3]))
    """

    def __init__(self, images: Tensor, labels: Tensor, batch: int) -> None:
        if len(images) != len(labels) or not len(labels) or batch < 1:
            raise ValueError(
                "Batches: expected as many labels as images and batch >= 1, got "
                f"{len(images)} images, {len(labels)} labels and batch={batch}"
            )
        self.images, self.labels, self.batch = images, labels, batch

    def __call__(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """(batch, C, H, W) and (batch,)."""
        rows = torch.randint(len(self.labels), (self.batch,), generator=generator)
        rows = rows.to(self.labels.device)
        return self.images[rows], self.labels[rows]

    def fingerprint(self) -> str:
        """Hash of images and labels, to tell whether two runs saw the same data."""
        return fingerprint(self.images, self.labels)


@lru_cache(maxsize=2)
def _parts(data: str, size: int | None, val: int, root: Root) -> dict[str, Labelled]:
    """Upright images to train, validate and test on, without common images."""
    if data == "digits":
        return {split: digits(split, size=size) for split in ("train", "val", "test")}
    folder = None if root is None else Path(root) / "MNIST"
    train, test = mnist("train", folder), mnist("test", folder)
    return {
        "train": Labelled(*(t[:-val] for t in train)),
        "val": Labelled(*(t[-val:] for t in train)),
        "test": test,
    }


def _of(preset: Preset, root: Root) -> dict[str, Labelled]:
    sizes = preset.sizes
    return _parts(sizes["data"], sizes.get("size"), sizes.get("val", 0), root)


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part) for part in x.split(_AT_ONCE)])


def _by_class(values: Tensor, labels: Tensor) -> list[float]:
    return [float(values[labels == c].mean()) for c in range(CLASSES)]
