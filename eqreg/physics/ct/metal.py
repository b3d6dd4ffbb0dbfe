"""Implants to put into a slice: screws, hips, fillings and clips, over the published range of sizes.

Shapes are drawn in a frame of their own (length about 1) and scaled until they have the area asked for.
Areas are in pixels of a 416 x 416 image; on other grids they shrink or grow with it. In published test
masks they go from 35 to 2061.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...typed import typed

PUBLISHED_AREAS = (2061, 890, 881, 451, 254, 124, 118, 112, 53, 35)
_PUBLISHED_SIZE = 416
# Implants lie in this part of the half side around the centre, which every view sees.
_REACH = 0.6
_TRIES = 200
# Scale in pixels at which the area of a shape is measured first.
_ROOMY = 60.0
_HALVINGS = 14

# x, y, parameters -> inside. Parameters are uniform in [0, 1], so that a shape is a draw.
Shape = Callable[[Tensor, Tensor, Tensor], Tensor]


def _screw(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """A thread that narrows to its tip, and a head."""
    width = 0.07 + 0.05 * r[0]
    along = (x + 0.5).clamp(0, 1)
    thread = width * (1.15 - 0.5 * along) * (1 + 0.2 * torch.sin(2 * math.pi * (9 + 5 * r[1]) * x))
    shaft = (y.abs() < thread) & (x.abs() < 0.5)
    head = (y.abs() < width * (1.8 + r[2])) & ((x + 0.5).abs() < 0.07 + 0.05 * r[3])
    return shaft | head


def _hip(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """A head, a neck and a stem cut across."""
    head = x.square() + y.square() < (0.28 + 0.05 * r[0]) ** 2
    neck = (y.abs() < 0.11 + 0.05 * r[1]) & (x > 0) & (x < 0.6)
    stem = ((x - 0.65) / (0.12 + 0.1 * r[2])).square() + (y / (0.2 + 0.12 * r[3])).square() < 1
    return head | neck | stem


def _filling(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """A blob with a wavy outline."""
    angle = torch.atan2(y, x)
    outline = 0.5 + sum(
        0.1 * (r[k] - 0.3) * torch.cos((k + 2) * angle + 2 * math.pi * r[k + 3]) for k in range(3)
    )
    return torch.hypot(x, y * (1 + 0.6 * r[6])) < outline


def _clip(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Two thin legs that meet at one end."""
    slope = 0.1 + 0.25 * r[0]
    legs = (y.abs() - slope * (x + 0.5)).abs() < 0.06 + 0.05 * r[1]
    return legs & (x.abs() < 0.5)


SHAPES: dict[str, Shape] = {"screw": _screw, "hip": _hip, "filling": _filling, "clip": _clip}
# The part of the published range of areas that is usual for each.
AREAS = {"screw": (120, 900), "hip": (880, 2061), "filling": (50, 450), "clip": (35, 120)}


@typed
def implant(
    kind: str,
    area: float,
    size: int = _PUBLISHED_SIZE,
    *,
    center: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The mask of one implant.

    Args:
        kind: "screw", "hip", "filling" or "clip".
        area: in pixels of a 416 x 416 image; met as nearly as the grid allows.
        size: pixels per side of the mask.
        center: (row, column) from the middle, in half sides: (-1, -1) is the upper left corner.
        angle: degrees, counter-clockwise as displayed.
        generator: source of the shape's details.

    Returns:
        (size, size) bool.

    Raises:
        ValueError: an unknown kind, an area that is not positive, or an implant that leaves the image.

    >>> mask = implant("hip", 890, generator=torch.Generator().manual_seed(0))
    >>> abs(int(mask.sum()) - 890) < 10
    True
    """
    if kind not in SHAPES:
        raise ValueError(f"implant: kind must be one of {sorted(SHAPES)}, got {kind!r}")
    if not (math.isfinite(area) and area > 0):
        raise ValueError(f"implant: area must be positive, got {area}")
    if size < 1:
        raise ValueError(f"implant: size must be positive, got {size}")
    details = torch.rand(7, generator=generator, dtype=torch.float64)
    middle = (size - 1) / 2
    place = (middle + center[0] * size / 2, middle + center[1] * size / 2)
    wanted = max(1.0, area * (size / _PUBLISHED_SIZE) ** 2)

    def at(scale: float) -> Tensor:
        return _draw(SHAPES[kind], details, scale, place, math.radians(angle), size)

    # Area grows with the square of the scale, but for the grid: then we search around it.
    drawn = _draw(SHAPES[kind], details, _ROOMY, (_ROOMY, _ROOMY), 0.0, int(2 * _ROOMY) + 1)
    guess = _ROOMY * math.sqrt(wanted / float(drawn.sum()))
    low, high = 0.6 * guess, 1.6 * guess
    for _ in range(_HALVINGS):
        scale = (low + high) / 2
        low, high = (scale, high) if at(scale).sum() < wanted else (low, scale)
    mask = min((at(low), at(high)), key=lambda m: abs(float(m.sum()) - wanted))
    edge = mask[0].any() | mask[-1].any() | mask[:, 0].any() | mask[:, -1].any()
    if not mask.any() or edge:
        raise ValueError(
            f"implant: a {kind} of area {area:g} at {center} does not fit inside {size} x {size} pixels"
        )
    return mask


def _draw(
    shape: Shape, details: Tensor, scale: float, place: tuple[float, float], turn: float, size: int
) -> Tensor:
    """A shape on the grid, computed only where it can be: its own frame ends at radius 1."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    rows, columns = (
        slice(max(0, math.floor(p - scale)), max(0, min(size, math.ceil(p + scale) + 1)))
        for p in place
    )
    row = (torch.arange(size, dtype=torch.float64)[rows] - place[0])[:, None] / scale
    column = (torch.arange(size, dtype=torch.float64)[columns] - place[1])[None, :] / scale
    # Rows count down, so up is -row.
    x = column * math.cos(turn) - row * math.sin(turn)
    y = -row * math.cos(turn) - column * math.sin(turn)
    mask[rows, columns] = shape(x, y, details)
    return mask


@typed
def implants(
    n: int,
    size: int = _PUBLISHED_SIZE,
    *,
    body: Tensor | None = None,
    kinds: Sequence[str] = tuple(SHAPES),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random implants at random places and angles.

    Kinds take turns; areas are uniform on a logarithmic scale over the kind's part of the published range.

    Args:
        n: how many masks.
        size: pixels per side.
        body: (size, size) bool; implants lie inside it. None: anywhere around the centre.
        kinds: which, from "screw", "hip", "filling", "clip".
        generator: source of the randomness.

    Returns:
        (n, size, size) bool.

    Raises:
        ValueError: ``n`` is not positive, ``body`` has another size or holds no place for an implant.

    >>> implants(3, 64).shape
    torch.Size([3, 64, 64])
    """
    if n < 1 or not kinds:
        raise ValueError(f"implants: expected n > 0 and some kinds, got n={n}, kinds={kinds}")
    if body is not None and (body.dtype != torch.bool or body.shape != (size, size)):
        raise ValueError(
            f"implants: expected a bool body of shape {(size, size)}, got {body.dtype} {tuple(body.shape)}"
        )
    return torch.stack([_placed(kinds[i % len(kinds)], size, body, generator) for i in range(n)])


def _placed(kind: str, size: int, body: Tensor | None, generator: torch.Generator | None) -> Tensor:
    if kind not in AREAS:
        raise ValueError(f"implants: kinds must be among {sorted(AREAS)}, got {kind!r}")
    small, large = (math.log(area) for area in AREAS[kind])
    for _ in range(_TRIES):
        u = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        radius = _REACH * math.sqrt(u[0])
        place = (radius * math.cos(2 * math.pi * u[1]), radius * math.sin(2 * math.pi * u[1]))
        pixel = [min(size - 1, int((p + 1) * size / 2)) for p in place]
        if body is not None and not body[pixel[0], pixel[1]]:
            continue
        try:
            mask = implant(
                kind,
                math.exp(small + (large - small) * u[2]),
                size,
                center=place,
                angle=360 * u[3],
                generator=generator,
            )
        except ValueError:  # it reaches over the border
            continue
        if body is None or bool((mask <= body).all()):
            return mask
    raise ValueError(f"implants: found no place for a {kind} inside the body in {_TRIES} tries")
