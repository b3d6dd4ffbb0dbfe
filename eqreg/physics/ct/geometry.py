"""Where the source and the detector stand: fan beam with a flat or curved detector, and parallel beam.

Lengths are in pixels of the image, angles in radians. The image axes are the array's: ``image[i, j]``
has its centre at ``x = i - (n-1)/2``, ``y = j - (n-1)/2``. The views are at ``phi_k = (k + 1/2) span / views``.
View ``phi`` looks along ``(-sin phi, cos phi)``, and the detector lies along ``(cos phi, sin phi)``. Turning the
image by a quarter (``torch.rot90(x, 1, (-2, -1))``) adds ``pi/2`` to every ``phi``: once around, with ``views``
divisible by 4, the sinogram rolls by ``+views/4``. ``geometry.turns`` says which turns are exact.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...checks import need_number
from ...symmetry.groups import Element, Group
from ...typed import typed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays, one bundle for each of ``views`` directions of the full circle.

    The second half of the circle measures the rays of the first again. We keep both halves, so that
    turning the image is a cyclic shift of the views, as for a fan.

    Args:
        size: pixels per side of the square image.
        views: number of directions, at least 4; by a multiple of 4 the scanner is exactly equivariant.
        bins: detector cells.
        pixel: side of a pixel in cm.
        pitch: distance of two cells in pixels.

    Raises:
        ValueError: a number is not positive and finite, ``views`` is below 4, or the distances of a fan put
            source or detector inside the image.

    >>> ParallelBeam(size=64, views=90, bins=95).turns
    2
    """

    size: int
    views: int
    bins: int
    pixel: float = 1.0
    pitch: float = 1.0

    def __post_init__(self) -> None:
        for name in ("size", "views", "bins"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{self._name}: {name} must be a positive integer, got {value!r}")
        for name in ("pixel", "pitch"):
            need_number(getattr(self, name), f"{self._name}: {name}", 0, above=True)
        if self.views < 4:
            raise ValueError(f"{self._name}: expected at least 4 views, got {self.views}")

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def span(self) -> float:
        """Radians that the views go around."""
        return 2 * math.pi

    @property
    def turns(self) -> int:
        """Number of equal turns, 4, 2 or 1, by which the scanner is exactly equivariant."""
        return math.gcd(self.views, 4)

    @property
    def mirrored(self) -> bool:
        """Whether the views of each such turn are mirror images of each other, two and two."""
        return self.views % 8 == 0

    @property
    def part(self) -> int:
        """Number of the first views, of which all others are turned or mirrored copies."""
        return self.views // self.turns // (2 if self.mirrored else 1)

    @property
    def angles(self) -> Array:
        """(views,) directions phi in radians."""
        return (np.arange(self.views) + 0.5) * (self.span / self.views)

    @property
    def cells(self) -> Array:
        """(bins,) positions of the cells along the detector, in pixels from its middle."""
        return (np.arange(self.bins) - (self.bins - 1) / 2) * self.pitch

    def rays(self, phi: float) -> tuple[Array, Array]:
        """Rays of one view.

        Args:
            phi: direction in radians.

        Returns:
            A point on each ray and its unit direction, both (bins, 2) as (x, y) in pixels.
        """
        along = np.array([-math.sin(phi), math.cos(phi)])
        across = np.array([math.cos(phi), math.sin(phi)])
        return self.cells[:, None] * across, np.broadcast_to(along, (self.bins, 2))

    def project(self, x: Array, y: Array, phi: Array) -> tuple[Array, Array]:
        """Where points fall on the detector.

        Args:
            x, y, phi: broadcast against each other; pixels and radians.

        Returns:
            The detector's index, a fraction, and the magnification weight ``R/U`` (1 here).
        """
        u = x * np.cos(phi) + y * np.sin(phi)
        return u / self.pitch + (self.bins - 1) / 2, np.ones_like(u)


@dataclass(frozen=True)
class FanBeam(ParallelBeam):
    """A point source and a detector turning around the image.

    Args:
        size, views, bins, pixel: as for :class:`ParallelBeam`.
        pitch: distance of two cells in pixels, on the detector.
        source: from the source to the centre of the image, pixels.
        detector: from the centre of the image to the detector, pixels.
        curved: the detector is an arc around the source, its cells at equal angles; else flat.
        short: the shortest scan that measures every ray, half a turn and the angle of the fan.

    Raises:
        ValueError: as for :class:`ParallelBeam`, or source or detector would touch the image, or a fan of half a
            turn or more.
    """

    source: float = math.inf
    detector: float = math.inf
    curved: bool = False
    short: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        reach = self.size / math.sqrt(2)
        for name in ("source", "detector"):
            value = need_number(getattr(self, name), f"FanBeam: {name}", finite=False)
            if not reach < value < math.inf:
                beyond = f"a finite distance beyond the image's corners ({reach:.1f} pixels)"
                raise ValueError(f"FanBeam: {name} must be {beyond}, got {value!r}")
        if self.half_fan >= math.pi / 2:
            raise ValueError(
                f"FanBeam: {self.bins} cells of {self.pitch:g} pixels see half a turn or more from the source"
            )

    @property
    def half_fan(self) -> float:
        """Radians between the central ray and the end of the detector."""
        end = self.bins * self.pitch / 2 / (self.source + self.detector)
        return end if self.curved else math.atan(end)

    @property
    def span(self) -> float:
        """Radians that the views go around."""
        return math.pi + 2 * self.half_fan if self.short else 2 * math.pi

    @property
    def turns(self) -> int:
        """As for :class:`ParallelBeam`; a short scan has one."""
        return 1 if self.short else super().turns

    @property
    def mirrored(self) -> bool:
        """As for :class:`ParallelBeam`; no view of a short scan is the mirror image of another on the pixels."""
        return not self.short and super().mirrored

    def rays(self, phi: float) -> tuple[Array, Array]:
        """Rays of one view, from the source; as for :meth:`ParallelBeam.rays`."""
        along = np.array([-math.sin(phi), math.cos(phi)])
        across = np.array([math.cos(phi), math.sin(phi)])
        reach = self.source + self.detector
        u = reach * np.tan(self.cells / reach) if self.curved else self.cells
        path = reach * along + u[:, None] * across
        start = np.broadcast_to(-self.source * along, path.shape)
        return start, path / np.linalg.norm(path, axis=1, keepdims=True)

    def project(self, x: Array, y: Array, phi: Array) -> tuple[Array, Array]:
        """Where points fall on the detector, and ``R/U``; as for :meth:`ParallelBeam.project`.

        U is the depth along the central ray, and for a curved detector the distance from the source.
        """
        u = x * np.cos(phi) + y * np.sin(phi)
        depth = self.source - x * np.sin(phi) + y * np.cos(phi)
        if self.curved:
            cell = np.arctan2(u, depth) * ((self.source + self.detector) / self.pitch)
            return cell + (self.bins - 1) / 2, self.source / np.hypot(u, depth)
        weight = self.source / depth
        magnification = (self.source + self.detector) / self.source
        return u * weight * (magnification / self.pitch) + (self.bins - 1) / 2, weight


Geometry = ParallelBeam | FanBeam


def syndeeplesion() -> FanBeam:
    """The scanner of the published SynDeepLesion data: 640 views, 641 cells, 416 x 416 pixels.

    Lengths there are code units: a pixel is 512/416 * 0.03 cm, so the field of view is 15.4 cm and a
    chest is optically thin.

    Reference: Wang et al., "DICDNet", IEEE TMI 41(4), 2022, and the data published with it.

    >>> scanner = syndeeplesion()
    >>> scanner.views, scanner.bins, round(scanner.size * scanner.pixel, 1)
    (640, 641, 15.4)
    """
    size, bins = 416, 641
    return FanBeam(
        size=size,
        views=640,
        bins=bins,
        pixel=512 / 416 * 0.03,
        pitch=2 * math.sqrt(2) * size / bins,
        source=1075.0,
        detector=1075.0,
    )


@typed
def small_fan(size: int = 128, views: int = 200) -> FanBeam:
    """The published scanner on a coarser grid: the same fan and field of view, fewer pixels.

    Args:
        size: pixels per side.
        views: divisible by 4.

    >>> small_fan(104).bins
    161
    """
    full = syndeeplesion()
    scale = size / full.size
    bins = 2 * round(full.bins * scale / 2) + 1
    return FanBeam(
        size=size,
        views=views,
        bins=bins,
        pixel=full.pixel / scale,
        pitch=2 * math.sqrt(2) * size / bins,
        source=full.source * scale,
        detector=full.detector * scale,
    )


@typed
def turn_sinogram(y: Tensor, g: Element | int, group: Group) -> Tensor:
    """What turning or mirroring the object does to its sinogram.

    A turn by ``1/n`` of the circle rolls the views by ``views/n``. The mirror (left and right, before the
    turn) reverses views and cells and rolls by half the views.

    Args:
        y: sinograms (..., views, bins).
        g: element of the group; an int is that many turns.
        group: cyclic or dihedral, of any order that divides the views.

    Raises:
        ValueError: the views are not divisible by the number of turns (or by 2, for a mirror).

    >>> import torch
    >>> from eqreg import C4
    >>> y = torch.arange(8.0)[:, None]
    >>> turn_sinogram(y, 1, C4).ravel().tolist()
    [6.0, 7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    turns, flip = group.element(g)
    views = y.shape[-2] if y.ndim > 1 else 0
    divisor = math.lcm(group.n, 2 if flip else 1)
    if views % divisor or not views:
        raise ValueError(
            f"turn_sinogram: the number of views must be divisible by {divisor} for {group}, got {views}"
        )
    if flip:
        y = y.flip(-1, -2).roll(views // 2, -2)
    return y.roll(turns * (views // group.n), -2)


def in_view(geometry: Geometry) -> Tensor:
    """(size, size) bool: pixels that every view sees, a disc around the centre."""
    half = geometry.bins * geometry.pitch / 2
    if isinstance(geometry, FanBeam):
        half = geometry.source * math.sin(geometry.half_fan)
    side = torch.arange(geometry.size) - (geometry.size - 1) / 2
    return side[:, None].square() + side.square() < half**2
