"""Loader of Urban100 in the split and size of the equivariant-imaging papers."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..extras import require
from ..typed import typed
from ._arrays import from_npz
from ._files import read_rgb
from .images import upright

PARTS = ("train", "val", "all", "test")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
_CROP = 512  # centre of the originals that the papers reduce
_VALIDATION_EVERY = 9


class Urban100:
    """Photographs of buildings: 90 to train on, of which every ninth may be kept for validation.

    The folder is that of the published code: images in ``train/train`` (or ``train``, or the folder
    itself) and ``test/test``, sorted by name. Images of side ``size`` are taken as they are; larger
    ones are treated as in the papers: the central 512 x 512 pixels, reduced bilinearly.

    Args:
        part: "train" (80 of the 90), "val" (the other 10), "all" (the 90), or "test".
        root: the folder. None: ``Urban100`` inside the one that the environment variable EQREG_DATA
            names.
        size: side in pixels.

    Attributes:
        names: file names without their endings.

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: unknown part. ``images[i]`` raises it for a file that cannot be read or is too
            small.

    Reference: Huang, Singh, Ahuja, "Single Image Super-Resolution from Transformed Self-Exemplars",
    CVPR 2015; split and size of Chen, Tachella, Davies, CVPR 2022.
    Taught in: notebooks/15_inpainting.ipynb
    """

    @typed
    def __init__(
        self, part: str = "train", root: str | Path | None = None, *, size: int = 256
    ) -> None:
        if part not in PARTS:
            raise ValueError(f"Urban100: part must be one of {', '.join(PARTS)}, got {part!r}")
        self.root, self.part, self.size = _folder(root), part, size
        found = _images(self.root, "test" if part == "test" else "train")
        if part in ("train", "val"):
            held_out = [i % _VALIDATION_EVERY == _VALIDATION_EVERY // 2 for i in range(len(found))]
            found = [f for f, held in zip(found, held_out, strict=True) if held == (part == "val")]
        self._paths = found
        self.names = [path.stem for path in found]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """(3, size, size) float32 in [0, 1]."""
        path = self._paths[index]
        image = read_rgb(path, "Urban100")
        return image if image.shape[-2:] == (self.size, self.size) else self._reduced(path)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Urban100({self.part!r}, {str(self.root)!r}): {len(self)} images"

    def stacked(self) -> Tensor:
        """All images, (n, 3, size, size)."""
        return torch.stack(list(self))

    def mask(self) -> Tensor:
        """The papers' fixed mask, (size, size): 1 kept, 0 lost; 30 % of the pixels are lost.

        Raises:
            FileNotFoundError: the folder holds no ``rei_mask_random0.3.npz``.
            ValueError: its size is another, or the file cannot be read.
        """
        path = self.root / "rei_mask_random0.3.npz"
        if not path.is_file():
            raise FileNotFoundError(f"Urban100: expected the mask in {path}, found no such file")
        try:
            mask = torch.from_numpy(from_npz(path, ["mask"])[0]["mask"]).float()
        except (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"Urban100: expected an array `mask` in {path}: {error!r}") from error
        if mask.shape != (self.size, self.size):
            raise ValueError(
                f"Urban100: the mask in {path} is {tuple(mask.shape)}, expected "
                f"({self.size}, {self.size})"
            )
        return mask

    def _reduced(self, path: Path) -> Tensor:
        image = require("PIL.Image", extra="tasks")
        picture = upright(path)
        if min(picture.size) < _CROP:
            raise ValueError(
                f"Urban100: {path} has {picture.size[0]}x{picture.size[1]} pixels; expected "
                f"{self.size}x{self.size}, or at least {_CROP} on both sides to cut from"
            )
        left, top = ((n - _CROP) // 2 for n in picture.size)
        deep = picture.mode == "I;16"
        cut = picture.convert("F" if deep else "RGB").crop((left, top, left + _CROP, top + _CROP))
        pixels = np.array(cut.resize((self.size, self.size), image.Resampling.BILINEAR))
        if deep:
            return torch.from_numpy(pixels / 65535).expand(3, -1, -1)
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def _folder(root: str | Path | None) -> Path:
    if root is None:
        if not os.environ.get("EQREG_DATA"):
            raise FileNotFoundError(
                "Urban100: give root=, or set EQREG_DATA to the folder that holds Urban100"
            )
        root = Path(os.environ["EQREG_DATA"]) / "Urban100"
    if not Path(root).is_dir():
        raise FileNotFoundError(f"Urban100: expected a folder of images, found no folder {root}")
    return Path(root)


def _images(root: Path, part: str) -> list[Path]:
    places = [root / part / part, root / part, *([root] if part == "train" else [])]
    for place in places:
        if place.is_dir():
            found = sorted(p for p in place.iterdir() if p.suffix.lower() in _ENDINGS)
            if found:
                return found
    raise FileNotFoundError(
        f"Urban100: expected images ({', '.join(_ENDINGS)}) in {' or '.join(map(str, places))}, "
        "found none"
    )
