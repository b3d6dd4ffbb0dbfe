"""Implants where surgeons and dentists put them: hips and screws in bone, fillings in the jaw, clips in soft tissue.

Every implant of a scan has a material of its own. What has no place in a slice is not put there: a slice of the
abdomen gets no hip.

Taught in: notebooks/14
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...extras import require
from ...physics.ct.metal import implant
from .field import body_mask


class Site(NamedTuple):
    """How one kind of implant is placed.

    ``shape`` of :func:`eqreg.physics.ct.implant`; ``area`` of one in mm^2, from and to; ``number`` in a scan, from and
    to; ``metals`` that are usual. ``across``, ``down``: where its middle lies, in half widths and half heights of the
    body from its middle, the first to both sides. ``bone``: its middle lies in bone that is still dense when it is
    smoothed over so many mm; 0 for soft tissue. ``width`` of the body in mm, from and to, which tells heads from hips.
    """

    shape: str
    area: tuple[float, float]
    number: tuple[int, int]
    metals: tuple[str, ...]
    across: tuple[float, float]
    down: tuple[float, float]
    bone: float
    width: tuple[float, float]


SITES = {
    "hip": Site(
        "hip", (700, 1800), (1, 2), ("titanium", "co-cr", "steel"), (0.3, 0.85), (-0.5, 0.5), 6, (275, math.inf)
    ),
    "spine": Site("screw", (100, 350), (2, 2), ("titanium", "steel"), (0.0, 0.3), (0.1, 1.0), 3, (275, math.inf)),
    "dental": Site(
        "filling", (15, 90), (2, 5), ("amalgam", "gold", "titanium"), (0.0, 0.9), (-1.0, -0.25), 2, (110, 275)
    ),
    "clips": Site("clip", (12, 50), (2, 4), ("titanium", "steel"), (0.0, 0.8), (-0.8, 0.8), 0, (0, math.inf)),
}  # fmt: skip
# HU: what counts as bone once it is smoothed, and the range of soft tissue.
_BONE, _SOFT = 180.0, (-200.0, 150.0)
# A body with more air than this shows lungs, and has no hips.
_LUNGS, _AIR_HU = 0.1, -500.0
_TRIES = 40


class Implant(NamedTuple):
    """One implant: its kind, what it is made of, and its mask (H, W) bool."""

    kind: str
    material: str
    mask: Tensor


def place(
    kind: str,
    hu: Tensor,
    field: float,
    *,
    materials: Sequence[str] = (),
    view: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> list[Implant]:
    """Implants of one kind for a scan of a slice.

    Args:
        kind: "hip", "spine", "dental" or "clips".
        hu: (size, size) in HU.
        field: that the slice shows, mm per side.
        materials: to draw from; those usual for the kind are preferred. None given: the usual ones.
        view: (size, size) bool, the pixels that every view sees.
        generator: source of the randomness.

    Returns:
        The implants, which do not overlap; none if the slice has no place for this kind.

    Raises:
        ValueError: an unknown kind.

    >>> from eqreg.data.phantoms import phantom
    >>> g = torch.Generator().manual_seed(0)
    >>> pelvis = phantom("pelvis", 128, generator=g)
    >>> {i.kind for i in place("hip", pelvis, 400, generator=g)}, place("dental", pelvis, 400, generator=g)
    ({'hip'}, [])
    """
    if kind not in SITES:
        raise ValueError(f"implants must be among {', '.join(SITES)}, got {kind!r}")
    site, size = SITES[kind], hu.shape[-1]
    body = body_mask(hu)
    if not body.any():
        return []
    allowed = _allowed(site, hu, body, field)
    free = body if view is None else body & view
    metals = [m for m in materials if m in site.metals] or list(materials) or list(site.metals)
    count = _between(*site.number, generator)
    placed: list[Implant] = []
    for _ in range(count):
        mask = _one(site, allowed, free, field / size, generator)
        if mask is None:
            break
        metal = metals[_between(0, len(metals) - 1, generator)]
        placed.append(Implant(kind, metal, mask))
        near = _grown(mask)
        free, allowed = free & ~near, allowed & ~near
        if kind == "hip":  # the second one goes to the other side
            columns = mask.any(0).nonzero().flatten().float().mean()
            middle = _middle(body)[1]
            side = torch.arange(size) > middle
            allowed = allowed & (side != bool(columns > middle))
    # A single screw of a pair would do, a single tooth too.
    return placed


def labels(implants: Sequence[Implant]) -> tuple[dict[str, Tensor], Tensor]:
    """Masks by material, and the mask of all metal."""
    masks: dict[str, Tensor] = {}
    for i in implants:
        masks[i.material] = masks[i.material] | i.mask if i.material in masks else i.mask
    return masks, torch.stack(list(masks.values())).any(0)


def check_masks(masks: Tensor, hu: Tensor, name: str) -> None:
    """Refuse masks of one's own that cannot be implants of this patient.

    Args:
        masks: (K, size, size) bool.
        hu: (size, size).
        name: of their file, for the message.

    Raises:
        ValueError: a mask is empty, touches the border, is larger than the body or lies beside it.
    """
    body = body_mask(hu)
    for k, mask in enumerate(masks):
        area = int(mask.sum())
        border = mask[0].any() | mask[-1].any() | mask[:, 0].any() | mask[:, -1].any()
        if not area:
            raise ValueError(f"{name}: mask {k} is empty; expected metal in it")
        if border:
            raise ValueError(
                f"{name}: mask {k} touches the border; expected metal inside the field"
            )
        if area > int(body.sum()):
            raise ValueError(
                f"{name}: mask {k} has {area} pixels, the body {int(body.sum())}; expected an implant"
            )
        if not (mask & body).any():
            raise ValueError(f"{name}: mask {k} lies beside the body; expected an implant in it")


def _allowed(site: Site, hu: Tensor, body: Tensor, field: float) -> Tensor:
    """Where the middle of an implant may lie."""
    rows, columns = body.any(1).nonzero().flatten(), body.any(0).nonzero().flatten()
    width, height = int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1
    pixel = field / hu.shape[-1]
    lungs = float((hu[body] < _AIR_HU).float().mean()) > _LUNGS
    if not site.width[0] <= width * pixel <= site.width[1] or (lungs and site.shape == "hip"):
        return torch.zeros_like(body)
    nd = require("scipy.ndimage", extra="tasks")
    # Smoothed, marrow and cortex count together, and ribs and bright vessels do not.
    smooth = torch.from_numpy(nd.gaussian_filter(hu.numpy(), (site.bone or 2.0) / pixel))
    tissue = smooth > _BONE if site.bone else (smooth > _SOFT[0]) & (smooth < _SOFT[1])
    middle = _middle(body)
    side = torch.arange(hu.shape[-1])
    across = ((side - middle[1]).abs() / (width / 2))[None, :]
    down = ((side - middle[0]) / (height / 2))[:, None]
    inside = (across >= site.across[0]) & (across <= site.across[1])
    return tissue & body & inside & (down >= site.down[0]) & (down <= site.down[1])


def _middle(body: Tensor) -> tuple[float, float]:
    rows, columns = body.any(1).nonzero().flatten(), body.any(0).nonzero().flatten()
    return float(rows[0] + rows[-1]) / 2, float(columns[0] + columns[-1]) / 2


def _one(
    site: Site, allowed: Tensor, free: Tensor, pixel: float, generator: torch.Generator | None
) -> Tensor | None:
    """A mask inside ``free`` with its middle in ``allowed``; after half the tries they become smaller."""
    places = allowed.nonzero()
    if not len(places):
        return None
    size = allowed.shape[-1]
    for i in range(_TRIES):
        row, column = places[_between(0, len(places) - 1, generator)].tolist()
        u = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        low, high = (math.log(a) for a in site.area)
        shrink = 0.95 ** max(0, i - _TRIES // 2)
        area = shrink * math.exp(low + (high - low) * u[0])
        center = ((row + 0.5) * 2 / size - 1, (column + 0.5) * 2 / size - 1)
        # `implant` counts in pixels of 416 a side, whatever the grid.
        published = area / (pixel * size / 416) ** 2
        try:
            mask = implant(
                site.shape, published, size, center=center, angle=360 * u[1], generator=generator
            )
        except ValueError:  # it reaches over the border
            continue
        if bool((mask <= free).all()):
            return mask
    return None


def _grown(mask: Tensor) -> Tensor:
    """With the pixels around, so that implants do not touch."""
    near = torch.nn.functional.max_pool2d(mask[None, None].float(), 5, 1, 2)
    return near[0, 0] > 0


def _between(low: int, high: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=generator))
