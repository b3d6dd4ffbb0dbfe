"""The two sparse matrices of a scanner, each for its first views alone, an eighth of the circle as a rule.

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
# Pixels of a strip: times eight copies and four bytes, 0.7 MB.
_STRIP = 416 * 52


class CSR(NamedTuple):
    """Compressed rows: ``values[pointers[i]:pointers[i+1]]`` stand in row i."""

    pointers: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


def strips(n: int) -> int:
    """In how many strips of its columns an image of ``n`` pixels a side is read.

    Eight turned and mirrored copies of a strip fit into a processor's second cache together; all views
    read it before the next strip comes.
    """
    return max(1, round(n * n / _STRIP))


def strip_edges(n: int, number: int) -> list[int]:
    """Where each of some strips of ``n`` columns begins, and the last one ends."""
    return [int(edge) for edge in np.round(np.linspace(0, n, number + 1))]


def joseph(geometry: Geometry) -> CSR:
    """Line integrals after Joseph: rows are rays (strips * part * bins), columns are pixels.

    A ray is cut at every column or every row of pixels, whichever it crosses more steeply. At each
    cut the image is interpolated linearly between two pixels; a cut counts with the length of ray
    between two cuts. Lengths are in pixels. Outside the image there is nothing. The cuts of a ray stand
    in several rows, one for each of :func:`strips`, whose sum is the line integral.

    Reference: Joseph, "An Improved Algorithm for Reprojecting Rays through Pixel Images", IEEE TMI
    1(3), 1982.
    """
    n, bins = geometry.size, geometry.bins
    rays = [_rays(geometry, phi) for phi in geometry.angles[: geometry.part]]
    number = strips(n)
    edges = np.array(strip_edges(n, number))
    # (strips, views, bins): where the cuts of a ray begin and how many there are.
    start = np.stack([r.start for r in rays])
    stop = start + np.stack([r.number for r in rays])
    start = np.clip(start, edges[:-1, None, None], edges[1:, None, None])
    count = np.clip(stop, edges[:-1, None, None], edges[1:, None, None]) - start
    pointers = np.zeros(count.size + 1, np.int64)
    np.cumsum(2 * count.ravel(), out=pointers[1:])
    if pointers[-1] >= np.iinfo(np.int32).max:
        raise ValueError(
            f"joseph: {pointers[-1]} entries are more than 32 bits count; use a smaller size than {n}"
        )
    columns, values = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], np.float32)
    for s in range(number):
        for v, of in enumerate(rays):
            first = (s * len(rays) + v) * bins
            part = slice(pointers[first], pointers[first + bins])
            _entries(of, start[s, v], count[s, v], n, columns[part], values[part])
    return CSR(pointers.astype(np.int32), columns, values)


class _Rays(NamedTuple):
    """The rays of one view, an array of numbers for each; see :func:`_rays`."""

    steep: NDArray[np.bool_]
    first: NDArray[np.float64]
    slope: NDArray[np.float64]
    length: NDArray[np.float32]
    start: NDArray[np.int64]
    number: NDArray[np.int64]


def _rays(geometry: Geometry, phi: float) -> _Rays:
    """Where the rays of a view cross the image.

    ``first`` is the index along the other axis at cut 0, ``slope`` its change from cut to cut, ``length`` of
    ray between two cuts, ``start`` and ``number`` of the cuts inside the image.
    """
    n = geometry.size
    middle = (n - 1) / 2
    point, direction = geometry.rays(phi)
    steep = np.abs(direction[:, 1]) > np.abs(direction[:, 0])
    main, other = np.where(steep, 1, 0), np.where(steep, 0, 1)
    ray = np.arange(geometry.bins)
    slope = direction[ray, other] / direction[ray, main]
    first = point[ray, other] - (middle + point[ray, main]) * slope + middle
    length = (1 / np.abs(direction[ray, main])).astype(np.float32)
    return _Rays(steep, first, slope, length, *_cuts_inside(first, slope, n))


def _entries(
    rays: _Rays,
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    n: int,
    columns: NDArray[np.int32],
    values: NDArray[np.float32],
) -> None:
    """Write the columns and values of these cuts of one view, two of each a cut."""
    # All cuts of all rays in one row: cut k of ray r is number `offset[r] + k - start[r]`.
    offset = np.cumsum(count) - count
    cut = np.arange(len(columns) // 2, dtype=np.int32)
    cut -= np.repeat((offset - start).astype(np.int32), count)
    position = np.repeat(rays.slope * _LEVELS, count)
    position *= cut
    position += np.repeat(rays.first * _LEVELS, count)
    fine = np.rint(position, out=position).astype(np.int32)
    pixel, weight = fine >> _BITS, (fine & (_LEVELS - 1)).astype(np.float32)
    length = np.repeat(rays.length / _LEVELS, count)
    weight *= length
    values[1::2] = weight
    values[::2] = length * np.float32(_LEVELS) - weight
    # A neighbour outside the image has no value, and any column does.
    before, beyond = np.flatnonzero(pixel < 0), np.flatnonzero(pixel >= n - 1)
    values[2 * before] = 0
    values[2 * beyond + 1] = 0
    step = np.repeat(np.where(rays.steep, n, 1).astype(np.int32), count)
    cut *= np.repeat(np.where(rays.steep, 1, n).astype(np.int32), count)
    pixel *= step
    cut += pixel
    columns[::2] = cut
    columns[1::2] = cut + step
    columns[2 * before] = columns[2 * before + 1]
    columns[2 * beyond + 1] = columns[2 * beyond]


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
    """Pixel-driven back-projection: rows are pixels, columns are cells (part * bins).

    Each pixel looks up every view where it falls on the detector, linearly between two cells, with
    the weight ``(R/U)**power``; U is its depth from the source along the central ray. Cells beyond
    the detector hold nothing.
    """
    n, bins, views = geometry.size, geometry.bins, geometry.part
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
