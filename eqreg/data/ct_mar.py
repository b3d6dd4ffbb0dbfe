"""The data of the AAPM CT-MAR benchmark, read as they are unpacked: headerless numbers, no pickle.

Reference: Haneda et al., "AAPM CT metal artifact reduction grand challenge", Medical Physics 52(10), 2025.
Taught in: book/ct_mar
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from ..checks import need_tensor
from ..extras import require
from .metal.field import body_mask

SIDE, VIEWS, CELLS = 512, 1000, 900
# What an image shows, mm per side.
FIELD_MM = {"body": 400.0, "head": 220.16}
_NAME = re.compile(
    r"(\w+)_(body|head)_(nometal|metalart|metalonlymask)_(img|sino)(\d+)_[\dx]+\.raw"
)
_KINDS = {
    ("metalart", "img"): "ma", ("nometal", "img"): "gt", ("metalonlymask", "img"): "mask",
    ("metalart", "sino"): "ma_sinogram", ("nometal", "sino"): "gt_sinogram",
}  # fmt: skip
# HU that the benchmark's program takes for bone, puts in place of the metal for SSIM, and its range there.
_BONE, _FILL, _RANGE = (150.0, 2500.0), 100.0, 5000.0


class CTMARCase(NamedTuple):
    """A case. Images (512, 512) in HU, ``mask`` bool; sinograms (1000, 900) of line integrals, None without a file.

    ``field_mm`` is the side of the images in mm, ``name`` such as ``"training_body_17"``.
    """

    gt: Tensor
    ma: Tensor
    mask: Tensor
    gt_sinogram: Tensor | None
    ma_sinogram: Tensor | None
    field_mm: float
    name: str


class CTMAR(Sequence[CTMARCase]):
    """Training cases of the AAPM CT-MAR benchmark in a folder and the folders below it.

    Files are known by their names, whatever folders they lie in, and read when a case is asked for.

    Args:
        root: where archives were unpacked.
        region: "body", "head", or None for both.

    Raises:
        FileNotFoundError: no such folder, or no case in it with all three images.
        ValueError: an unknown region, or two files of one name.

    Indexing raises ValueError for a file of another size, or with NaN; the message names it.
    """

    def __init__(self, root: str | Path, region: str | None = None) -> None:
        if region not in (None, *FIELD_MM):
            raise ValueError(f"CTMAR: expected body, head or None, got {region!r}")
        self.root, found = Path(root), dict[str, dict[str, Path]]()
        for path in sorted(self.root.rglob("*.raw")):
            if (match := _NAME.fullmatch(path.name)) is None or region not in (None, match[2]):
                continue
            kind = _KINDS.get((match[3], match[4]))
            of_case = found.setdefault(f"{match[1]}_{match[2]}_{match[5]}", {})
            if kind in of_case:
                raise ValueError(f"CTMAR: {of_case[kind]} and {path} are of one name")
            if kind is not None:
                of_case[kind] = path
        self._cases = {n: f for n, f in found.items() if {"gt", "ma", "mask"} <= f.keys()}
        if not self._cases:
            raise FileNotFoundError(
                f"CTMAR: expected {SIDE}x{SIDE} .raw files of the names *_nometal_img*, *_metalart_img* and "
                f"*_metalonlymask_img* below {self.root}, found "
                + (f"incomplete cases such as {next(iter(found))}" if found else "none")
            )

    def __len__(self) -> int:
        return len(self._cases)

    @overload
    def __getitem__(self, index: int) -> CTMARCase: ...
    @overload
    def __getitem__(self, index: slice) -> list[CTMARCase]: ...
    def __getitem__(self, index: int | slice) -> CTMARCase | list[CTMARCase]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        name = list(self._cases)[index]
        files = self._cases[name]
        images = {kind: _read(files[kind], (SIDE, SIDE)) for kind in ("gt", "ma", "mask")}
        # The names say 900x1000, cells first; the numbers lie view by view.
        sinograms = {
            kind: _read(files[kind], (VIEWS, CELLS)) if kind in files else None
            for kind in ("gt_sinogram", "ma_sinogram")
        }
        mask = images["mask"] > 0
        if not mask.any():
            raise ValueError(f"{files['mask']}: expected metal, found none")
        region = "head" if "_head_" in name else "body"
        return CTMARCase(
            images["gt"], images["ma"], mask, **sinograms, field_mm=FIELD_MM[region], name=name
        )


def ct_mar_scores(image: Tensor, truth: Tensor, metal: Tensor) -> dict[str, float]:
    """Those of the benchmark's measures that need no regions chosen for a case.

    Args:
        image: restored, (H, W) in HU.
        truth: without metal, same shape.
        metal: (H, W) bool.

    Returns:
        ``rmse`` in HU and ``ssim`` (range 5000 HU), over the patient outside the metal; ``bone_volume``, the
        relative change of the pixels in [150, 2500) HU, and ``bone_dice``, their overlap, NaN without bone. The
        patient is found by :func:`eqreg.data.metal.field.body_mask`, where the benchmark has outlines of its own.

    Raises:
        TypeError, ValueError: no float images of one shape, or a mask that is none; no patient.
    """
    for name, t in (("image", image), ("truth", truth)):
        need_tensor(t, f"ct_mar_scores: {name}", floating=True)
    if metal.dtype != torch.bool:
        raise TypeError(f"ct_mar_scores: expected a bool mask, got {metal.dtype}")
    if not image.shape == truth.shape == metal.shape or image.ndim != 2:
        shapes = [tuple(t.shape) for t in (image, truth, metal)]
        raise ValueError(
            f"ct_mar_scores: expected images and mask of one shape (H, W), got {shapes}"
        )
    inside = body_mask(truth) & ~metal
    if not inside.any() or not torch.isfinite(image).all():
        raise ValueError("ct_mar_scores: expected a patient and a finite image")
    ssim = require("torchmetrics.functional.image", extra="tasks")
    filled = [torch.where(metal, _FILL, t.float())[None, None] for t in (image, truth)]
    _, local = ssim.structural_similarity_index_measure(
        *filled, data_range=_RANGE, reduction="none", return_full_image=True
    )
    bones = [((t >= _BONE[0]) & (t < _BONE[1]) & inside).double() for t in (image, truth)]
    ours, theirs = (float(b.sum()) for b in bones)
    overlap = float((bones[0] * bones[1]).sum())
    return {
        "rmse": float((image - truth)[inside].double().square().mean().sqrt()),
        "ssim": float(local[0, 0][inside].mean()),
        "bone_volume": abs(1 - ours / theirs) if theirs else float("nan"),
        "bone_dice": 2 * overlap / (ours + theirs) if theirs else float("nan"),
    }


def _read(path: Path, shape: tuple[int, int]) -> Tensor:
    want, got = 4 * shape[0] * shape[1], path.stat().st_size
    if got != want:
        raise ValueError(f"{path}: expected {want} bytes, float32 of {shape}, found {got}")
    numbers = np.fromfile(path, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{path}: expected finite numbers, found NaN or Inf")
    return torch.from_numpy(numbers)
