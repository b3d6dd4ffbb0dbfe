"""The pictures that the task `deraining` is judged on, and where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..data import Rain100, patches, photographs
from ..data.bsds import BSDS500
from ..measure.quality import psnr, ssim
from ..physics.rain import RAIN100H, RainModel, add_rain
from ..symmetry.actions import rotate, valid_mask
from ..symmetry.groups import C8
from .task import Root

# The shapes of streaks are fitted to heavy published rain; there is less of it here, a quarter at most, as
# the test is on light rain.
_DENSITY = (0.0005, 0.01)
RAIN = replace(RAIN100H, density=_DENSITY)
_SEED = 10_000
_CROPS = 8
_DIAGONAL_SIZE, _PHOTOGRAPH_SIZE = 160, 192

Clear = Callable[[Tensor], Tensor]


def rain100(clear: Clear, root: Root) -> dict[str, Tensor]:
    """The published pairs, one after the other: they have two shapes."""
    rows: dict[str, list[Tensor]] = {}
    inside = valid_mask((_DIAGONAL_SIZE, _DIAGONAL_SIZE), 1, C8)

    def note(**values: Tensor) -> None:
        for name, value in values.items():
            rows.setdefault(name, []).append(value)

    for pair in Rain100(folder(root, "Rain100L")):
        o, b = pair.rainy[None], pair.clean[None]
        x = clear(o)
        note(
            psnr=_y_psnr(x, b), ssim=ssim(x, b, channel="y"), psnr_rgb=psnr(x, b),
            psnr_input=_y_psnr(o, b), ssim_input=ssim(o, b, channel="y"), psnr_rgb_input=psnr(o, b),
        )  # fmt: skip
        note(psnr_turned=_y_psnr(clear(rotate(o, 1)), rotate(b, 1)))
        note(psnr_ensemble=_y_psnr(_both(clear, o, x), b))
        o, b = (_middle(t, _DIAGONAL_SIZE) for t in (o, b))
        note(psnr_crop=_y_psnr(clear(o), b), psnr_crop_input=_y_psnr(o, b))
        o, b = (rotate(t, 1, C8) for t in (o, b))
        x = clear(o)
        note(psnr_diagonal=_y_psnr(x, b, inside), psnr_diagonal_input=_y_psnr(o, b, inside))
    return {name: torch.cat(values) for name, values in rows.items()}


def elsewhere(clear: Clear) -> dict[str, Tensor]:
    """Bundled photographs in the rain of the training and in other rain."""
    found = {}
    for name, rain in {
        "photographs": RAIN,
        "horizontal": replace(RAIN, angle=90.0),
        "sparse": _denser(0.5),
        "dense": _denser(2.0),
    }.items():
        rainy, clean = photographs_in_rain(_PHOTOGRAPH_SIZE, rain)
        found[f"psnr_{name}"] = _y_psnr(clear(rainy), clean)
        found[f"psnr_input_{name}"] = _y_psnr(rainy, clean)
    return found


def _both(clear: Clear, rainy: Tensor, upright: Tensor) -> Tensor:
    """The mean of the answers to the images, which are known, and to their half turns, turned back."""
    return (upright + rotate(clear(rotate(rainy, 2)), 2)) / 2


def _denser(factor: float) -> RainModel:
    low, high = _DENSITY
    return replace(RAIN, density=(factor * low, factor * high))


def photographs_in_rain(size: int, rain: RainModel) -> tuple[Tensor, Tensor]:
    """Bundled test photographs, rainy and clean: (6, 3, size, size) each."""
    clean = _photographs(size)
    g = torch.Generator().manual_seed(_SEED)
    return add_rain(clean, rain, generator=g)[0], clean


@lru_cache
def _photographs(size: int) -> Tensor:
    return torch.stack(list(photographs("test", color=True, size=size).values()))


def kept_back(clear: Clear, size: int, root: Root) -> dict[str, Tensor]:
    """PSNR on the middle of the 40 photographs of BSDS500 that were kept back, in the rain of the training."""
    rainy, clean = _kept_back(size, root)
    x = clear(rainy)
    return {
        "psnr_kept_back": _y_psnr(x, clean),
        "psnr_ensemble_kept_back": _y_psnr(_both(clear, rainy, x), clean),
        "psnr_input_kept_back": _y_psnr(rainy, clean),
    }


@lru_cache
def _kept_back(size: int, root: Root) -> tuple[Tensor, Tensor]:
    clean = torch.stack([_middle(image, size) for image in bsds500("test", root).values()])
    return add_rain(clean, RAIN, generator=torch.Generator().manual_seed(_SEED))[0], clean


def validation(clear: Clear, size: int, published: bool, root: Root) -> Tensor:
    """PSNR on photographs that choose the settings: of BSDS500, or bundled ones."""
    rainy, clean = _validation_pairs(size, published, root)
    return _y_psnr(clear(rainy), clean)


@lru_cache
def _validation_pairs(size: int, published: bool, root: Root) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(_SEED)
    if published:
        clean = patches(bsds500("val", root), size, _CROPS, generator=g)
    else:
        clean = torch.stack(list(photographs("val", color=True, size=size).values()))
    return add_rain(clean, RAIN, generator=g)[0], clean


def _y_psnr(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    return psnr(x, y, channel="y", mask=mask)


def _middle(image: Tensor, size: int) -> Tensor:
    top, left = ((side - size) // 2 for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def bsds500(part: str, root: Root) -> dict[str, Tensor]:
    """Photographs by name."""
    photos = BSDS500(part, folder(root, "BSDS500"))
    return dict(zip(photos.names, photos, strict=True))


def folder(root: Root, name: str) -> Path | None:
    """Folder of a published set; None leaves it to EQREG_DATA."""
    return None if root is None else Path(root) / name
