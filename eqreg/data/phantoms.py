"""Procedural anatomy: slices of thorax, abdomen, pelvis and head in HU, each draw another patient.

A slice is painted from a list of rounded shapes, back to front. Every patient gets other sizes and places
of the organs, one smooth deformation of the whole body, and a texture in every tissue. They look like CT,
and they are free; nothing about a disease can be learnt from them.

CT numbers of the tissues follow the usual tables (fat -100, water 0, muscle 50, liver 60, compact bone
above 700 HU). The shapes are ours.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..typed import typed
from .ct import AIR


class Part(NamedTuple):
    """A superellipse ``|x/a|^p + |y/b|^p < 1`` of one tissue.

    Places and half axes in half sides of the image: x to the right, y down. ``angle`` in degrees,
    counter-clockwise as displayed. ``texture``: standard deviation in HU of what varies smoothly in it. ``mirrored``
    paints the part on both sides of the body.
    """

    hu: float
    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0
    power: float = 2.0
    texture: float = 6.0
    mirrored: bool = False


# Parts that move and grow together, back to front.
Organ = tuple[Part, ...]


def _bone(
    x: float, y: float, a: float, b: float, angle: float = 0.0, mirrored: bool = False
) -> Organ:
    """Compact bone around marrow."""
    shell = min(a, b, 0.045 + 0.2 * min(a, b)) / 2
    return (
        Part(850, x, y, a, b, angle, texture=60, mirrored=mirrored),
        Part(280, x, y, a - shell, b - shell, angle, texture=45, mirrored=mirrored),
    )


def _spine(y: float) -> Organ:
    return (
        *_bone(0, y + 0.2, 0.05, 0.1),  # spinous process
        *_bone(0.1, y + 0.13, 0.12, 0.035, 20, mirrored=True),  # transverse processes
        *_bone(0, y, 0.15, 0.12),
        Part(25, 0, y + 0.14, 0.05, 0.04),  # canal
    )


_RIBS = tuple(
    _bone(x, y, 0.11, 0.032, angle, mirrored=True)
    for x, y, angle in (
        (0.34, -0.46, -12),
        (0.6, -0.3, -42),
        (0.73, -0.02, -88),
        (0.63, 0.28, 45),
        (0.38, 0.44, 15),
    )
)
_ANATOMY: dict[str, tuple[Organ, ...]] = {
    "thorax": (
        (Part(-100, 0, 0, 0.86, 0.62, power=2.6, texture=10),),
        (Part(50, 0, 0, 0.8, 0.54, power=2.5),),
        (Part(-60, 0, 0, 0.71, 0.45, power=2.3),),
        *_RIBS,
        (
            Part(-850, 0.37, 0.02, 0.29, 0.38, 8, 2.3, 45, True),  # lungs
            *(
                Part(10, 0.27 + 0.07 * k, -0.12 + 0.12 * (k % 3), 0.018, 0.018, mirrored=True)
                for k in range(4)
            ),
        ),
        (
            Part(45, 0.1, -0.1, 0.24, 0.2, 25),  # heart, with contrast agent in it
            Part(150, 0.14, -0.12, 0.12, 0.1, 30),
        ),
        (Part(140, 0.14, 0.19, 0.065, 0.065),),  # aorta
        (Part(AIR, -0.02, 0.08, 0.035, 0.03, texture=0),),  # airway
        _bone(0, -0.43, 0.12, 0.035),  # sternum
        _spine(0.33),
    ),
    "abdomen": (
        (Part(-100, 0, 0, 0.84, 0.64, power=2.4, texture=10),),
        (Part(55, 0, 0, 0.74, 0.53, power=2.3),),
        (Part(-95, 0, -0.02, 0.68, 0.46, power=2.3, texture=12),),
        (
            Part(60, -0.3, -0.08, 0.37, 0.34, 15, 2.4, 8),  # liver, with a vessel
            Part(70, -0.22, -0.2, 0.07, 0.05),
        ),
        (
            Part(15, 0.24, -0.22, 0.21, 0.14, -20),  # stomach, with gas
            Part(-900, 0.24, -0.3, 0.12, 0.05, texture=0),
        ),
        (Part(55, 0.5, 0.06, 0.1, 0.2, -15, texture=8),),  # spleen
        (
            Part(160, 0.32, 0.2, 0.1, 0.14, -25, texture=12, mirrored=True),  # kidneys
            Part(10, 0.29, 0.2, 0.04, 0.06, -25, mirrored=True),
        ),
        *((Part(35, 0.05 + 0.11 * k, 0.02 + 0.07 * (k % 2), 0.06, 0.05),) for k in range(3)),
        (Part(150, 0.03, 0.14, 0.06, 0.06),),  # aorta
        (Part(55, 0.2, 0.36, 0.14, 0.1, 20, mirrored=True),),  # muscles of the back
        _spine(0.32),
    ),
    "pelvis": (
        (Part(-100, 0, 0, 0.88, 0.6, power=2.4, texture=10),),
        (Part(55, 0.48, 0.1, 0.3, 0.36, 15, texture=12, mirrored=True),),  # gluteal muscles
        (Part(45, 0, -0.05, 0.5, 0.38, power=2.3),),
        (Part(-90, 0, -0.05, 0.4, 0.32, power=2.3, texture=12),),
        (Part(8, 0, -0.14, 0.2, 0.16, power=2.3, texture=4),),  # bladder
        (
            Part(40, 0, 0.16, 0.09, 0.08),  # rectum, with gas
            Part(-800, 0, 0.15, 0.035, 0.03, texture=0),
        ),
        (
            *_bone(0.46, 0.02, 0.07, 0.2, 18, mirrored=True),  # acetabulum
            *_bone(0.74, 0.06, 0.1, 0.08, -20, mirrored=True),  # trochanter
            *_bone(0.58, 0.0, 0.12, 0.12, mirrored=True),  # femoral head
        ),
        _bone(0, 0.36, 0.16, 0.05),  # sacrum
    ),
    "head": (
        (
            Part(40, 0, 0, 0.68, 0.82, power=2.2),
            Part(1100, 0, 0, 0.64, 0.78, power=2.2, texture=80),  # skull in three layers
            Part(550, 0, 0, 0.61, 0.75, power=2.2, texture=60),
            Part(1000, 0, 0, 0.59, 0.73, power=2.2, texture=60),
            Part(8, 0, 0, 0.56, 0.7, power=2.2, texture=3),
            Part(39, 0, 0, 0.54, 0.68, power=2.2, texture=3),
        ),
        (Part(28, 0.24, -0.02, 0.19, 0.5, 4, texture=3, mirrored=True),),  # white matter
        (Part(8, 0.09, -0.12, 0.05, 0.2, -14, texture=2, mirrored=True),),  # ventricles
        (Part(37, 0.17, 0.02, 0.07, 0.1, -20, texture=3, mirrored=True),),
        (Part(8, 0, 0.0, 0.012, 0.62, texture=2),),
        (Part(-900, 0.09, -0.66, 0.06, 0.05, texture=0, mirrored=True),),  # sinus
    ),
}
REGIONS = tuple(_ANATOMY)
# How much patients differ: sizes, places and the smooth deformation of the body (in half sides).
_GROW, _MOVE, _BEND = 0.08, 0.015, 0.03
# Leaves room for the tallest patient inside the circle.
_STATURE = 0.9
# Shapes larger than this hold others and stay where they are.
_FIXED = 0.4
# Width of an edge in pixels: a pixel there holds both tissues.
_EDGE = 1.2
# The texture has coarse and fine blobs: cycles across the image.
_COARSE, _FINE = 12, 50


@typed
def phantom(region: str, size: int = 416, *, generator: torch.Generator | None = None) -> Tensor:
    """Draw a slice of another patient.

    Args:
        region: "thorax", "abdomen", "pelvis" or "head".
        size: pixels per side, at least 16.
        generator: source of the randomness (CPU).

    Returns:
        (size, size) float32 in HU, at least -1000; air around the body, which lies inside the circle that
        touches the sides.

    Raises:
        ValueError: an unknown region, or ``size`` below 16.

    >>> phantom("head", 32, generator=torch.Generator().manual_seed(0)).shape
    torch.Size([32, 32])
    """
    if region not in _ANATOMY:
        raise ValueError(f"phantom: region must be one of {REGIONS}, got {region!r}")
    if size < 16:
        raise ValueError(f"phantom: size must be at least 16 pixels, got {size}")

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    side = (torch.arange(size) - (size - 1) / 2) / (size / 2)
    stature = _STATURE * (1 + 0.04 * float(normal(1).clamp(-2, 2)))
    bend = _BEND * _smooth(normal(2, size, size), 1.5).clamp(-2, 2)
    x, y = side[None, :] / stature + bend[0], side[:, None] / stature + bend[1]
    texture = 0.8 * _smooth(normal(size, size), _COARSE) + 0.6 * _smooth(normal(size, size), _FINE)
    hu = torch.full((size, size), AIR)
    for organ in _ANATOMY[region]:
        draw = normal(4).clamp(-2, 2)
        if max(organ[0].a, organ[0].b) > _FIXED:
            draw = torch.zeros(4)
        move, grow = _MOVE * draw[:2], 1 + _GROW * draw[2:]
        for part in organ:
            for across in (x, -x) if part.mirrored else (x,):
                inside = _inside(part, (across - move[0]) / grow[0], (y - move[1]) / grow[1], size)
                hu = torch.lerp(hu, part.hu + part.texture * texture, inside)
    return hu.clamp(min=AIR)


def _inside(part: Part, x: Tensor, y: Tensor, size: int) -> Tensor:
    """1 inside, 0 outside, a slope of about a pixel between."""
    turn = math.radians(part.angle)
    dx, dy = x - part.x, y - part.y
    u = (dx * math.cos(turn) - dy * math.sin(turn)).abs() / part.a
    v = (dx * math.sin(turn) + dy * math.cos(turn)).abs() / part.b
    p = part.power
    radius = (u**p + v**p) ** (1 / p)
    # The radius divided by its gradient is a distance near the outline, also at the tips of thin shapes.
    slope = torch.hypot(u ** (p - 1) / part.a, v ** (p - 1) / part.b) * radius.clamp(min=0.1) ** (
        1 - p
    )
    distance = (1 - radius) / slope.clamp(min=1e-3) * size / 2
    return (0.5 + distance / _EDGE).clamp(0, 1)


def _smooth(white: Tensor, cycles: float) -> Tensor:
    """Low-pass white noise to about this many cycles across the image; standard deviation 1."""
    n = white.shape[-1]
    f = torch.fft.fftfreq(n, 1 / n)
    keep = torch.exp(-0.5 * (f[:, None].square() + f.square()) / cycles**2)
    noise = torch.fft.ifft2(torch.fft.fft2(white) * keep).real
    return noise / noise.std((-2, -1), keepdim=True)
