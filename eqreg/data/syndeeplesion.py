"""Loader of the published SynDeepLesion data, in both of the layouts that are in use.

Taught in: notebooks/14
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..extras import require
from ..typed import typed
from ._arrays import from_h5, from_npy, from_npz

_SIZE = 416
_IMAGE, _SINOGRAM = (_SIZE, _SIZE), (640, 641)
# Where a mask is not published: above this attenuation in 1/cm the scanned image is metal.
_METAL = 1.45
_IMAGE_DOMAIN = "_image_domain.npz"
# Largest attenuation in 1/cm that is no damage: titanium with its streaks stays below 10.
_PLAUSIBLE = 100.0


class CTCase(NamedTuple):
    """One slice with one implant; attenuation in 1/cm, sinograms are line integrals.

    ``gt``, ``ma``, ``li``: (416, 416) float32, the slice without metal, scanned with metal, and after linear
    interpolation. ``mask``: (416, 416) bool. ``trace``: (640, 641) bool. ``ma_sinogram``, ``li_sinogram``:
    (640, 641) float32, or None in the layout that leaves them out. ``name``: patient/slice/mask.
    """

    gt: Tensor
    ma: Tensor
    li: Tensor
    mask: Tensor
    trace: Tensor
    ma_sinogram: Tensor | None
    li_sinogram: Tensor | None
    name: str


class SynDeepLesion:
    """Slices with simulated implants, ``<split>/<split>_640geo/<patient>/<slice>/``.

    In each of these folders ``gt.h5`` holds the slice without metal, and mask K gave either ``K.h5`` (the
    published layout: images, sinograms, trace) or ``K_image_domain.npz`` (images and packed trace).

    Args:
        root: the folder. None: ``name`` inside the folder that EQREG_DATA names.
        split: "train" or "test".
        name: "SynDeepLesion_full_h5" (default) or "SynDeepLesion"; only used without ``root``.
        masks: (512, 512, K) masks of this split as ``.npy`` or ``.npz``, as published. None: ``testmask`` or
            ``trainmask`` in ``root`` if there is one. Without a file, metal is where the scanned image
            exceeds 1.45/cm, which gives the published traces but for single cells.

    Raises:
        FileNotFoundError: no folder, no slice in it, or a slice without ``gt.h5``.
        ValueError: another split, or masks of another form.

    ``data[i]`` raises ValueError for a file that is damaged or has other sizes; the message names it.

    Reference: Wang et al., "DICDNet", IEEE TMI 41(4), 2022, and the data published with it.
    """

    @typed
    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "test",
        name: str = "SynDeepLesion_full_h5",
        *,
        masks: str | Path | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f'SynDeepLesion: split must be "train" or "test", got {split!r}')
        if root is None:
            if not os.environ.get("EQREG_DATA"):
                raise FileNotFoundError(
                    f"SynDeepLesion: give root=, or set EQREG_DATA to the folder that holds {name}"
                )
            root = Path(os.environ["EQREG_DATA"]) / name
        self.root, self.split = Path(root), split
        folder = self.root / split / f"{split}_640geo"
        if not folder.is_dir():
            raise FileNotFoundError(f"SynDeepLesion: expected slices in {folder}, found no folder")
        self._cases = _find(folder)
        found = [self.root / f"{split}mask{suffix}" for suffix in (".npz", ".npy")]
        chosen = Path(masks) if masks else next((p for p in found if p.is_file()), None)
        self._masks = None if chosen is None else read_masks(chosen, _SIZE)

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> CTCase:
        path, number = self._cases[index]
        clean = path.parent / "gt.h5"
        gt = _array(_read(clean, ("image",))["image"], _IMAGE, f"image in {clean}")
        content = _read(path, ("ma_CT", "LI_CT", "metal_trace"), ("ma_sinogram", "LI_sinogram"))
        ma, li = (_array(content[key], _IMAGE, f"{key} in {path}") for key in ("ma_CT", "LI_CT"))
        ma_sinogram, li_sinogram = (
            _array(content[key], _SINOGRAM, f"{key} in {path}") if key in content else None
            for key in ("ma_sinogram", "LI_sinogram")
        )
        mask = ma > _METAL
        if self._masks is not None:
            if number >= len(self._masks):
                raise ValueError(
                    f"SynDeepLesion: {path} needs mask {number}, there are {len(self._masks)}"
                )
            mask = self._masks[number]
        trace = _trace(content["metal_trace"], path)
        name = "/".join([*path.parts[-3:-1], str(number)])
        return CTCase(gt, ma, li, mask, trace, ma_sinogram, li_sinogram, name)

    def __iter__(self) -> Iterator[CTCase]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"SynDeepLesion({str(self.root)!r}, {self.split!r}): {len(self)} cases"


@typed
def read_masks(path: str | Path, size: int = _SIZE) -> Tensor:
    """Metal masks as published, (512, 512, K) with 0 and 1, resized as published.

    Args:
        path: ``.npy``, or ``.npz`` with one array.
        size: side of the masks wanted, pixels.

    Returns:
        (K, size, size) bool.

    Raises:
        FileNotFoundError, ValueError: no such file, or it holds something else; the message says what.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"read_masks: expected masks at {path}, found no file")
    try:
        array = from_npy(path) if path.suffix == ".npy" else _only(path)
    except Exception as error:
        raise ValueError(f"read_masks: could not read {path}: {error}") from error
    if array.ndim != 3 or array.shape[0] != array.shape[1] or not np.isin(array, (0, 1)).all():
        raise ValueError(
            f"read_masks: expected (side, side, K) masks of 0 and 1 in {path}, got shape {array.shape} "
            f"with values in [{array.min()}, {array.max()}]"
        )
    image = require("PIL.Image", extra="tasks")
    # Resampling 8-bit pixels 0 and 1 rounds back to 0 and 1: this is where the published areas come from.
    resized = [
        np.array(
            image.fromarray(m.astype(np.uint8)).resize((size, size), image.Resampling.BILINEAR)
        )
        for m in np.moveaxis(array, -1, 0)
    ]
    return torch.from_numpy(np.stack(resized)).bool()


def _only(path: Path) -> np.ndarray:
    """The first array of an npz file."""
    names = from_npz(path, ())[1]
    return from_npz(path, names[:1])[0][names[0]]


def _number(path: Path) -> int | None:
    """K of ``K.h5`` and ``K_image_domain.npz``."""
    stem = path.name.removesuffix(_IMAGE_DOMAIN).removesuffix(".h5")
    return int(stem) if stem.isdigit() and stem != path.name else None


def _find(folder: Path) -> list[tuple[Path, int]]:
    cases = []
    for path in folder.glob("*/*/*"):
        number = _number(path)
        if number is not None:
            cases.append((path.parts[-3:-1], number, path))
            if not (path.parent / "gt.h5").is_file():
                raise FileNotFoundError(f"SynDeepLesion: {path} has no gt.h5 beside it")
    if not cases:
        raise FileNotFoundError(
            f"SynDeepLesion: expected <patient>/<slice>/K.h5 or K{_IMAGE_DOMAIN} in {folder}, found none"
        )
    return [(path, number) for _, number, path in sorted(cases)]


def _read(path: Path, needed: tuple[str, ...], more: tuple[str, ...] = ()) -> dict[str, Any]:
    try:
        read = from_h5 if path.suffix == ".h5" else from_npz
        content, found = read(path, needed + more)
    except ImportError:
        raise
    except Exception as error:  # decoders of damaged files raise what they like
        raise ValueError(f"SynDeepLesion: could not read {path}: {error}") from error
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"SynDeepLesion: expected {', '.join(missing)} in {path}, found {found}")
    return content


def _trace(array: Any, path: Path) -> Tensor:
    views, bins = _SINOGRAM
    if array.dtype == np.uint8 and array.shape == (views, (bins + 7) // 8):
        array = np.unpackbits(array, axis=1)[:, :bins]
    return _array(array, _SINOGRAM, f"metal_trace in {path}") > 0


def _array(array: Any, shape: tuple[int, int], what: str) -> Tensor:
    if array.shape != shape:
        raise ValueError(f"SynDeepLesion: expected {what} of shape {shape}, got {array.shape}")
    values = np.asarray(array, np.float32)
    bad = int((~np.isfinite(values)).sum())
    largest = float(np.abs(values).max(initial=0, where=np.isfinite(values)))
    if bad or largest > _PLAUSIBLE:
        raise ValueError(
            f"SynDeepLesion: expected {what} finite and below {_PLAUSIBLE:g}, got {bad} NaN or Inf "
            f"and a largest value of {largest:g}"
        )
    return torch.from_numpy(values)
