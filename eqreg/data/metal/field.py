"""A slice on the scanner's field: by the size of its pixels in millimetres.

Taught in: notebooks/14
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ct import AIR, resize_ct

# Pixels of patients in mm; a value beyond is in cm or in m.
FINEST, COARSEST = 0.05, 6.0
_TISSUE = -500.0


def on_field(
    hu: Tensor, spacing: tuple[float, float] | None, size: int, field: float | None
) -> tuple[Tensor, list[str]]:
    """Put a slice on a square field, its middle in the middle, air around.

    Args:
        hu: (H, W) in HU.
        spacing: mm between rows and between columns; None fits the whole slice into the field.
        size: of the field, pixels per side.
        field: of the field, mm per side. None fits every slice as a whole, as the published data do.

    Returns:
        (size, size) in HU, and what the user should be told, one line each.

    Raises:
        ValueError: a spacing that no scanner has, or a slice with nothing inside the field.
    """
    told = []
    if spacing is None or field is None:
        if field is not None:
            told.append(
                "the file does not say how large its pixels are; the whole slice fills the field "
                f"(--spacing MM says it, the field is {field:g} mm wide)"
            )
        factor = size / max(hu.shape)
        image = resize_ct(hu, size)
    else:
        if not all(FINEST <= s <= COARSEST for s in spacing):
            raise ValueError(
                f"expected pixels of {FINEST:g} to {COARSEST:g} mm, got {spacing[0]:g} x {spacing[1]:g}; is "
                "this in mm?"
            )
        pixel = field / size
        height, width = (
            max(1, round(n * s / pixel)) for n, s in zip(hu.shape, spacing, strict=True)
        )
        factor = max(spacing) / pixel
        image = hu
        if (height, width) != tuple(hu.shape):
            image = F.interpolate(hu[None, None], (height, width), mode="bilinear", antialias=True)[
                0, 0
            ].clamp(hu.min(), hu.max())
        image, lost = _centred(image, size)
        if lost:
            told.append(
                f"the body reaches beyond the field of {field:g} mm: {lost} pixels are cut off"
            )
    if factor > 1:
        told.append(f"enlarged {factor:.3g} times: finer than the slice was measured")
    if not (image > _TISSUE).any():
        raise ValueError("expected a body, got nothing but air inside the field")
    return image.clamp(min=AIR), told


def _centred(image: Tensor, size: int) -> tuple[Tensor, int]:
    """Cut or fill around the middle; also the number of tissue pixels that were cut off."""
    tissue = int((image > _TISSUE).sum())
    for dim in (0, 1):
        extra = image.shape[dim] - size
        if extra > 0:
            image = image.narrow(dim, extra // 2, size)
    top, left = ((size - n) // 2 for n in image.shape)
    around = (left, size - image.shape[1] - left, top, size - image.shape[0] - top)
    return F.pad(image, around, value=AIR), tissue - int((image > _TISSUE).sum())


def body_mask(hu: Tensor) -> Tensor:
    """The patient without the table: the largest connected thing, its holes filled.

    Args:
        hu: (H, W).

    Returns:
        (H, W) bool; all False without tissue.
    """
    from ...extras import require

    nd = require("scipy.ndimage", extra="tasks")
    # Opening cuts what only touches: the table, the clothes.
    tissue = nd.binary_opening((hu > _TISSUE).numpy(), iterations=2)
    labels, count = nd.label(tissue)
    if not count:
        return torch.zeros_like(hu, dtype=torch.bool)
    sizes = nd.sum_labels(tissue, labels, range(1, count + 1))
    return torch.from_numpy(nd.binary_fill_holes(labels == int(sizes.argmax()) + 1))
