"""Where the source and the detector stand: fan beam with a flat detector, and parallel beam.

Lengths are in pixels of the image, angles in radians. The image axes are the array's: ``image[i, j]``
has its centre at ``x = i - (n-1)/2``, ``y = j - (n-1)/2``. The views go once around, at
``phi_k = (k + 1/2) 2 pi / views``. View ``phi`` looks along ``(-sin phi, cos phi)``, and the detector
lies along ``(cos phi, sin phi)``. Turning the image by a quarter (``torch.rot90(x, 1, (-2, -1))``)
adds ``pi/2`` to every ``phi``: the sinogram rolls by ``+views/4``.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...symmetry.groups import Element, Group

Array = NDArray[np.float64]
_QUARTERS = 4


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays, one bundle for each of ``views`` directions of the full circle.

    The second half of the circle measures the rays of the first again. We keep both halves, so that
    turning the image is a cyclic shift of the views, as for a fan.

    Args:
        size: pixels per side of the square image.
        views: number of directions, divisible by 4.
        bins: detector cells.
        pixel: side of a pixel in cm.
        pitch: distance of two cells in pixels.

    Raises:
        ValueError: a number is not positive and finite, ``views`` is not divisible by 4, or the
            distances of a fan put source or detector inside the image.

    >>> ParallelBeam(size=64, views=90, bins=95)
    Traceback (most recent call last):
    ...
    ValueError: ParallelBeam: views must be divisible by 4, the quarter turns of the scanner, got 90
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
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{self._name}: {name} must be positive and finite, got {value!r}")
        if self.views % _QUARTERS:
            raise ValueError(
                f"{self._name}: views must be divisible by 4, the quarter turns of the scanner, "
                f"got {self.views}"
            )

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def angles(self) -> Array:
        """(views,) directions phi in radians."""
        return (np.arange(self.views) + 0.5) * (2 * np.pi / self.views)

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
    """A point source and a flat detector turning around the image.

    Args:
        size, views, bins, pixel: as for :class:`ParallelBeam`.
        pitch: distance of two cells in pixels, on the detector.
        source: from the source to the centre of the image, pixels.
        detector: from the centre of the image to the detector, pixels.

    Raises:
        ValueError: as for :class:`ParallelBeam`, or source or detector would touch the image.
    """

    source: float = math.inf
    detector: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        reach = self.size / math.sqrt(2)
        for name in ("source", "detector"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > reach):
                raise ValueError(
                    f"FanBeam: {name} must be a finite distance beyond the image's corners "
                    f"({reach:.1f} pixels), got {value!r}"
                )

    def rays(self, phi: float) -> tuple[Array, Array]:
        """Rays of one view, from the source; as for :meth:`ParallelBeam.rays`."""
        along = np.array([-math.sin(phi), math.cos(phi)])
        across = np.array([math.cos(phi), math.sin(phi)])
        path = (self.source + self.detector) * along + self.cells[:, None] * across
        start = np.broadcast_to(-self.source * along, path.shape)
        return start, path / np.linalg.norm(path, axis=1, keepdims=True)

    def project(self, x: Array, y: Array, phi: Array) -> tuple[Array, Array]:
        """Where points fall on the detector, and ``R/U``; as for :meth:`ParallelBeam.project`."""
        u = x * np.cos(phi) + y * np.sin(phi)
        depth = self.source - x * np.sin(phi) + y * np.cos(phi)
        weight = self.source / depth
        magnification = (self.source + self.detector) / self.source
        return u * weight * (magnification / self.pitch) + (self.bins - 1) / 2, weight


Geometry = ParallelBeam | FanBeam


def syndeeplesion() -> FanBeam:
    """The scanner of the published SynDeepLesion data: 640 views, 641 cells, 416 x 416 pixels.

    Lengths there are code units: a pixel is 512/416 * 0.03 cm, so the field of view is 15.4 cm and a
    chest is optically thin.

    Reference: Wang et al., "DICDNet", IEEE TMI 41(4), 2022, and the data published with it.
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
    views = y.shape[-2]
    divisor = math.lcm(group.n, 2 if flip else 1)
    if views % divisor:
        raise ValueError(
            f"turn_sinogram: the number of views must be divisible by {divisor} for {group}, got {views}"
        )
    if flip:
        y = y.flip(-1, -2).roll(views // 2, -2)
    return y.roll(turns * (views // group.n), -2)


def check_images(x: Tensor, geometry: Geometry, name: str) -> None:
    """Refuse what is not a float image (..., size, size) of this geometry."""
    _check(x, (geometry.size, geometry.size), "images (..., size, size)", name)


def check_sinograms(y: Tensor, geometry: Geometry, name: str) -> None:
    """Refuse what is not a float sinogram (..., views, bins) of this geometry."""
    _check(y, (geometry.views, geometry.bins), "sinograms (..., views, bins)", name)


def _check(t: Tensor, expected: tuple[int, int], what: str, name: str) -> None:
    if not isinstance(t, Tensor) or not t.is_floating_point():
        kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"{name}: expected a float tensor of {what}, got {kind}")
    if tuple(t.shape[-2:]) != expected:
        raise ValueError(
            f"{name}: expected {what} with last sides {expected}, got shape {tuple(t.shape)}"
        )
