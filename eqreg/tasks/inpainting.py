"""Inpainting under photon noise, with and without clean images, with the network of chapter 15."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import patches, photographs
from ..data.crops import RandomCrops
from ..data.urban import Urban100
from ..measure.quality import psnr, rei_psnr, ssim
from ..models.unet import UNet
from ..physics.inpainting import measure, random_mask
from ..symmetry.actions import rotate
from ..symmetry.groups import C4, Group
from ..training.losses import RobustEquivariantImaging
from ..training.methods import METHODS, PENALTIES, Method
from ..training.step import Objective
from ._layers import in_layers
from ._studies import claim
from .task import Preset, Root, Task

GAMMA, KEEP = 0.05, 0.7
_SUPERVISED = (
    "plain", "augmentation", "strict", "strict-equal", "pairs", "eqreg", "decay", "augmentation-decay",
)  # fmt: skip
_SELF_SUPERVISED = {
    "sure": Method("SURE alone, no clean image", objective="sure"),
    "rei": Method("SURE and equivariant imaging, no clean image", objective="rei"),
    "rei-pairs": Method("rei, each measurement with a turned copy", pairs=True, objective="rei"),
    "rei-eqreg": Method(
        "rei-pairs and the penalty on the features", pairs=True, strengths=PENALTIES, objective="rei"
    ),
}  # fmt: skip
_ROWS = (*_SUPERVISED, *_SELF_SUPERVISED)
_EVIDENCE = ("plain", "augmentation", "strict-equal", "pairs", "eqreg", "eqreg-at-pairs-rate")
# Every supervised method of the book; C2 is a smaller group than the task has.
_ALL = (
    "plain", "augmentation-C2", "augmentation", "strict-C2", "strict-equal-C2", "strict", "strict-equal",
    "pairs", "eqreg-C2", "eqreg", "penalty", "eqreg-scale-free", "projection-penalty",
    "decay", "augmentation-decay", "automatic", "start-decay",
)  # fmt: skip
_EVALUATION_SEED = 10_000
# Names of metrics -> what differs from the training's camera: photons, kept share, size of holes.
_ELSEWHERE: dict[str, dict[str, Any]] = {
    "psnr_gamma_0.01": {"gamma": 0.01}, "psnr_gamma_0.1": {"gamma": 0.1},
    "psnr_keep_0.5": {"keep": 0.5}, "psnr_holes_3": {"hole": 3},
}  # fmt: skip


class Inpainting(Task):
    """Photographs with lost pixels and few photons, restored by a residual U-Net.

    The camera has one fixed mask in training and another of the same law in evaluation. Every training
    image is measured once, and that measurement is all that the rows ``sure`` and ``rei*`` ever see of
    it (``fresh``: the noise is drawn anew at each step, as in the published code). Losing pixels at random
    and counting photons know no direction, so C4 is right.

    The preset ``paper`` follows Chen et al., CVPR 2022: Urban100 at 256 x 256, their mask, 500 passes
    over the images, Adam at 1e-4, three shifts. It departs in four things: 80 images instead of 90, since
    10 choose the settings; two images per step instead of one, since pairs need two; a cosine schedule
    instead of four steps; and no BatchNorm, which would tie the images of a batch.
    """

    name = "inpainting"
    title = "inpainting under photon noise, photographs, residual U-Net"
    right = C4
    full = C4
    methods = MappingProxyType({**METHODS, **_SELF_SUPERVISED})
    presets = {
        "quick": Preset(
            steps=40, images=4, methods=("plain", "eqreg", "rei"), seeds=(0, 1),
            rates=(5e-3,), tuning_steps=20, watch=2,
            sizes={"patches": 4, "patch": 96, "crop": 32, "size": 64, "width": 8, "levels": 2},
            expects="under a minute on one CPU core; too short to learn much",
        ),
        "cpu": Preset(
            steps=400, images=4, methods=_ROWS, seeds=(0, 1, 2),
            rates=(2.5e-3, 5e-3, 1e-2), tuning_steps=200, watch=4,
            sizes={"patches": 4, "patch": 96, "crop": 40, "size": 160, "width": 12, "levels": 2},
            expects="about an hour of one CPU core",
        ),
        "evidence": Preset(
            steps=800, images=4, methods=_EVIDENCE, seeds=tuple(range(12)),
            rates=(5e-3, 1e-2), tuning_steps=267, tuning_seeds=(100, 101), watch=4, study=True,
            sizes={"patches": 16, "patch": 96, "crop": 40, "size": 160, "width": 12, "levels": 2},
            expects="two hours of one CPU core with its tuning, beside other work",
        ),
        "evidence-rei": Preset(
            steps=500, images=4, methods=tuple(_SELF_SUPERVISED), seeds=tuple(range(8)),
            rates=(5e-3, 1e-2), tuning_steps=167, tuning_seeds=(100, 101), watch=4, study=True,
            sizes={"patches": 16, "patch": 96, "crop": 40, "size": 160, "width": 12, "levels": 2},
            expects="two hours of one CPU core with its tuning: counted from the preset cpu, not yet run",
        ),
        "full": Preset(
            steps=3000, images=16, methods=_ROWS, seeds=(0, 1, 2),
            rates=(5e-4, 1e-3, 2e-3), tuning_steps=600,
            sizes={"urban": True, "crop": 64, "size": 256, "width": 32, "levels": 3},
            expects="not measured yet: `make gpu` times 50 steps of each row before it starts",
        ),
        "paper": Preset(
            steps=20_000, images=2, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-4,), tuning_steps=2000,
            sizes={
                "urban": True, "crop": 256, "size": 256, "width": 64, "levels": 3,
                "fresh": True, "copies": 3,
            },
            expects="days of one GPU; not yet run",
        ),
        "methods": Preset(
            steps=400, images=8, methods=_ALL, seeds=(0, 1, 2, 3, 4),
            rates=(2.5e-3, 5e-3, 1e-2), tuning_steps=400, tuning_seeds=(100, 101), study=True,
            sizes={"patches": 16, "patch": 96, "crop": 24, "size": 128, "width": 12, "levels": 2},
            expects="for chapter 11, varied by patches=4,16,64: hours each on one CPU core; not yet run",
        ),
    }  # fmt: skip
    presets["claim"] = claim(presets["evidence"], "40 minutes each on a core, counted, not run")

    def model(self, preset: Preset) -> nn.Module:
        """A U-Net of the preset's width and depth; colours with Urban100, else grey."""
        sizes = preset.sizes
        return UNet(_channels(preset), sizes["width"], sizes["levels"])

    def twin(
        self, model: nn.Module, group: Group, *, match: Literal["width", "parameters"]
    ) -> nn.Module:
        """The U-Net's own twin."""
        assert isinstance(model, UNet)
        return model.twin(group, match)

    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> Measurements:
        """Random crops of fixed measurements, with their clean images and masks."""
        g, sizes = torch.Generator().manual_seed(seed), preset.sizes
        if sizes.get("urban"):
            images = Urban100("train", _urban(root), size=sizes["size"])
            y, mask = images.stacked(), images.mask()[None, None]
        else:
            y = patches(photographs("train"), sizes["patch"], sizes["patches"], generator=g)
            mask = random_mask((1, *y.shape[-2:]), KEEP, generator=g)
        return Measurements(
            y, mask, GAMMA, crop=sizes["crop"], batch=batch, fresh=bool(sizes.get("fresh")),
            device=device, generator=g,
        )  # fmt: skip

    def loss(self, prediction: Any, y: Any) -> Tensor:
        """Mean squared error to the clean image; the mask beside it is for the other rows."""
        return F.mse_loss(prediction, y[0])

    def objective(self, name: str, preset: Preset) -> Objective:
        """``"rei"`` or ``"sure"``: of the labels they take the mask and leave the clean image alone."""
        if name not in ("rei", "sure"):
            return super().objective(name, preset)
        learn = RobustEquivariantImaging(
            GAMMA, alpha=float(name == "rei"), copies=preset.sizes.get("copies", 1)
        )

        def objective(model: nn.Module, prediction: Any, x: Any, y: Any, generator: Any) -> Tensor:
            return learn(model, prediction, x, y[1], generator)

        return objective

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """PSNR on "val"; on "test" all that chapter 15 reports.

        Beside PSNR and SSIM, upright and turned: PSNR as the paper computes it, of kept and of lost
        pixels, of the mean over the four orientations, under other cameras; the equivariance error of the
        correction and of the layers; and the two sides of the ensemble's law, its gain and half the mean
        squared difference between the orientations (``*_mse``).
        """
        device = next(model.parameters()).device
        x, y, mask = _photographed(preset, split, root, device)
        changed = [
            rotate(model(rotate(x, k)) - rotate(x, k), -k)
            for k in range(4 if split == "test" else 1)
        ]
        restored = (x + changed[0]).clamp(0, 1)
        found: dict[str, Tensor] = {"psnr": psnr(restored, y)}
        if split == "test":
            found |= {"psnr_input": psnr(x.clamp(0, 1), y), "ssim": ssim(restored, y)}
            found["psnr_rei"] = rei_psnr(restored, y)
            error = (restored - y).square()
            for name, part in (("psnr_kept", mask), ("psnr_lost", 1 - mask)):
                found[name] = -10 * torch.log10(
                    (error * part).sum((1, 2, 3)) / (part.sum() * len(y[0]))
                )
            turned = (x + changed[1]).clamp(0, 1)
            found |= {"psnr_turned": psnr(turned, y), "ssim_turned": ssim(turned, y)}
            found |= _ensemble(torch.stack(changed), x, y) | in_layers(model, x, C4)
            for name, camera in _ELSEWHERE.items():
                x, y, _ = _photographed(preset, split, root, device, **camera)
                found[name] = psnr(model(x).clamp(0, 1), y)
        return {name: values.double().tolist() for name, values in found.items()}


class Measurements:
    """Random crops of measured images for :func:`eqreg.training.fit`: ``x`` and the pair ``(y, mask)``.

    Args:
        y: clean images (n, C, H, W).
        mask: (1 or n, 1, H, W).
        gamma: grey level of one photon.
        crop: side in pixels.
        batch: crops per call.
        fresh: draw the noise anew at each call; else every image is measured once.
        device: where the images lie.
        generator: of the measurements.
    """

    def __init__(
        self,
        y: Tensor,
        mask: Tensor,
        gamma: float,
        *,
        crop: int,
        batch: int,
        fresh: bool = False,
        device: torch.device | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        x = measure(y, mask, gamma, generator=generator)
        packed = torch.cat([x, y, mask.expand(len(y), -1, -1, -1)], 1).to(device)
        self.crops = RandomCrops(packed, packed, crop=crop, batch=batch)
        self.channels, self.gamma, self.fresh = y.shape[1], gamma, fresh

    def __call__(self, generator: torch.Generator | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A batch."""
        packed, _ = self.crops(generator)
        x, y, mask = packed.split([self.channels, self.channels, 1], 1)
        if self.fresh:
            x = measure(y.cpu(), mask.cpu(), self.gamma, generator=generator).to(packed.device)
        return x, (y, mask)

    def fingerprint(self) -> str:
        """Hash of images and masks."""
        return self.crops.fingerprint()


def _ensemble(changed: Tensor, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """``changed``: the corrections from all four orientations, turned back, (4, B, C, H, W)."""

    def power(t: Tensor) -> Tensor:
        return t.square().mean((-3, -2, -1))

    mean = changed.mean(0)
    errors = [power(changed[k] - changed[0]) / power(changed[0]) for k in (1, 2, 3)]
    single, together = power(x + changed - y).mean(0), power(x + mean - y)
    spread = torch.stack([power(a - b) for a in changed for b in changed]).mean(0)
    return {
        "psnr_ensemble": psnr((x + mean).clamp(0, 1), y),
        "error_C4": torch.stack(errors).mean(0),
        "ensemble_gain_mse": single - together,
        "half_difference_mse": spread / 2,
    }


def _channels(preset: Preset) -> int:
    return 3 if preset.sizes.get("urban") else 1


def _urban(root: Root) -> Path | None:
    return None if root is None else Path(root) / "Urban100"


def _photographed(
    preset: Preset,
    split: str,
    root: Root,
    device: torch.device,
    *,
    gamma: float = GAMMA,
    keep: float = KEEP,
    hole: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Measurements, clean images and the mask of an evaluation, always the same."""
    size = preset.sizes["size"]
    y = _clean(split, size, bool(preset.sizes.get("urban")), str(root) if root else None)
    g = torch.Generator().manual_seed(_EVALUATION_SEED)
    mask = random_mask((1, size, size), keep, hole=hole, generator=g)
    x = measure(y, mask, gamma, generator=g)
    return x.to(device), y.to(device), mask.to(device)


@lru_cache
def _clean(split: str, size: int, urban: bool, root: str | None) -> Tensor:
    if urban and split == "val":
        return Urban100("val", _urban(root), size=size).stacked()
    return torch.stack(list(photographs(split, color=urban, size=size).values()))
