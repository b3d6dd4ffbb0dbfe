"""What is measured at one call of one layer: the residual's size, the power, the share of copies."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from ..symmetry.actions import act, quarter_turns, valid_mask
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element
from .inputs import IMAGE_DIMS
from .parts import field_means, invariant_share
from .residual import Moves, compared, counts, move_of


@dataclass(frozen=True)
class Comparisons:
    """What one pass yields for the calls of the compared layers, in their order."""

    errors: Tensor  # (L,), mean squares of act(f(x)) - f(act(x)), or their 2-norms
    powers: Tensor  # (L,), mean squares of f(x), detached but for a scale-free comparison
    names: tuple[str, ...]
    shares: dict[
        str, Tensor
    ]  # invariant shares, where asked for and where the field has a regular part
    detached: tuple[str, ...]  # of which no error has a graph

    def relative(self, powers: Tensor | None = None) -> Tensor:
        """Errors over powers, or over those given: (L,)."""
        powers = self.powers if powers is None else powers
        return self.errors / powers.clamp_min(torch.finfo(powers.dtype).tiny)


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


@dataclass(frozen=True, slots=True)
class Open:
    """One layer's part of :class:`Comparisons`, with the 2-norm of its features instead of their mean square."""

    error: Tensor
    norm: Tensor
    values: float
    share: Tensor | None = None


def together(found: Mapping[str, Open]) -> Comparisons:
    """The comparisons of all layers, by few operations on all of them."""
    norms = torch.stack([o.norm for o in found.values()])
    values = tuple(o.values for o in found.values())
    return Comparisons(
        torch.stack([o.error for o in found.values()]),
        norms.square() / counts(values, norms.device, norms.dtype),
        tuple(found),
        {name: o.share for name, o in found.items() if o.share is not None},
        tuple(name for name, o in found.items() if not o.error.requires_grad),
    )


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
    move = move_of(field, g)
    if z.shape[1] != move.channels:
        raise ValueError(
            f"layer {name!r} put out {z.shape[1]} channels, but its field {field!r} has {move.channels}"
        )
    if move.turns and move.turns % 2 and z.shape[-1] != z.shape[-2]:
        raise ValueError(
            f"layer {name!r} put out features of {z.shape[-2]} x {z.shape[-1]}: a part of a square image, of "
            "which the turned image has another in this place; leave it out with layers="
        )
    if (
        move.turns is None
        or how.scale_free
        or not z.is_floating_point()
        or torch.compiler.is_compiling()
    ):
        return _written_out(z, field, g, batch, pairs, how)
    return _by_moves(z, Moves(move, batch, pairs), how)


def _by_moves(z: Tensor, moves: Moves, how: How) -> Open:
    if (step := min(how.step, *z.shape[-2:])) > 1:
        offset = how.places.randrange(step), how.places.randrange(step)
        moves = replace(moves, step=step, offset=offset)
    pairs, field = moves.pairs, moves.move.field
    # An exact turn only reorders the numbers: the power of the features is that of the moved ones.
    error, rest, norm = compared(z, moves)
    share = None
    if how.center or how.shares:
        with torch.no_grad():
            upright = z.narrow(0, 0, pairs).to(torch.promote_types(z.dtype, torch.float32))
            if how.center:
                norm = torch.linalg.vector_norm(upright - field_means(upright, field))
            if how.shares:
                share = invariant_share(upright, field)
    if not how.squared:
        with _saving_outside_checkpoints():
            error = torch.linalg.vector_norm(rest)
    return Open(error, norm, float(z.numel() // len(z) * pairs), share)


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
        # By the norm: a fused kernel, three times faster forward and backward than square().mean().
        error = torch.linalg.vector_norm(rest)
        if how.squared:
            error = error.square() / rest.numel()
        with torch.set_grad_enabled(how.scale_free and torch.is_grad_enabled()):
            about = moved - field_means(moved, field) if how.center else moved
            power = torch.linalg.vector_norm(about)
    with torch.no_grad():
        share = invariant_share(moved, field) if how.shares else None
    return Open(error, power, float(about.numel()), share)


def _saving_outside_checkpoints() -> AbstractContextManager[Any]:
    """Keep what the comparison saves for backward out of the reach of activation checkpointing.

    A checkpoint recomputes its segment after the hooks are gone and would miss our tensors. Detached,
    because an operation that saves its own output would hold itself, and a graph that is not
    back-propagated would stay for ever; torch puts the history back when it unpacks.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda t: t)
