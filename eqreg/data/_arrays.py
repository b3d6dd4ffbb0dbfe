"""Arrays from files that somebody else wrote: no code, no other file, and no more memory than announced."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ..extras import require

LARGEST = 1 << 30  # bytes of one array; those of the published data sets have at most 0.2 GB
_HEADS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def refuse_large(what: str, size: int) -> None:
    """Stop before memory is taken.

    Raises:
        ValueError: ``size`` bytes are more than ``LARGEST``.
    """
    if size > LARGEST:
        raise ValueError(
            f"{what} unpacks to {size / 1e6:.0f} MB, expected at most {LARGEST / 1e6:.0f} MB"
        )


def from_npz(path: Path, wanted: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those of the ``wanted`` arrays that are in an npz file, and the names of all.

    Raises:
        ValueError: an array announces more than the file holds or than ``LARGEST``, or holds objects.
        OSError, zipfile.BadZipFile, zlib.error, KeyError: as zipfile and numpy raise for damaged files.
    """
    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        found = {}
        for name in wanted:
            if name not in members:
                continue
            size = members[name].file_size  # zipfile unpacks no more than this
            refuse_large(name, size)
            with archive.open(members[name]) as file:
                shape, _, dtype = _HEADS[npy.read_magic(file)](file)
            if math.prod(shape) * dtype.itemsize > size:
                raise ValueError(f"{name} announces {shape} {dtype}, more than its {size} bytes")
            with archive.open(members[name]) as file:
                found[name] = npy.read_array(file, allow_pickle=False)
    return found, list(members)


def from_npy(path: Path) -> np.ndarray:
    """The array of an npy file.

    Raises:
        ValueError: as :func:`from_npz`.
    """
    mapped = np.load(
        path, mmap_mode="r", allow_pickle=False
    )  # refuses what is longer than the file
    if not isinstance(mapped, np.ndarray):
        raise ValueError("it is no npy file")
    refuse_large(path.name, mapped.nbytes)
    return np.array(mapped)


def from_h5(path: Path, wanted: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Those of the ``wanted`` data sets that are at the top of an HDF5 file, and the names of all.

    Raises:
        ValueError: one is a link, lies in another file, is larger than ``LARGEST`` or holds objects.
        OSError: the file cannot be read.
    """
    h5py = require("h5py", extra="tasks")
    found = {}
    with h5py.File(path, "r") as file:
        for name in wanted:
            link = file.get(name, getlink=True)
            if link is None:
                continue
            item = file[name] if isinstance(link, h5py.HardLink) else None
            if not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                raise ValueError(
                    f"{name} is no data set in this file, but a link, a group or elsewhere"
                )
            if item.dtype.hasobject:
                raise ValueError(f"{name} holds objects")
            for shape in (item.shape, item.chunks or ()):
                refuse_large(name, math.prod(shape) * item.dtype.itemsize)
            found[name] = item[()]
        return found, sorted(file)
