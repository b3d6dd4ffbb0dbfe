"""Large images in overlapping tiles, with the result of the whole image.

A convolutional network computes a pixel from the pixels at most ``r`` away, its receptive radius. So
a tile gives the right result everywhere but in a band of width ``r`` along the edges that the image
does not have. Tiles that overlap by ``2 r`` have enough to spare: each overlap is cut in the middle.

Taught in: notebooks/13b_rain_unfolding.ipynb
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

_PROBES = (33, 65, 129, 257, 513)


@torch.no_grad()
def tiled(
    model: Callable[..., Tensor],
    x: Tensor | Sequence[Tensor],
    tile: int = 256,
    overlap: int = 64,
    *,
    batch: int = 1,
) -> Tensor:
    """Apply a network to an image in tiles, so that the memory it needs is that of a tile.

    The result is that of ``model(x)``, up to rounding and also along the borders of the image, if the
    model keeps the size, treats all places alike (no strides, no mean over the whole image), and
    ``overlap`` is at least twice its receptive radius: see :func:`needed_overlap`. With less, seams
    show. No gradient is recorded; whether the model is in train or eval mode is the caller's affair.

    Args:
        model: called with tiles (b, C, h, w) of every input; returns one tensor (b, C', h, w).
        x: images (B, C, H, W), or several inputs of equal B, H and W, given in this order to the model.
        tile: side of a tile in pixels, overlaps included. A shorter side of the image is taken whole.
        overlap: pixels that neighbouring tiles share, less than ``tile``; the last two of a row may
            share more.
        batch: tiles to run at once.

    Returns:
        (B, C', H, W).

    Raises:
        ValueError: inputs that are no images of one size, sizes out of range, or a model that returns
            another size.
        TypeError: the model returns no tensor.

    >>> blur = torch.nn.AvgPool2d(5, 1, 2)
    >>> x = torch.rand(1, 3, 100, 71)
    >>> torch.allclose(tiled(blur, x, tile=32, overlap=4), blur(x), atol=1e-6)
    True
    """
    inputs = _checked(x)
    if not 0 <= overlap < tile or batch < 1:
        raise ValueError(
            "tiled: expected 0 <= overlap < tile and batch >= 1, got "
            f"overlap={overlap}, tile={tile}, batch={batch}"
        )
    images, _, height, width = inputs[0].shape
    places = list(product(_pieces(height, tile, overlap), _pieces(width, tile, overlap)))
    whole: Tensor | None = None
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        cut = [torch.cat([t[..., row.read, column.read] for row, column in some]) for t in inputs]
        out = model(*cut)
        _check_size(out, cut[0])
        if whole is None:
            whole = out.new_empty(images, out.shape[1], height, width)
        for (row, column), piece in zip(some, out.split(images), strict=True):
            whole[..., row.write, column.write] = piece[..., row.keep, column.keep]
    assert whole is not None  # an image has at least one tile
    return whole


@torch.no_grad()
def needed_overlap(model: nn.Module, channels: int | Sequence[int] = 3) -> int:
    """The overlap with which :func:`tiled` gives the result of the whole image.

    One pixel of a black image is set to NaN, and every output that is computed from it becomes NaN,
    whatever the weights are. Twice the largest distance of such an output is the answer. An algorithm
    of convolution that works on blocks may report more than needed, never less; a model that replaces
    NaN hides it.

    Args:
        model: as for :func:`tiled`; runs on the device and in the type of its first parameter.
        channels: of the image, or of every input.

    Returns:
        Pixels, even.

    Raises:
        ValueError: the model looks further than 256 pixels, or keeps not the size.

    >>> needed_overlap(torch.nn.Conv2d(3, 3, 7, padding=3))
    6
    """
    counts = (channels,) if isinstance(channels, int) else tuple(channels)
    like = next(model.parameters(), torch.empty(0))
    for side in _PROBES:
        probes = [like.new_zeros(1, c, side, side) for c in counts]
        middle = side // 2
        for probe in probes:
            probe[..., middle, middle] = torch.nan
        out = model(*probes)
        _check_size(out, probes[0])
        reached = out.isnan().any(1)[0].nonzero() - middle
        radius = int(reached.abs().max()) if len(reached) else 0
        if radius < middle:
            return 2 * radius
    raise ValueError(
        f"needed_overlap: an output depends on inputs {middle} pixels away or more, perhaps on all: "
        "no overlap makes tiles exact"
    )


class _Piece(NamedTuple):
    """Along one side: what a tile reads, which part of the result it writes, and where it has it."""

    read: slice
    write: slice
    keep: slice


def _pieces(side: int, tile: int, overlap: int) -> list[_Piece]:
    if side <= tile:
        return [_Piece(slice(None), slice(None), slice(None))]
    starts = [*range(0, side - tile, tile - overlap), side - tile]
    # The overlap of neighbours is cut in its middle.
    cuts = [0, *((a + tile + b) // 2 for a, b in zip(starts, starts[1:], strict=False)), side]
    return [
        _Piece(slice(start, start + tile), slice(low, high), slice(low - start, high - start))
        for start, low, high in zip(starts, cuts, cuts[1:], strict=False)
    ]


def _checked(x: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    inputs = (x,) if isinstance(x, Tensor) else tuple(x)
    shapes = [tuple(t.shape) for t in inputs]
    if not shapes or any(len(s) != 4 or 0 in s for s in shapes):
        raise ValueError(f"tiled: expected images (B, C, H, W), got shapes {shapes}")
    if len({(s[0], *s[2:]) for s in shapes}) > 1:
        raise ValueError(f"tiled: expected inputs of one B, H and W, got shapes {shapes}")
    return inputs


def _check_size(out: Tensor, tiles: Tensor) -> None:
    if not isinstance(out, Tensor):
        raise TypeError(f"expected a model that returns one tensor, got {type(out).__name__}")
    if out.ndim != 4 or out.shape[0] != tiles.shape[0] or out.shape[-2:] != tiles.shape[-2:]:
        raise ValueError(
            f"expected a model that keeps the size, got {tuple(out.shape)} for tiles of "
            f"{tuple(tiles.shape)}"
        )
