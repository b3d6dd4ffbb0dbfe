"""Matrices on disk: written in one step, named by what they hold, checked when read. No pickle."""

from __future__ import annotations

import hashlib
import os
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...extras import require
from ...files import cache_folder, part_of
from ._matrix import CSR, strips
from .geometry import Geometry

__all__ = ["cache_folder", "cached"]

# Raised whenever the entries change, so that an older file is never taken for the present matrix.
_VERSION = 2
# Below this many entries building is as fast as reading.
_WORTH_KEEPING = 40_000_000


def cached(
    name: str, geometry: Geometry, build: Callable[[Geometry], CSR], folder: Path | None
) -> CSR:
    """The matrix ``build(geometry)``, from ``folder`` if it is there and sound.

    A damaged file is replaced, with a warning; a folder that cannot be written costs a warning and
    the time of the next build. Small matrices are not kept.

    Args:
        name: of the matrix, part of the file name.
        geometry: of the scanner; every number of it goes into the file name, hashed.
        build: makes the matrix.
        folder: None builds and keeps nothing.
    """
    if folder is None:
        return build(geometry)
    key = f"{name} {_VERSION} {geometry!r}"
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    if path.is_file():
        try:
            return _checked(_read(path, key), geometry)
        except (OSError, ValueError, KeyError, _not_safetensors()) as error:
            warnings.warn(f"{path} is damaged and is built anew: {error}", stacklevel=2)
    matrix = build(geometry)
    if len(matrix.values) >= _WORTH_KEEPING:
        try:
            _write(path, key, matrix)
        except OSError as error:
            warnings.warn(f"could not keep a matrix for later: {error}", stacklevel=2)
    return matrix


def _not_safetensors() -> type[Exception]:
    """What safetensors raises for a file that is not its own."""
    return require("safetensors", extra="tasks").SafetensorError


def _read(path: Path, key: str) -> CSR:
    with require("safetensors", extra="tasks").safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        matrix = CSR(*(file.get_tensor(name) for name in CSR._fields))
    if metadata.get("key") != key:
        raise ValueError(f"expected the matrix {key!r}, found {metadata.get('key')!r}")
    if metadata.get("checksum") != _checksum(matrix):
        raise ValueError(f"expected checksum {metadata.get('checksum')}, got {_checksum(matrix)}")
    return matrix


def _checked(matrix: CSR, geometry: Geometry) -> CSR:
    """Refuse indices that point outside: whoever multiplies reads there without looking.

    Raises:
        ValueError: these are not the compressed rows of a matrix of this scanner.
    """
    pointers, columns, values = matrix
    rows = strips(geometry.size) * geometry.part * geometry.bins
    sound = (
        all(a.ndim == 1 for a in matrix)
        and [a.dtype for a in matrix] == [np.int32, np.int32, np.float32]
        and len(pointers) == rows + 1
        and pointers[0] == 0
        and bool((np.diff(pointers) >= 0).all())
        and pointers[-1] == len(columns) == len(values)
        and columns.min(initial=0) >= 0
        and columns.max(initial=0) < geometry.size**2
    )
    if not sound:
        raise ValueError(
            f"expected {rows} rows whose indices lie in [0, {geometry.size**2}), got other ones"
        )
    return matrix


def _write(path: Path, key: str, matrix: CSR) -> None:
    save = require("safetensors.numpy", extra="tasks").save_file
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes that build at once do not mix, what killed ones left goes, and the last step is atomic.
    part = part_of(path)
    try:
        save(matrix._asdict(), part, {"key": key, "checksum": _checksum(matrix)})
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _checksum(matrix: CSR) -> str:
    value = 0
    for array in matrix:
        value = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, value)
    return f"{value:08x}"
