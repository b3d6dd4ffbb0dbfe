"""Digits turned by one law or another, with the network of chapter 16."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Labelled, digits, mnist, turn
from ..data.crops import fingerprint
from ..models import Classifier
from ..strict import equivariant
from ..symmetry.actions import rotate
from ..symmetry.groups import C4
from ..training.methods import METHODS, Method
from ._studies import opponents
from .task import Preset, Root, Task

_ROWS = (
    "plain", "augmentation", "strict", "strict-equal", "strict-C8",
    "pairs", "eqreg", "decay", "start-decay",
)  # fmt: skip
_EVIDENCE = (
    "plain", "augmentation", "strict-equal", "pairs", "eqreg", "eqreg-at-pairs-rate", "decay",
    "augmentation-decay",
)  # fmt: skip
# Of other papers; digits may be turned and not mirrored: the last is the wrong group, as a control.
_RIVALS = (
    "projection-penalty", "projection-norms", "projection-norms-both", "train-then-project", "pathways",
    "soft-projection", "adaptive-constraint", "automatic", "eqreg-D4",
)  # fmt: skip
_STUDY = (
    "plain", "augmentation", "strict", "strict-equal", "strict-C8", "strict-D4", "strict-escnn",
    "eqreg", "start-decay", "start-decay-free-head", "start-automatic",
)  # fmt: skip
ANGLES = tuple(range(0, 181, 15))
# Classes that are never turned; under the law "any" all are turned by any angle, else by quarter turns.
KEPT = {"any": (), "upright": range(10), "mixed": (6, 9), "turned": ()}
_CURVE_IMAGES = 1000
_EVALUATION_SEED = 10_000
_AT_ONCE = 500


class Classification(Task):
    """Which digit is it, when each is turned by an angle of its own?

    What is turned, and how far, is the size ``law``. Without it, or with "any", it is as follows.

    The law of the images knows no direction, so every rotation is right (but for 6 and 9, which tell
    nobody which of the two they are). C4 is the group whose elements move pixels to pixels.

    The training set follows the convention of rotated MNIST (Larochelle et al., 2007): 12 000 images,
    each turned once by a uniform angle, none new afterwards. Which images and which angles is drawn
    with the seed. 2000 other training images, turned, are for validation; the published set takes
    its validation images out of the 12 000, and tests on 50 000. The quick preset takes scikit-learn's
    digits, which need no file.

    The other laws of chapter 16: "upright" (nothing is turned), "turned" (each digit by a random quarter
    turn) and "mixed" (the same, but 6 and 9 are as written). They are judged by all four orientations
    of every digit that may be turned.
    """

    name = "classification"
    title = "digits, upright or turned, small convolutional network"
    right = C4
    full = C4
    classes: ClassVar[int] = 10
    score = "accuracy"
    margin = 0.005
    fields = MappingProxyType({"head": "10t"})  # a turned digit has the same ten logits
    methods = MappingProxyType(
        {
            **METHODS,
            "start-decay-free-head": replace(
                METHODS["start-decay"], layers="body.*",
                about="start-decay whose head may weigh the channels of a field differently",
            ),
            "start-automatic": replace(
                METHODS["automatic-short"], start=True,
                about="decay from equivariant weights that finds its strength",
            ),
            "strict-escnn": Method("group convolutions by the library escnn", network="escnn"),
        }
    )  # fmt: skip
    presets = {
        "quick": Preset(
            steps=150, images=32, methods=_ROWS[:1] + _ROWS[6:7], seeds=(0, 1),
            rates=(8e-3,), tuning_steps=60,
            sizes={"data": "digits", "size": 16, "train": 1000, "width": 16, "depth": 3},
            expects="under a minute on one CPU core; too short to learn much",
        ),
        "laws": Preset(
            steps=300, images=32, methods=_STUDY, seeds=(0, 1, 2, 3, 4),
            rates=(8e-3, 1.6e-2, 3.2e-2), tuning_steps=300, tuning_seeds=(100, 101), watch=1, study=True,
            sizes={"data": "digits", "size": 16, "law": "mixed", "train": 100, "width": 16, "depth": 3},
            expects="for chapter 16, varied by law and train: ten minutes for each value on one CPU core, counted "
            "from the seconds of a run in artifacts/classification-sizes.json",
        ),
        "cpu": Preset(
            steps=1500, images=32, methods=_ROWS[:4] + _ROWS[5:8], seeds=(0, 1, 2),
            rates=(4e-3, 8e-3, 1.6e-2, 3.2e-2), tuning_steps=300, tuning_seeds=(100, 101), watch=2,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 16, "depth": 3},
            expects="half an hour of one CPU core",
        ),
        "evidence": Preset(
            steps=1500, images=32, methods=_EVIDENCE, seeds=tuple(range(10)),
            rates=(8e-3, 1.6e-2), tuning_steps=500, tuning_seeds=(100, 101), watch=2, study=True,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 16, "depth": 3},
            expects="two hours of one CPU core with its tuning",
        ),
        "full": Preset(
            steps=12_000, images=128, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-3, 2e-3, 4e-3), tuning_steps=2000,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 64, "depth": 3},
            expects="not measured yet: `make gpu` times 50 steps of each row before it starts",
        ),
        "paper": Preset(
            steps=40_000, images=64, methods=_ROWS, seeds=(0, 1, 2, 3, 4, 5),
            rates=(1e-3, 2e-3), tuning_steps=6000,
            sizes={"data": "mnist", "train": 12_000, "val": 2000, "width": 96, "depth": 4},
            expects="a day of one GPU; our own protocol, since the paper has none; not yet run",
        ),
    }  # fmt: skip
    presets |= {"opponents": opponents(presets["evidence"], _RIVALS)}

    def model(self, preset: Preset) -> nn.Module:
        """A classifier of the preset's width and depth."""
        return Classifier(
            classes=self.classes, width=preset.sizes["width"], depth=preset.sizes["depth"]
        )

    def network(self, name: str, preset: Preset) -> nn.Module:
        """``"escnn"``: the strict twin by escnn's layers.

        Raises:
            ValueError: another name.
            ImportError: escnn is not installed; the message names the extra.
        """
        if name != "escnn":
            return super().network(name, preset)
        from ..strict.escnn import EscnnConv2d

        return equivariant(self.model(preset), C4, layer=EscnnConv2d)

    def training(self, preset: Preset, seed: int, root: Root) -> Labelled:
        """The images to train on: which, and how they are turned, is drawn with the seed."""
        law = _law(preset)
        pool = _of(preset, root)["train"]
        g = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(len(pool.labels), generator=g)[: preset.sizes["train"]]
        images, labels = pool.images[chosen], pool.labels[chosen]
        if law == "any":
            return Labelled(turn(images, 360 * torch.rand(len(chosen), generator=g)), labels)
        k = torch.randint(4, (len(chosen),), generator=g).masked_fill(_kept(labels, law), 0)
        return Labelled(
            torch.stack([rotate(x, int(i)) for x, i in zip(images, k, strict=True)]), labels
        )

    def held_out(self, preset: Preset, split: str, root: Root) -> Labelled:
        """The images to judge by: one angle each, or all four orientations."""
        law, part = _law(preset), _of(preset, root)[split]
        if law == "any":
            g = torch.Generator().manual_seed(_EVALUATION_SEED)
            return Labelled(
                turn(part.images, 360 * torch.rand(len(part.labels), generator=g)), part.labels
            )
        kept = _kept(part.labels, law)[:, None, None, None]
        views = [torch.where(kept, part.images, rotate(part.images, k)) for k in range(4)]
        return Labelled(torch.cat(views), part.labels.repeat(4))

    def at_angles(self, preset: Preset, root: Root) -> Iterator[tuple[str, Labelled]]:
        """Further test images, by the name of their metric: at each of ``ANGLES``, all turned alike."""
        few, labels = (t[:_CURVE_IMAGES] for t in _of(preset, root)["test"])
        for angle in ANGLES:
            yield f"accuracy_{angle}", Labelled(turn(few, float(angle)), labels)

    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> Batches:
        """Random batches of :meth:`training`."""
        images, labels = self.training(preset, seed, root)
        return Batches(images.to(device), labels.to(device), batch)

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """Share of right answers and mean log loss on :meth:`held_out`, one number for each class.

        For "test" also of the mean logits of an image's four quarter turns (``accuracy_ensemble``), on images at
        each of ``ANGLES`` (``accuracy_45`` and so on), and the change of the logits under quarter turns
        (``error_C4``).
        """
        device = next(model.parameters()).device
        x, y = (t.to(device) for t in self.held_out(preset, split, root))
        logits = _logits(model, x)
        found = {
            "accuracy": self._by_class((logits.argmax(1) == y).float(), y),
            "log_loss": self._by_class(F.cross_entropy(logits, y, reduction="none"), y),
        }
        if split != "test":
            return found
        every = torch.stack([_logits(model, rotate(x, k)) for k in range(4)]).mean(0)
        found["accuracy_ensemble"] = self._by_class((every.argmax(1) == y).float(), y)
        for name, (few, labels) in self.at_angles(preset, root):
            right = (_logits(model, few.to(device)).argmax(1).cpu() == labels).float()
            found[name] = self._by_class(right, labels)
        x, y, logits = x[:_CURVE_IMAGES], y[:_CURVE_IMAGES], logits[:_CURVE_IMAGES]
        change = torch.stack([_logits(model, rotate(x, k)) - logits for k in (1, 2, 3)])
        power = logits.square().sum(1).clamp_min(torch.finfo(logits.dtype).tiny)
        found["error_C4"] = self._by_class(change.square().sum(2).mean(0) / power, y)
        return found

    def _by_class(self, values: Tensor, labels: Tensor) -> list[float]:
        return [float(values[labels == c].mean()) for c in range(self.classes)]

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


def _law(preset: Preset) -> str:
    law = preset.sizes.get("law", "any")
    if law not in KEPT:
        raise ValueError(f"law={law}: expected one of {', '.join(KEPT)}")
    return str(law)


def _kept(labels: Tensor, law: str) -> Tensor:
    return torch.isin(labels, torch.tensor(list(KEPT[law]), dtype=labels.dtype))
