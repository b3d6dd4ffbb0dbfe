"""Rain removal with the network of chapter 13."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import patches, photographs
from ..data.bsds import BSDS500
from ..data.crops import RandomCrops
from ..data.images import grey, square
from ..measure.quality import psnr, ssim
from ..models import ResidualNet
from ..physics.rain import RainModel, add_rain
from ..symmetry.actions import rotate
from ..symmetry.groups import C2, C4
from ._layers import in_layers
from ._studies import claim, dose, opponents
from .task import Preset, Root, Task

_ROWS = (
    "plain", "augmentation", "augmentation-C4", "strict", "strict-equal", "strict-C4",
    "pairs", "eqreg", "eqreg-C4", "decay", "augmentation-decay",
)  # fmt: skip
# Every method of the book, most with the right group and with the larger one.
_ALL = (
    "plain", "augmentation", "augmentation-C4", "strict", "strict-equal", "strict-C4", "strict-equal-C4",
    "pairs", "pairs-C4", "eqreg", "eqreg-C4", "penalty-C4", "eqreg-scale-free-C4", "projection-penalty",
    "decay", "augmentation-decay", "automatic", "start-decay",
)  # fmt: skip
_EVIDENCE = (
    "plain", "augmentation", "strict-equal", "pairs", "eqreg", "eqreg-at-pairs-rate", "decay",
    "augmentation-decay",
)  # fmt: skip
# Of other papers, with the right group where they act on weights; the last is the wrong one, as a control.
_RIVALS = (
    "projection-penalty-C2", "projection-norms-C2", "projection-norms-both-C2", "train-then-project-C2",
    "pathways-C2", "soft-projection-C2", "adaptive-constraint-C2", "automatic", "eqreg-C4",
)  # fmt: skip
_EVALUATION_SEED = 10_000


class Rain(Task):
    """Grey photographs in rain that falls within ``spread`` (20°) of the vertical.

    Turned by half a turn such rain looks alike, by a quarter it does not: C2 is right, C4 is more than
    the degradation has. At a spread of 90° all directions are alike and C4 is right too: varied, the
    spread breaks the symmetry or restores it. Training pairs are fixed patches of four photographs,
    drawn with the seed.
    """

    name = "rain"
    title = "rain removal, grey photographs, residual network"
    right = C2
    full = C4
    presets = {
        "quick": Preset(
            steps=120, images=8, methods=_ROWS[:1] + _ROWS[7:8], seeds=(0, 1),
            rates=(8e-3,), tuning_steps=60,
            sizes={"patches": 4, "patch": 96, "crop": 24, "size": 64, "spread": 20.0, "width": 16, "depth": 4},
            expects="under a minute on one CPU core; too short to learn much",
        ),
        "cpu": Preset(
            steps=3000, images=8, methods=_ROWS, seeds=(0, 1, 2),
            rates=(2e-3, 4e-3, 8e-3), tuning_steps=750, tuning_seeds=(100, 101),
            sizes={"patches": 64, "patch": 96, "crop": 24, "size": 192, "spread": 20.0, "width": 16, "depth": 6},
            expects="about an hour on one CPU core",
        ),
        "evidence": Preset(
            steps=4000, images=8, methods=_EVIDENCE, seeds=tuple(range(12)),
            rates=(4e-3, 8e-3), tuning_steps=1334, tuning_seeds=(100, 101), watch=4, study=True,
            sizes={
                "patches": 64, "patch": 96, "crop": 24, "size": 192, "spread": 20.0, "width": 16, "depth": 6,
                "photographs": "BSDS500",
            },
            expects="3 to 6 hours of one CPU core with its tuning; 0.03 s a step beside other work",
        ),
        "full": Preset(
            steps=8000, images=32, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-3, 2e-3, 4e-3), tuning_steps=1500,
            sizes={"patches": 512, "patch": 96, "crop": 48, "size": 256, "spread": 20.0, "width": 48, "depth": 10},
            expects="not measured yet: `make gpu` times 50 steps of each row before it starts",
        ),
        "methods": Preset(
            steps=400, images=8, methods=_ALL, seeds=(0, 1, 2, 3, 4),
            rates=(4e-3, 8e-3, 1.6e-2), tuning_steps=400, tuning_seeds=(100, 101), study=True,
            sizes={"patches": 16, "patch": 96, "crop": 24, "size": 128, "spread": 20.0, "width": 16, "depth": 6},
            expects="for chapter 11, varied by patches=4,16,64: 50 minutes each on one CPU core, counted "
            "from the seconds of a run in artifacts/soft.json",
        ),
        "page": Preset(
            steps=60, images=8, methods=("plain", "augmentation-C4", "strict-C4", "pairs-C4", "eqreg-C4"),
            seeds=(0, 1, 2), rates=(5e-3, 1e-2, 2e-2), tuning_steps=60, tuning_seeds=(100, 101), study=True,
            sizes={"patches": 4, "patch": 96, "crop": 24, "size": 192, "spread": 20.0, "width": 16, "depth": 6},
            expects="rates and strengths for what chapter 13 trains while it is read: minutes on one CPU core",
        ),
        "dial": Preset(
            steps=160, images=8, methods=("plain", "decay", "automatic-short"), seeds=(0, 1, 2, 3, 4),
            rates=(4e-3, 8e-3, 1.6e-2), tuning_steps=160, study=True,
            sizes={"patches": 4, "patch": 32, "crop": 16, "size": 128, "spread": 20.0, "width": 12, "depth": 4},
            expects="for chapter 11, varied by spread=20,60,90 and by strength: minutes each on one CPU core",
        ),
    }  # fmt: skip
    presets |= {
        "opponents": opponents(presets["evidence"], _RIVALS),
        "sparing": opponents(presets["evidence"], ("sparing", "augmentation-sparing")),
        "claim": claim(presets["evidence"], "an hour each on one CPU core, counted, not yet run"),
        "dose": dose(
            presets["evidence"], "C4", "varied by spread=45,50,60,75,90, of which a quarter turn leaves 0, 1/5, 1/2, "
            "4/5 and all of the rain's directions: an hour each on one CPU core, counted, not yet run",
        ),
    }  # fmt: skip

    def model(self, preset: Preset) -> nn.Module:
        """A residual network of the preset's width and depth."""
        return ResidualNet(width=preset.sizes["width"], depth=preset.sizes["depth"])

    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> RandomCrops:
        """Random crops of fixed rainy patches."""
        g = torch.Generator().manual_seed(seed)
        clean = patches(
            photographs("train"), preset.sizes["patch"], preset.sizes["patches"], generator=g
        )
        rainy, _ = add_rain(clean, RainModel(spread=preset.sizes["spread"]), generator=g)
        return RandomCrops(
            rainy.to(device), clean.to(device), crop=preset.sizes["crop"], batch=batch
        )

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """PSNR and SSIM upright and after a quarter turn, and how equivariant the correction is.

        ``psnr_ensemble`` is the mean of the answers to the image and to its half turn, turned back. With
        the size ``photographs`` the pictures are those of BSDS500, 20 to choose settings and 40 to test.
        For "test" also the errors of the layers and the share of their features that turns leave alone.
        """
        device = next(model.parameters()).device
        rainy, clean = (
            t.to(device)
            for t in _in_rain(
                split,
                preset.sizes["size"],
                preset.sizes["spread"],
                preset.sizes.get("photographs"),
                root,
            )  # fmt: skip
        )
        change = [model(rotate(rainy, k)) - rotate(rainy, k) for k in range(4)]
        power = change[0].square().flatten(1).sum(1)
        found: dict[str, Tensor] = {"psnr_input": psnr(rainy, clean)}
        for name, k in (("", 0), ("_turned", 1)):
            restored, truth = (rotate(rainy, k) + change[k]).clamp(0, 1), rotate(clean, k)
            found["psnr" + name] = psnr(restored, truth)
            found["ssim" + name] = ssim(restored, truth)
        both = (change[0] + rotate(change[2], 2)) / 2
        found["psnr_ensemble"] = psnr((rainy + both).clamp(0, 1), clean)
        # The error of the correction, not of the image: the image itself passes unchanged.
        errors = [
            (change[k] - rotate(change[0], k)).square().flatten(1).sum(1) / power for k in (1, 2, 3)
        ]
        found["error_C2"] = errors[1]
        found["error_C4"] = torch.stack(errors).mean(0)
        if split == "test":
            found |= in_layers(model, rainy, C2) | in_layers(model, rainy, C4)
        return {name: values.double().tolist() for name, values in found.items()}


@lru_cache
def _in_rain(
    split: str, size: int, spread: float, name: str | None = None, root: Root = None
) -> tuple[Tensor, Tensor]:
    if name is None:
        clean = torch.stack(list(photographs(split, size=size).values()))
    else:
        images = BSDS500(split, None if root is None else Path(root) / name)
        clean = torch.stack([square(grey(image), size) for image in images])
    g = torch.Generator().manual_seed(_EVALUATION_SEED)
    return add_rain(clean, RainModel(spread=spread), generator=g)[0], clean
