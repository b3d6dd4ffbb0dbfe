"""Large images in overlapping tiles, with the result of the whole image.

A convolutional network computes a pixel from the pixels at most ``r`` away, its receptive radius. So
a tile gives the right result everywhere but in a band of width ``r`` along the edges that the image
does not have. Tiles that overlap by ``2 r`` have enough to spare: each overlap is cut in the middle.

Strides and windows of attention treat places alike only if they lie a multiple of some period apart (8
pixels, for windows of 8). Then tiles have to start at multiples of it, or their windows are others.

Taught in: notebooks/13b_rain_unfolding.ipynb
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, product
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..typed import typed

_SIDES = (64, 128, 256, 512)
_LONGEST_PERIOD = 64


@typed
@torch.no_grad()
def tiled(
    model: Callable[..., Tensor],
    x: Tensor | Sequence[Tensor],
    tile: int = 256,
    overlap: int = 64,
    *,
    period: int = 1,
    batch: int = 1,
) -> Tensor:
    """Apply a network to an image in tiles, so that the memory it needs is that of a tile.

    The result is that of ``model(x)``, up to rounding and also along the borders of the image, if the
    model keeps the size, treats places alike that lie ``period`` pixels apart (1 without strides and
    windows; see :func:`needed_period`), and ``overlap`` is at least twice its receptive radius: see
    :func:`needed_overlap`. With less, or another period, seams show. No gradient is recorded; whether the
    model is in train or eval mode is the caller's affair.

    Args:
        model: called with tiles (b, C, h, w) of every input; returns one tensor (b, C', h, w).
        x: images (B, C, H, W), or several inputs of equal B, H and W, given in this order to the model.
        tile: side of a tile in pixels, overlaps included. A shorter side of the image is taken whole.
        overlap: pixels that neighbouring tiles share, less than ``tile``; the last two of a row may
            share more.
        period: tiles start at multiples of it, and ``tile`` must be one. The last tile of a row may be shorter.
        batch: tiles of one size to run at once.

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
    if period < 1 or tile % period or tile - overlap < period:
        raise ValueError(
            "tiled: expected period >= 1, a tile that is a multiple of it, and at most tile - period overlap, got "
            f"period={period}, tile={tile}, overlap={overlap}"
        )
    images, _, height, width = inputs[0].shape
    rows, columns = (_pieces(side, tile, overlap, period) for side in (height, width))
    whole: Tensor | None = None
    for some in _batches(list(product(rows, columns)), batch):
        cut = [torch.cat([t[..., row.read, column.read] for row, column in some]) for t in inputs]
        out = model(*cut)
        _check_size(out, cut[0])
        if whole is None:
            whole = out.new_empty(images, out.shape[1], height, width)
        for (row, column), piece in zip(some, out.split(images), strict=True):
            whole[..., row.write, column.write] = piece[..., row.keep, column.keep]
    assert whole is not None  # an image has at least one tile
    return whole


@typed
def needed_overlap(model: nn.Module, channels: int | Sequence[int] = 3) -> int:
    """The overlap with which :func:`tiled` gives the result of the whole image.

    One pixel of a black image is set to NaN, and every output that is computed from it becomes NaN,
    whatever the weights are. Twice the largest distance of such an output, over all places of a pixel in a
    period, is the answer. An algorithm of convolution that works on blocks may report more than needed,
    never less; a model that replaces NaN hides it.

    Args:
        model: as for :func:`tiled`; runs on the device and in the type of its first parameter.
        channels: of the image, or of every input.

    Returns:
        Pixels, even. Where :func:`needed_period` is not 1, the tiles must be given that as well, and a
        warning says so.

    Raises:
        ValueError: the model looks further than 256 pixels, keeps not the size, or has no period up to 64.

    >>> needed_overlap(torch.nn.Conv2d(3, 3, 7, padding=3))
    6
    """
    radius, period = _radius_and_period(model, channels)
    if period > 1:
        warnings.warn(
            f"the model treats places alike only if they lie {period} pixels apart: give tiled(..., "
            f"period={period}), and a tile that is a multiple of {period}",
            UserWarning,
            stacklevel=2,
        )
    return 2 * radius


@typed
def needed_period(model: nn.Module, channels: int | Sequence[int] = 3) -> int:
    """By how many pixels an image may be shifted so that the result is shifted alike: 1 without strides.

    Measured: noise, and the same noise shifted, away from the borders of the image.

    Args:
        model, channels: as for :func:`needed_overlap`.

    Returns:
        Pixels: the product of the strides, or what strides and windows have in common, for example.

    Raises:
        ValueError: as for :func:`needed_overlap`.

    >>> needed_period(torch.nn.Sequential(torch.nn.MaxPool2d(2), torch.nn.Upsample(scale_factor=2)))
    2
    """
    return _radius_and_period(model, channels)[1]


@torch.no_grad()
def _radius_and_period(model: nn.Module, channels: int | Sequence[int]) -> tuple[int, int]:
    counts = (channels,) if isinstance(channels, int) else tuple(channels)
    like = next(model.parameters(), torch.empty(0))
    near = False  # whether a pixel was seen that only its surroundings depend on
    for side in _SIDES:
        middle = side // 2
        radius = _radius(model, counts, like, side, middle)
        if radius >= middle:
            continue
        near = True
        period = _period(model, counts, like, side, radius)
        if period is None:
            continue
        places = range(middle, middle + period)
        radius = max(radius, *(_radius(model, counts, like, side, i) for i in places))
        if radius + period <= middle:
            return radius, period
    if near:
        raise ValueError(
            f"needed_overlap: the model treats places alike at no distance up to {_LONGEST_PERIOD} pixels (does it "
            "know positions, or draw random numbers?): no tiles are exact"
        )
    raise ValueError(
        f"needed_overlap: an output depends on inputs {middle} pixels away or more, perhaps on all: "
        "no overlap makes tiles exact"
    )


def _radius(model: nn.Module, counts: tuple[int, ...], like: Tensor, side: int, place: int) -> int:
    """How far away from one pixel there are outputs that depend on it."""
    probes = [like.new_zeros(1, c, side, side) for c in counts]
    for probe in probes:
        probe[..., place, place] = torch.nan
    out = model(*probes)
    _check_size(out, probes[0])
    reached = out.isnan().any(1)[0].nonzero() - place
    return int(reached.abs().max()) if len(reached) else 0


def _period(
    model: nn.Module, counts: tuple[int, ...], like: Tensor, side: int, radius: int
) -> int | None:
    """The smallest shift, up to what fits into the image, that the model passes on."""
    generator = torch.Generator().manual_seed(0)
    long = side + _LONGEST_PERIOD
    noise = [torch.rand(1, c, long, long, generator=generator).to(like) for c in counts]
    y = model(*(t[..., :side, :side] for t in noise))
    for shift in range(1, _LONGEST_PERIOD + 1):
        # Another place in a window may look further, by less than the window.
        border = radius + shift
        if side <= 2 * border + shift:
            return None
        end = slice(shift, shift + side)
        moved = model(*(t[..., end, end] for t in noise))
        inner, same = slice(border + shift, side - border), slice(border, side - border - shift)
        difference = (y[..., inner, inner] - moved[..., same, same]).abs().max()
        # Rounding: 1e-4 of the largest value in single precision.
        if difference <= 0.3 * torch.finfo(y.dtype).eps ** 0.5 * y.abs().max():
            return shift
    return None


class _Piece(NamedTuple):
    """Along one side: what a tile reads, which part of the result it writes, and where it has it."""

    read: slice
    write: slice
    keep: slice


def _batches(
    places: list[tuple[_Piece, _Piece]], batch: int
) -> Iterator[list[tuple[_Piece, _Piece]]]:
    def size(place: tuple[_Piece, _Piece]) -> tuple[int, int]:
        return place[0].read.stop - place[0].read.start, place[1].read.stop - place[1].read.start

    for _, group in groupby(sorted(places, key=size), size):
        alike = list(group)
        for first in range(0, len(alike), batch):
            yield alike[first : first + batch]


def _pieces(side: int, tile: int, overlap: int, period: int) -> list[_Piece]:
    if side <= tile:
        return [_Piece(slice(0, side), slice(0, side), slice(0, side))]
    step = (tile - overlap) // period * period
    starts = [*range(0, side - tile, step), ceil((side - tile) / period) * period]
    # The overlap of neighbours is cut in its middle.
    cuts = [0, *((a + tile + b) // 2 for a, b in zip(starts, starts[1:], strict=False)), side]
    return [
        _Piece(
            slice(start, min(start + tile, side)),
            slice(low, high),
            slice(low - start, high - start),
        )
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
