"""Patches of photographed surfaces at any angle, with the network of chapter 16."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

import torch

from ..data import TEXTURES, Labelled, textures
from .classification import Classification
from .task import Preset, Root

_HELD_OUT = {"val": 400, "test": 800}
_EVALUATION_SEED = 7


class Textures(Classification):
    """Brick, grass, gravel or tissue? The law has no direction, and no class is another one turned.

    Patches are cut at random angles; those for validation and test come from other parts of the
    photographs. Smaller ones than those of the preset hardly show more than a brick.
    """

    name = "textures"
    title = "patches of textures at any angle, small convolutional network"
    classes = len(TEXTURES)
    fields = MappingProxyType({"head": f"{len(TEXTURES)}t"})
    presets = {
        "quick": Preset(
            steps=60, images=32, methods=("plain", "strict"), seeds=(0, 1),
            rates=(1.6e-2,), tuning_steps=60,
            sizes={"size": 24, "train": 160, "width": 8, "depth": 3},
            expects="under a minute on one CPU core; too short to learn much",
        ),
        "laws": Preset(
            steps=300, images=32, seeds=(0, 1, 2, 3, 4),
            methods=(
                "plain", "augmentation", "strict", "strict-equal", "eqreg", "start-decay", "start-automatic",
            ),
            rates=(8e-3, 1.6e-2, 3.2e-2), tuning_steps=300, tuning_seeds=(100, 101), watch=1, study=True,
            sizes={"size": 24, "train": 160, "width": 16, "depth": 3},
            expects="for chapter 16: ten minutes on one CPU core, counted from the seconds of a run in "
            "artifacts/classification-sizes.json",
        ),
    }  # fmt: skip

    def training(self, preset: Preset, seed: int, root: Root) -> Labelled:
        """Patches drawn with the seed."""
        g = torch.Generator().manual_seed(seed)
        return textures("train", preset.sizes["train"], size=preset.sizes["size"], generator=g)

    def held_out(self, preset: Preset, split: str, root: Root) -> Labelled:
        """Always the same patches."""
        g = torch.Generator().manual_seed(_EVALUATION_SEED)
        return textures(split, _HELD_OUT[split], size=preset.sizes["size"], generator=g)

    def at_angles(self, preset: Preset, root: Root) -> Iterator[tuple[str, Labelled]]:
        """None: a surface has no angle 0."""
        return iter(())
