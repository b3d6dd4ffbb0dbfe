"""What is measured at one call of one layer: the residual's size, the power, the share of copies."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor

from ..symmetry.actions import act, quarter_turns, valid_mask
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element
from .inputs import IMAGE_DIMS
from .parts import field_means, invariant_share
from .residual import Moves, mean_squares, residual


@dataclass(frozen=True)
class Comparison:
    """What one call of one layer yields: 0-d tensors, detached but for ``error`` (and a scale-free power)."""

    error: Tensor  # mean square of act(f(x)) - f(act(x)), or its 2-norm
    power: Tensor  # mean square of f(x)
    invariant_share: Tensor | None  # None if not asked for, or if the field has no regular part


@dataclass(frozen=True)
class How:
    """What is measured of each layer.

    Attributes:
        squared: error as mean square, else as 2-norm of the whole half batch.
        center: take the power about each field's mean.
        scale_free: keep the graph of the power.
        shares: measure the invariant share too.
        step: compare every so-many-th pixel in both directions, from a place that ``places`` draws for each
            layer; the error is then an unbiased estimate of that over all pixels.
        places: where the places are drawn from.
    """

    squared: bool = True
    center: bool = False
    scale_free: bool = False
    shares: bool = False
    step: int = 1
    places: Random = field(default_factory=Random)


MEAN_SQUARES = How()


@dataclass(frozen=True)
class Open:
    """A comparison whose mean square is taken after the pass, together with those of all layers."""

    error: Tensor  # the residual if a number of values is given, else the number
    values: float | None  # what the squares are divided by
    power: Tensor
    invariant_share: Tensor | None


def closed(found: Mapping[str, Open]) -> dict[str, Comparison]:
    """The comparisons, with one reduction for all residuals that were kept."""
    kept = {name: o for name, o in found.items() if o.values is not None}
    errors = {}
    if kept:
        means = mean_squares([o.error for o in kept.values()])
        for (name, o), mean in zip(kept.items(), means, strict=True):
            assert o.values is not None
            part = o.error.numel() / o.values
            errors[name] = mean if part == 1 else mean * part
    return {
        name: Comparison(errors.get(name, o.error), o.power, o.invariant_share)
        for name, o in found.items()
    }


def compare(
    name: str, z: Any, field: FieldType, g: Element, batch: int, pairs: int, how: How
) -> Open:
    """Compare the first ``pairs`` rows of features, moved by ``g``, with the rows behind ``batch``.

    Raises:
        ValueError: if the features do not fit the field, the batch or the turn.
    """
    if not isinstance(z, Tensor) or z.ndim != IMAGE_DIMS or z.shape[0] != batch + pairs:
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"layer {name!r}: expected features ({batch + pairs}, C, H, W) for {batch} images and {pairs} "
            f"turned ones, got {got}; leave it out with layers="
        )
    if z.shape[1] != field.channels:
        raise ValueError(
            f"layer {name!r} put out {z.shape[1]} channels, but its field {field!r} has {field.channels}"
        )
    turns = quarter_turns(g, field.group)
    if (turns or 0) % 2 and z.shape[-1] != z.shape[-2]:
        raise ValueError(
            f"layer {name!r} put out features of {z.shape[-2]} x {z.shape[-1]}: a part of a square image, of "
            "which the turned image has another in this place; leave it out with layers="
        )
    if (
        turns is None
        or how.scale_free
        or not z.is_floating_point()
        or torch.compiler.is_compiling()
    ):
        return _written_out(z, field, g, batch, pairs, how)
    return _by_slices(z, field, g, batch, pairs, how)


def _by_slices(z: Tensor, field: FieldType, g: Element, batch: int, pairs: int, how: How) -> Open:
    step = min(how.step, *z.shape[-2:])
    offset = (0, 0) if step == 1 else (how.places.randrange(step), how.places.randrange(step))
    rest = residual(z, Moves(field, g, batch, pairs, step, offset))
    with torch.no_grad():
        # An exact turn only reorders the numbers: the power of the features is that of the moved ones.
        upright = z.detach()[:pairs]
        wide = upright.to(torch.promote_types(z.dtype, torch.float32))
        power = _mean_square(wide - field_means(wide, field) if how.center else wide)
        share = invariant_share(wide, field) if how.shares else None
    values = float(upright.numel()) / step**2
    if not how.squared:
        with _saving_outside_checkpoints():
            return Open(torch.linalg.vector_norm(rest), None, power, share)
    if rest.requires_grad:
        return Open(rest, values, power, share)
    return Open(_mean_square(rest) * (rest.numel() / values), None, power, share)


def _written_out(z: Tensor, field: FieldType, g: Element, batch: int, pairs: int, how: How) -> Open:
    """By the formula: for turns that interpolate, for what a compiler fuses, for a power with a graph."""
    # Everything happens inside the hook, on copies: what follows may overwrite z in place.
    # In half precision squares over- and underflow, and a long mean loses its small terms.
    wide = torch.promote_types(z.dtype, torch.float32)
    with _saving_outside_checkpoints():
        # split, not slices: its backward is one concatenation instead of two zero-padded copies.
        upright, _, turned = z.split([pairs, batch - pairs, pairs])
        moved = act(upright.to(wide), g, field)
        rest = moved - turned.to(wide)
        if quarter_turns(g, field.group) is None:
            h, w = z.shape[-2:]
            mask = valid_mask((h, w), g, field.group, device=z.device)
            rest, moved = rest[..., mask][..., None], moved[..., mask][..., None]
        error = _mean_square(rest) if how.squared else torch.linalg.vector_norm(rest)
        with torch.set_grad_enabled(how.scale_free and torch.is_grad_enabled()):
            power = _mean_square(moved - field_means(moved, field) if how.center else moved)
    with torch.no_grad():
        return Open(error, None, power, invariant_share(moved, field) if how.shares else None)


def _saving_outside_checkpoints() -> AbstractContextManager[Any]:
    """Keep what the comparison saves for backward out of the reach of activation checkpointing.

    A checkpoint recomputes its segment after the hooks are gone and would miss our tensors. Detached,
    because an operation that saves its own output would hold itself, and a graph that is not
    back-propagated would stay for ever; torch puts the history back when it unpacks.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda t: t)


def _mean_square(z: Tensor) -> Tensor:
    # By the norm: a fused kernel, three times faster forward and backward than square().mean().
    return torch.linalg.vector_norm(z).square() / z.numel()
