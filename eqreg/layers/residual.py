r"""The difference that a penalty is made of, and its mean square, in few passes over memory.

The residual of a layer is linear in its features, :math:`r = A z`: the upright half moved, minus the
turned half. Its derivative is the transpose of :math:`A` and needs nothing of the forward pass, so of a
layer the residual alone is kept for backward. Moving is one copy for the picture; channels are permuted
by slices, while subtracting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..symmetry.actions import quarter_turns
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element


@dataclass(frozen=True)
class Moves:
    """What is compared: the first ``pairs`` rows of ``batch``, moved by ``g``, with the rows behind ``batch``.

    Of every ``step``-th pixel in both directions from ``offset`` on, and of its image under ``g``.
    """

    field: FieldType
    g: Element
    batch: int
    pairs: int
    step: int = 1
    offset: tuple[int, int] = (0, 0)

    @property
    def inverse(self) -> Element:
        """The element that moves back."""
        return self.field.group.inverse(self.g)

    def upright(self, z: Tensor) -> Tensor:
        """The compared pixels of the upright half, a view."""
        part = z.narrow(0, 0, self.pairs)
        i, j = self.offset
        return part if self.step == 1 else part[..., i :: self.step, j :: self.step]

    def turned(self, z: Tensor) -> Tensor:
        """The pixels that ``g`` sends them to, of the turned half, a view."""
        part = z.narrow(0, self.batch, self.pairs)
        if self.step == 1:
            return part
        (i, j), (h, w) = self.offset, z.shape[-2:]
        if self.g.flip:
            j = (w - 1 - j) % self.step
        for _ in range((quarter_turns(self.g, self.field.group) or 0) % 4):
            (i, j), (h, w) = ((w - 1 - j) % self.step, i), (w, h)
        return part[..., i :: self.step, j :: self.step]


def residual(z: Tensor, moves: Moves) -> Tensor:
    """Moved upright half minus turned half, in float32 at least: (pairs, C, H, W).

    ``moves.g`` has to be a multiple of 90 degrees, with or without a flip.
    """
    out: Tensor = _Residual.apply(z, moves)
    return out


def mean_squares(residuals: list[Tensor]) -> tuple[Tensor, ...]:
    """Mean square of each residual, all in one pass."""
    out: tuple[Tensor, ...] = _MeanSquares.apply(*residuals)
    return out


def _turn(x: Tensor, g: Element, turns: int) -> Tensor:
    """``rotate``, without its checks, by multiples of 90 degrees."""
    return torch.rot90(x.flip(-1) if g.flip else x, turns, (-2, -1))


@dataclass(frozen=True)
class _Plan:
    """How an element moves a field.

    ``slices`` are of channels: (first, fields, channels of a field, runs), and of the group axis of these
    fields, the runs: (place to write, place to read, length).
    """

    turns: int
    slices: tuple[tuple[int, int, int, tuple[tuple[int, int, int], ...]], ...]


@lru_cache(maxsize=256)
def _plan(field: FieldType, g: Element) -> _Plan:
    permutation = field.group.permutation(g)
    source = sorted(range(len(permutation)), key=permutation.__getitem__)
    slices: list[tuple[int, int, int, tuple[tuple[int, int, int], ...]]] = []
    start = 0
    for count, kind in field.terms:
        order = source if kind == "r" else [0]
        if order == list(range(len(order))):
            slices.append((start, count * len(order), 1, ((0, 0, 1),)))
        else:
            runs: list[tuple[int, int, int]] = []
            first = 0
            for at in range(1, len(order) + 1):
                if at == len(order) or order[at] != order[at - 1] + 1:
                    runs.append((first, order[first], at - first))
                    first = at
            slices.append((start, count, len(order), tuple(runs)))
        start += count * len(order)
    return _Plan(quarter_turns(g, field.group) or 0, tuple(slices))


def _pieces(plan: _Plan, to: Tensor, *read: tuple[Tensor, bool]) -> Iterator[tuple[Tensor, ...]]:
    """Views of ``to`` and of what is read for each: at the moved place, if the flag says so, or at the same."""
    for start, count, size, runs in plan.slices:
        parts = [to, *(t for t, _ in read)]
        if count * size != to.shape[1]:
            parts = [t.narrow(1, start, count * size) for t in parts]
        if size == 1:
            yield tuple(parts)
            continue
        parts = [t.unflatten(1, (count, size)) for t in parts]
        for at, source, length in runs:
            places = [at, *(source if moved else at for _, moved in read)]
            yield tuple(t.narrow(2, place, length) for t, place in zip(parts, places, strict=True))


class _Residual(torch.autograd.Function):
    """A: ``z`` to the residual."""

    # With ctx here, not in setup_context: for that torch would inspect the signature at every call.
    @staticmethod
    def forward(ctx: Any, z: Tensor, moves: Moves) -> Tensor:
        ctx.moves, ctx.shape, ctx.dtype = moves, z.shape, z.dtype
        plan = _plan(moves.field, moves.g)
        turned = moves.turned(z)
        moved = _turn(moves.upright(z), moves.g, plan.turns)
        wide = torch.promote_types(z.dtype, torch.float32)
        out = torch.empty(turned.shape, dtype=wide, device=z.device)
        for place, mine, other in _pieces(plan, out, (moved, True), (turned, False)):
            if wide == z.dtype:
                torch.sub(mine, other, out=place)
            else:  # the difference of half precision numbers, rounded as float32
                place.copy_(mine).sub_(other)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Transposed.apply(grad, ctx.moves, ctx.shape, ctx.dtype), None


class _Transposed(torch.autograd.Function):
    """The transpose of A: a residual's gradient to that of ``z``."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, moves: Moves, shape: torch.Size, dtype: torch.dtype
    ) -> Tensor:
        ctx.moves = moves
        whole = moves.step == 1 and moves.pairs == moves.batch
        out = (torch.empty if whole else torch.zeros)(shape, dtype=dtype, device=grad.device)
        turned, upright = moves.turned(out), moves.upright(out)
        if grad.dtype == dtype:
            torch.neg(grad, out=turned)
        else:
            turned.copy_(grad).neg_()
        plan = _plan(moves.field, moves.inverse)
        moved = _turn(grad, moves.inverse, plan.turns)
        for place, mine in _pieces(plan, upright, (moved, True)):
            place.copy_(mine)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Residual.apply(grad, ctx.moves), None, None, None


class _MeanSquares(torch.autograd.Function):
    """Means of squares with a derivative of one product each; a number that is not used has none."""

    @staticmethod
    def forward(ctx: Any, *residuals: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*residuals)
        norms = torch._foreach_norm(residuals)
        return tuple(n * n / r.numel() for n, r in zip(norms, residuals, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return tuple(
            r * (g * (2 / r.numel())) if g is not None and needed else None
            for r, g, needed in zip(ctx.saved_tensors, grads, ctx.needs_input_grad, strict=True)
        )
