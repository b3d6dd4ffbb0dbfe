"""How a case lies on the disk: the layout of the published data, and a plain one.

``published``, what the public code of DICDNet, InDuDoNet, ACDNet and OSCNet reads::

    train/train_640geo/<patient>/<slice>/gt.h5    image, poly_CT (H, W), poly_sinogram (views, bins)
    train/train_640geo/<patient>/<slice>/K.h5     ma_CT, LI_CT, ma_sinogram, LI_sinogram, metal_trace
    train/train_640geo_dir.txt                    <patient>/<slice>/gt.h5, a line for each slice
    trainmask.npy                                 (H, W, masks) uint8; mask K is in K.h5

``npz``: ``train/<patient>/<slice>/K.npz`` with all of it and the mask, one file for a case.

Taught in: notebooks/14
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...checks import one_line
from ...extras import require
from ...files import write_whole

LAYOUTS = ("published", "npz")
# Not in a case's file of the published layout.
_APART = ("mask", "labels")
Arrays = dict[str, np.ndarray[Any, Any]]


class Case(NamedTuple):
    """One slice with one set of implants, as :class:`eqreg.data.syndeeplesion.CTCase` in any geometry."""

    gt: Tensor
    ma: Tensor
    li: Tensor
    mask: Tensor
    trace: Tensor
    ma_sinogram: Tensor
    li_sinogram: Tensor
    name: str


def case_path(layout: str, split: str, folder: str, number: int) -> str:
    """Where case ``number`` of a slice lies, below the data set's folder."""
    if layout == "published":
        return f"{split}/{split}_640geo/{folder}/{number}.h5"
    return f"{split}/{folder}/{number}.npz"


def clean_path(split: str, folder: str) -> str:
    """Where the published layout keeps the slice without metal."""
    return f"{split}/{split}_640geo/{folder}/gt.h5"


def h5_bytes(arrays: Arrays) -> bytes:
    """An HDF5 file with these data sets, compressed as the published ones; the same bytes every time."""
    buffer = io.BytesIO()
    with require("h5py", extra="tasks").File(buffer, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip", track_times=False)
    return buffer.getvalue()


def npz_bytes(arrays: Arrays) -> bytes:
    """A NumPy archive with these arrays, compressed."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def write_case(root: Path, layout: str, where: str, clean: Arrays, scan: Arrays) -> str:
    """One file for a case; in the published layout without mask and clean slice, which lie elsewhere.

    Args:
        root: of the data set.
        layout: "published" or "npz".
        where: from :func:`case_path`.
        clean: ``image``, ``poly_CT``, ``poly_sinogram``.
        scan: ``ma_CT``, ``LI_CT``, ``ma_sinogram``, ``LI_sinogram``, ``metal_trace``, and ``mask``, ``labels``.

    Raises:
        OSError: the file cannot be written; the message names it.

    Returns:
        SHA-256 of the file.
    """
    if layout == "published":
        return _written(root / where, h5_bytes({k: v for k, v in scan.items() if k not in _APART}))
    return _written(root / where, npz_bytes({**clean, **scan}))


def write_clean(root: Path, where: str, clean: Arrays) -> str:
    """``gt.h5`` of a slice in the published layout; as :func:`write_case`."""
    return _written(root / where, h5_bytes(clean))


def _written(path: Path, content: bytes) -> str:
    write_whole(path, content)
    return hashlib.sha256(content).hexdigest()


def read_case(root: Path, record: dict[str, Any], masks: np.ndarray[Any, Any] | None) -> Case:
    """A case that the manifest lists.

    Args:
        root: of the data set.
        record: of the manifest.
        masks: (H, W, K) of its split, for the published layout.

    Raises:
        ValueError: a file is missing, damaged, lacks an array, or one has another shape or is not finite; the
            message names it.
    """
    path = root / record["file"]
    if path.suffix == ".npz":
        arrays = _read(path)
        clean, mask = arrays, arrays.get("mask")
    else:
        arrays, clean = _read(path), _read(root / record["clean"])
        number = record["number"]
        if masks is not None and not 0 <= number < masks.shape[-1]:
            raise ValueError(f"{path}: expected mask {number}, found {masks.shape[-1]} masks")
        mask = None if masks is None else masks[..., number]
    everything = {**arrays, "image": clean.get("image"), "mask": mask}
    names = ("image", "ma_CT", "LI_CT", "mask", "metal_trace", "ma_sinogram", "LI_sinogram")
    missing = [name for name in names if everything.get(name) is None]
    if missing:
        raise ValueError(
            f"{path}: expected {', '.join(missing)}, found {', '.join(sorted(arrays))}"
        )
    for name in names:
        if (kind := np.asarray(everything[name]).dtype).kind not in "fiub":
            raise ValueError(f"{path}: expected numbers in {name}, found {kind}")
    tensors = [torch.from_numpy(np.asarray(everything[name])) for name in names]
    for name, t in zip(names, tensors, strict=True):
        like = tensors[0 if name in names[:4] else 4].shape
        if t.shape != like or t.ndim != 2 or t.is_complex() or not torch.isfinite(t).all():
            raise ValueError(
                f"{path}: expected {name} of shape {tuple(like)}, (H, W) or (views, bins), without NaN or Inf; "
                f"found {tuple(t.shape)}, {int((~torch.isfinite(t)).sum())} of them not finite"
            )
    image, ma, li, metal, trace, ma_sinogram, li_sinogram = tensors
    name = "/".join(Path(record["file"]).with_suffix("").parts[-3:])
    return Case(image, ma, li, metal > 0, trace > 0, ma_sinogram, li_sinogram, name)


def _read(path: Path) -> Arrays:
    if not path.is_file():
        raise ValueError(f"{path}: expected a file of the data set, found none")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        with require("h5py", extra="tasks").File(path, "r") as file:
            return {name: file[name][:] for name in file}
    except ImportError:
        raise
    except Exception as error:  # decoders of damaged files raise what they like
        raise ValueError(f"{path}: could not be read: {one_line(error)}") from error
