"""Features of transformers as images: tokens, windows of tokens, channels behind the pixels."""

from __future__ import annotations

import math

from torch import Tensor

IMAGE = "image"
# How features of a batch may be laid out; "shifted" windows are those of an image rolled by half a window.
LAYOUTS = (IMAGE, "channels last", "tokens", "windows", "shifted windows")
_IMAGE_DIMS, _TOKEN_DIMS = 4, 3


def as_images(z: Tensor, rows: int, layout: str) -> Tensor | None:
    """Features as (B, C, H, W); None if they are not laid out so.

    Args:
        z: (B, C, H, W); (B, H, W, C); tokens (B, T, C) in raster order, of which the first that make no square (class
            tokens) are left out; or windows (B * M, N, C), M of them with N tokens each, in raster order.
        rows: B, the number of images.
        layout: one of :data:`LAYOUTS`.
    """
    if layout in (IMAGE, "channels last"):
        if z.ndim != _IMAGE_DIMS or z.shape[0] != rows:
            return None
        return z if layout == IMAGE else z.permute(0, 3, 1, 2)
    if z.ndim != _TOKEN_DIMS or z.shape[0] % rows:
        return None
    count, (_, tokens, channels) = z.shape[0] // rows, z.shape
    n = math.isqrt(tokens)
    if layout == "tokens":
        return None if count > 1 else z[:, tokens - n * n :].mT.reshape(rows, channels, n, n)
    m = math.isqrt(count)
    if m * m != count or n * n != tokens:
        return None
    image = z.reshape(rows, m, m, n, n, channels).permute(0, 5, 1, 3, 2, 4)
    image = image.reshape(rows, channels, m * n, m * n)
    return image.roll((n // 2, n // 2), (2, 3)) if layout == "shifted windows" else image
