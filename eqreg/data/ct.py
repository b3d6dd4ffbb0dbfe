"""Loaders of CT slices: folders of DICOM, PNG or NumPy files, and the slices inside pydicom's wheel.

Everything comes as CT numbers in HU, float32 (H, W), from -1000: what is below air (padding outside the
field of view, undershoot of a reconstruction) becomes air. Nothing here downloads.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..extras import require
from ..typed import typed
from ._arrays import from_npy
from .dicom import AIR, header, read_frame

# Padding goes down to -3024, reconstructions of metal up to 20000. Beyond this, values are no CT numbers.
_LOWEST, _HIGHEST = -4096.0, 32767.0
# A slice that spans no more than this above 0 holds no air, no fat, and no dense bone.
_PICTURE = 255.0
# HU = value - 32768 in the 16-bit PNG files of DeepLesion.
PNG_OFFSET = 32768
_SUFFIXES = (".dcm", ".png", ".npy")
# Inside pydicom's wheel: lossless, and readable with Pillow alone.
_BUNDLED = {"head": "J2K_pixelrep_mismatch.dcm", "spine": "CT_small.dcm"}


@typed
def read_ct(path: str | Path, *, offset: int = PNG_OFFSET) -> Tensor:
    """Read one slice as CT numbers.

    * ``.dcm``: ``slope * value + intercept`` of the file; declared padding values become air. A MONOCHROME1
      file is displayed inverted, but its CT numbers are not, so they are taken as they are.
    * ``.png``: 16 bit, HU = value - ``offset``.
    * ``.npy``: HU, integer or floating.

    Args:
        path: the file.
        offset: of PNG files.

    Returns:
        (H, W) float32 in HU, at least -1000.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, a file that cannot be decoded, more than one image in it, CT numbers that
            are not finite or outside [-4096, 32767]. The message names the file.
        ImportError: without pydicom or Pillow (``pip install "eqreg[tasks]"``).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_ct: expected a CT slice, found no file {path}")
    readers = {".dcm": _read_dicom, ".npy": _read_npy, ".png": lambda p: _read_png(p, offset)}
    if path.suffix.lower() not in readers:
        raise ValueError(f"read_ct: expected one of {', '.join(_SUFFIXES)}, got {path}")
    try:
        hu = readers[path.suffix.lower()](path)
    except ImportError:
        raise
    except Exception as error:  # decoders of damaged files raise what they like
        raise ValueError(f"read_ct: could not read {path}: {error}") from error
    return torch.from_numpy(check_hu(hu, path))


class CTFolder:
    """The CT slices of a folder and its subfolders, in the order of their paths.

    Args:
        root: the folder.
        offset: of PNG files, as for :func:`read_ct`.
        size: resize the slices to this side, see :func:`resize_ct`. None: as they are.

    ``folder[i]`` reads slice ``i`` as (H, W) HU, ``folder.spacing(i)`` says how large its pixels are;
    ``folder.paths`` are the files.

    Raises:
        FileNotFoundError: no such folder, or no ``.dcm``, ``.png`` or ``.npy`` file in it.
    """

    @typed
    def __init__(
        self, root: str | Path, *, offset: int = PNG_OFFSET, size: int | None = None
    ) -> None:
        self.root, self.offset, self.size = Path(root), offset, size
        if not self.root.is_dir():
            raise FileNotFoundError(f"CTFolder: expected a folder, found none at {self.root}")
        self.paths = sorted(p for p in self.root.rglob("*") if p.suffix.lower() in _SUFFIXES)
        if not self.paths:
            raise FileNotFoundError(
                f"CTFolder: expected {', '.join(_SUFFIXES)} files in {self.root}, found none"
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        hu = read_ct(self.paths[index], offset=self.offset)
        return hu if self.size is None else resize_ct(hu, self.size)

    def spacing(self, index: int) -> tuple[float, float] | None:
        """Mm between the rows and between the columns of ``folder[index]``, after resizing.

        None if the file does not say. A scanner's geometry wants it in cm: ``pixel=0.1 * spacing``.

        Raises:
            ValueError: a DICOM file that cannot be read, or whose spacing is not positive.
        """
        path = self.paths[index]
        if path.suffix.lower() != ".dcm":
            return None
        try:
            read = header(path)
        except Exception as error:  # readers of damaged files raise what they like
            raise ValueError(f"CTFolder: could not read {path}: {error}") from error
        found = None if read is None else read.spacing
        if found is not None and not all(math.isfinite(mm) and mm > 0 for mm in found):
            raise ValueError(f"CTFolder: expected positive PixelSpacing in {path}, got {found}")
        if found is None or self.size is None:
            return found
        shrink = max(read_ct(path, offset=self.offset).shape) / self.size
        return found[0] * shrink, found[1] * shrink

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"CTFolder({str(self.root)!r}): {len(self)} slices"


@typed
def bundled_ct() -> dict[str, Tensor]:
    """The CT slices inside pydicom's wheel.

    Returns:
        "head" (512, 512) and "spine" (128, 128), float32 in HU.

    Raises:
        FileNotFoundError: the installed wheel does not hold a slice.
        ImportError: without pydicom (``pip install "eqreg[tasks]"``).

    >>> {name: tuple(hu.shape) for name, hu in bundled_ct().items()}
    {'head': (512, 512), 'spine': (128, 128)}
    """
    home = Path(str(require("pydicom", extra="tasks").__file__)).parent / "data" / "test_files"
    slices = {}
    for name, file in _BUNDLED.items():
        if not (home / file).is_file():
            raise FileNotFoundError(
                f"bundled_ct: expected {file} inside the installed pydicom, found no {home / file}"
            )
        slices[name] = read_ct(home / file)
    return slices


@typed
def resize_ct(hu: Tensor, size: int) -> Tensor:
    """Fit a slice into a square of the given side: bilinear, averaging where it shrinks, air around.

    Args:
        hu: (H, W) in HU.
        size: pixels, positive.

    Returns:
        (size, size).

    Raises:
        ValueError: ``size`` is not positive, or ``hu`` no single slice.
    """
    if hu.ndim != 2 or size < 1:
        raise ValueError(
            f"resize_ct: expected one slice (H, W) and a positive size, got shape {tuple(hu.shape)} and {size}"
        )
    height, width = hu.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    around = (left, side - width - left, top, side - height - top)
    square = F.pad(hu, around, value=AIR)[None, None]
    if side == size:
        return square[0, 0]
    resized = F.interpolate(square, (size, size), mode="bilinear", antialias=True)[0, 0]
    return resized.clamp(square.min(), square.max())  # air must not round to below -1000 HU


def _read_dicom(path: Path) -> np.ndarray[Any, Any]:
    found = header(path)
    if found is None or found.frames != 1:
        frames = found.frames if found else 0
        raise ValueError(f"expected one grey image, got a file of {frames}")
    return read_frame(path)


def _read_png(path: Path, offset: int) -> np.ndarray[Any, Any]:
    with require("PIL.Image", extra="tasks").open(path) as picture:
        values = np.array(picture)
        mode = picture.mode
    if not mode.startswith("I"):
        raise ValueError(f"expected a 16-bit grey PNG, got mode {mode}")
    return values.astype(np.float32) - offset


def _read_npy(path: Path) -> np.ndarray[Any, Any]:
    values = from_npy(path)
    if values.dtype in (np.uint8, np.bool_):
        raise ValueError(f"expected CT numbers, got an 8-bit picture ({values.dtype})")
    if values.dtype.kind not in "iuf":
        raise ValueError(f"expected CT numbers, got values of type {values.dtype}")
    return values.astype(np.float32)


def check_hu(hu: np.ndarray[Any, Any], path: Path | str) -> np.ndarray[Any, Any]:
    """CT numbers (H, W) with everything below air made air.

    Raises:
        ValueError: another shape, values that are not finite or no CT numbers. The message names ``path``.
    """
    if hu.ndim != 2 or 0 in hu.shape:
        raise ValueError(f"read_ct: expected one slice (H, W) in {path}, got shape {hu.shape}")
    bad = int((~np.isfinite(hu)).sum())
    if bad:
        raise ValueError(f"read_ct: expected finite CT numbers in {path}, got {bad} NaN or Inf")
    if hu.min() < _LOWEST or hu.max() > _HIGHEST:
        raise ValueError(
            f"read_ct: expected CT numbers in [-4096, 32767] HU in {path}, got "
            f"[{hu.min():g}, {hu.max():g}]; is the offset right?"
        )
    if hu.size > 1 and 0 <= hu.min() < hu.max() <= _PICTURE:
        raise ValueError(
            f"read_ct: expected CT numbers with air at -1000 HU in {path}, got [{hu.min():g}, {hu.max():g}], "
            "which looks like a picture of 8 bits or like attenuation"
        )
    return np.maximum(hu, np.float32(AIR))
