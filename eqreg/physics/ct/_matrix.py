"""The two sparse matrices of a scanner, each for the first of its equal turns, a quarter as a rule.

Both are plain CSR triples (row pointers, columns, values) over the pixels of the image, flattened
row by row, and the cells of that part of the sinogram, flattened view by view. Interpolation weights
are rounded to 1/256. This is the precision of a graphics card's texture unit, with which the
published data appear to be made; with it the traces of metal agree cell by cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .geometry import Geometry

_LEVELS = 256
_BITS = 8


class CSR(NamedTuple):
    """Compressed rows: ``values[pointers[i]:pointers[i+1]]`` stand in row i."""

    pointers: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


def joseph(geometry: Geometry) -> CSR:
    """Line integrals after Joseph: rows are rays (views/turns * bins), columns are pixels.

    A ray is cut at every column or every row of pixels, whichever it crosses more steeply. At each
    cut the image is interpolated linearly between two pixels; a cut counts with the length of ray
    between two cuts. Lengths are in pixels. Outside the image there is nothing.

    Reference: Joseph, "An Improved Algorithm for Reprojecting Rays through Pixel Images", IEEE TMI
    1(3), 1982.
    """
    n = geometry.size
    views = [
        _joseph_view(geometry, phi) for phi in geometry.angles[: geometry.views // geometry.turns]
    ]
    counts = np.concatenate([count for count, _, _ in views])
    pointers = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=pointers[1:])
    if pointers[-1] >= np.iinfo(np.int32).max:
        raise ValueError(
            f"joseph: {pointers[-1]} entries are more than 32 bits count; use a smaller size than {n}"
        )
    columns = np.concatenate([columns for _, columns, _ in views])
    values = np.concatenate([values for _, _, values in views])
    return CSR(pointers.astype(np.int32), columns, values)


def _joseph_view(
    geometry: Geometry, phi: float
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Entries per ray, columns and values of one view."""
    n = geometry.size
    middle = (n - 1) / 2
    point, direction = geometry.rays(phi)
    steep = np.abs(direction[:, 1]) > np.abs(direction[:, 0])
    main, other = np.where(steep, 1, 0), np.where(steep, 0, 1)
    ray = np.arange(geometry.bins)
    slope = direction[ray, other] / direction[ray, main]
    # Index along the other axis at cut 0, and its change from cut to cut.
    first = point[ray, other] - (middle + point[ray, main]) * slope + middle
    start, count = _cuts_inside(first, slope, n)

    # All cuts of all rays in one row: cut k of ray r is number `offset[r] + k - start[r]`.
    offset = np.cumsum(count) - count
    cut = np.arange(count.sum(), dtype=np.int32) - np.repeat(
        (offset - start).astype(np.int32), count
    )
    position = np.repeat(first * _LEVELS, count) + cut * np.repeat(slope * _LEVELS, count)
    fine = np.rint(position).astype(np.int32)
    pixel, weight = fine >> _BITS, fine & (_LEVELS - 1)
    length = np.repeat((1 / (np.abs(direction[ray, main]) * _LEVELS)).astype(np.float32), count)

    values = np.empty((len(cut), 2), np.float32)
    values[:, 0] = (_LEVELS - weight) * length * (pixel >= 0)
    values[:, 1] = weight * length * (pixel < n - 1)
    stride, side = np.where(steep, 1, n), np.where(steep, n, 1)
    line = cut * np.repeat(stride.astype(np.int32), count)
    step = np.repeat(side.astype(np.int32), count)
    columns = np.empty((len(cut), 2), np.int32)
    columns[:, 0] = line + np.maximum(pixel, 0) * step
    columns[:, 1] = line + np.minimum(pixel + 1, n - 1) * step
    return 2 * count, columns.ravel(), values.ravel()


def _cuts_inside(
    first: NDArray[np.float64], slope: NDArray[np.float64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First cut and number of cuts whose rounded position lies in (-1, n)."""
    # A little more than half a level: what rounds to -1 or n has no weight and would leave the image.
    low, high = -1 + 0.51 / _LEVELS, n - 0.51 / _LEVELS
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - first) / slope, (high - first) / slope
    flat = np.abs(slope) < 1e-12
    inside = (first >= low) & (first < high)
    a, b = np.where(flat, 0.0, np.minimum(a, b)), np.where(flat, n - 1.0, np.maximum(a, b))
    start = np.clip(np.ceil(a), 0, n).astype(np.int64)
    stop = np.clip(np.floor(b) + 1, 0, n).astype(np.int64)
    return start, np.where(flat & ~inside, 0, np.maximum(stop - start, 0))


def backprojector(geometry: Geometry, power: int) -> CSR:
    """Pixel-driven back-projection: rows are pixels, columns are cells (views/turns * bins).

    Each pixel looks up every view where it falls on the detector, linearly between two cells, with
    the weight ``(R/U)**power``; U is its depth from the source along the central ray. Cells beyond
    the detector hold nothing.
    """
    n, bins = geometry.size, geometry.bins
    views = geometry.views // geometry.turns
    phi = geometry.angles[:views]
    side = np.arange(n) - (n - 1) / 2
    columns = np.empty((n, n, views, 2), np.int32)
    values = np.empty((n, n, views, 2), np.float32)
    view_start = (np.arange(views) * bins).astype(np.int32)
    if columns.size >= np.iinfo(np.int32).max:
        raise ValueError(
            f"backprojector: {columns.size} entries are more than 32 bits count; use a smaller size "
            f"than {n} or fewer views than {geometry.views}"
        )
    for i in range(n):
        position, weight = geometry.project(side[i], side[:, None], phi)
        fine = np.rint(position * _LEVELS).astype(np.int32)
        cell, fraction = fine >> _BITS, fine & (_LEVELS - 1)
        scale = (weight**power / _LEVELS).astype(np.float32)
        # Without the comparisons an index beyond the detector would wrap into the next view.
        values[i, ..., 0] = (_LEVELS - fraction) * scale * ((cell >= 0) & (cell < bins))
        values[i, ..., 1] = fraction * scale * ((cell >= -1) & (cell < bins - 1))
        columns[i, ..., 0] = np.clip(cell, 0, bins - 1) + view_start
        columns[i, ..., 1] = np.clip(cell + 1, 0, bins - 1) + view_start
    pointers = np.arange(n * n + 1, dtype=np.int64) * (2 * views)
    return CSR(pointers.astype(np.int32), columns.ravel(), values.ravel())
