r"""The difference that a penalty is made of, and its mean square, in few passes over memory.

The residual of a layer is linear in its features, :math:`r = A z`: the upright half moved, minus the
turned half. Its derivative is the transpose of :math:`A` and needs nothing of the forward pass, so of a
layer the residual alone is kept for backward. Features move by one gather: in small networks each further
operation would cost more than the numbers it moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from ..symmetry.actions import quarter_turns, rotate
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element
from .reynolds import Indices

_LONGEST = 2**18  # numbers of an index; features of more are moved without
_indices = Indices(64 * 2**20)


@dataclass(frozen=True, eq=False)
class Move:
    """How an element moves a field: by turns of the picture, after a flip or not, and of which channels.

    ``turns`` is None if it is no multiple of 90 degrees.
    """

    field: FieldType
    g: Element
    inverse: Element
    turns: int | None
    channels: int
    source: tuple[int, ...] | None  # where each channel reads; None if all stay

    def turned(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """``act``, without its checks, by multiples of 90 degrees; written to ``out`` (contiguous) if given."""
        rows, channels, h, w = x.shape
        if channels * h * w > _LONGEST:
            if self.source is not None:
                x = x.index_select(1, counts(self.source, x.device, torch.int64))
            moved = torch.rot90(x.flip(-1) if self.g.flip else x, self.turns or 0, (-2, -1))
            return moved if out is None else out.copy_(moved)
        index = _indices((self, h, w, x.device), partial(self._index, h, w, x.device))
        flat = x.reshape(rows, -1)
        if out is None:
            size = (w, h) if (self.turns or 0) % 2 else (h, w)
            return flat.index_select(1, index).view(rows, channels, *size)
        torch.index_select(flat, 1, index, out=out.view(rows, -1))
        return out

    def _index(self, h: int, w: int, device: torch.device) -> Tensor:
        """Where moved features read, channels and places at once."""
        places = rotate(torch.arange(h * w).view(h, w), self.g, self.field.group).flatten()
        source = torch.tensor(self.source or tuple(range(self.channels)))
        return (source[:, None] * (h * w) + places).flatten().int().to(device)


@lru_cache(maxsize=1024)
def move_of(field: FieldType, g: Element) -> Move:
    """The move, one object for each field and element."""
    inverse = field.group.inverse(g)
    source = field.permutation(inverse)
    stay = source == tuple(range(len(source)))
    turns = quarter_turns(g, field.group)
    return Move(field, g, inverse, turns, len(source), None if stay else source)


@dataclass(frozen=True)
class Moves:
    """What is compared: the first ``pairs`` rows of ``batch``, moved, with the rows behind ``batch``.

    Of every ``step``-th pixel in both directions from ``offset`` on, and of its image under the element.
    """

    move: Move
    batch: int
    pairs: int
    step: int = 1
    offset: tuple[int, int] = (0, 0)

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
        if self.move.g.flip:
            j = (w - 1 - j) % self.step
        for _ in range((self.move.turns or 0) % 4):
            (i, j), (h, w) = ((w - 1 - j) % self.step, i), (w, h)
        return part[..., i :: self.step, j :: self.step]


def compared(z: Tensor, moves: Moves) -> tuple[Tensor, Tensor, Tensor]:
    """The residual's mean square over all values, the residual, and the 2-norm of the upright half, detached.

    The residual is the moved upright half minus the turned half, in float32 at least: (pairs, C, H, W).
    The element has to be a multiple of 90 degrees, with or without a flip. Where a part of the pixels is
    compared, the mean square is an estimate of that over all.
    """
    # What is saved is kept out of the reach of activation checkpointing, which would miss it when it recomputes
    # the segment without hooks. Detached, since an operation that saves its own output would hold itself, and
    # a graph that is not back-propagated would stay for ever; torch puts the history back when it unpacks.
    with torch.autograd.graph.saved_tensors_hooks(Tensor.detach, _same):
        out: tuple[Tensor, Tensor, Tensor] = _Compared.apply(z, moves)
    return out


def _same(t: Tensor) -> Tensor:
    return t


@lru_cache(maxsize=256)
def counts(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Numbers as a tensor, which reaches a GPU once and not at every step."""
    return torch.tensor(values, device=device, dtype=dtype)


class _Compared(torch.autograd.Function):
    """``z`` to the mean square of A z, A z itself, and the 2-norm of the upright half."""

    # With ctx here, not in setup_context: for that torch would inspect the signature at every call.
    @staticmethod
    def forward(ctx: Any, z: Tensor, moves: Moves) -> tuple[Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.moves, ctx.shape, ctx.dtype = moves, z.shape, z.dtype
        rest = _residual(z, moves)
        upright = z.narrow(0, 0, moves.pairs)
        ctx.scale = 2 * moves.step**2 / upright.numel()
        if z.dtype != rest.dtype:
            upright = upright.to(rest.dtype)
        # By the norm: a fused kernel, three times as fast as square().mean().
        norm, power = torch.linalg.vector_norm(rest), torch.linalg.vector_norm(upright)
        ctx.save_for_backward(rest)
        ctx.mark_non_differentiable(power)
        return norm * norm / (upright.numel() / moves.step**2), rest, power

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, grad_rest: Tensor | None, _: None
    ) -> tuple[Tensor | None, None]:
        if grad is None and grad_rest is None:
            return None, None
        (rest,) = ctx.saved_tensors
        if torch.is_grad_enabled() or grad is None or grad_rest is not None:
            whole = 0.0 if grad is None else rest * (grad * ctx.scale)
            whole = whole if grad_rest is None else whole + grad_rest
            return _Transposed.apply(whole, ctx.moves, ctx.shape, ctx.dtype), None
        return _transposed(rest, ctx.moves, ctx.shape, ctx.dtype, grad * ctx.scale), None


def _residual(z: Tensor, moves: Moves) -> Tensor:
    """A z."""
    moved = moves.move.turned(moves.upright(z))
    wide = torch.promote_types(z.dtype, torch.float32)
    if moved.dtype != wide or not moved.is_contiguous():
        # the difference of half precision numbers, rounded as float32
        moved = torch.empty(moved.shape, dtype=wide, device=z.device).copy_(moved)
    return moved.sub_(moves.turned(z))


def _transposed(
    r: Tensor, moves: Moves, shape: torch.Size, dtype: torch.dtype, scale: Tensor | None = None
) -> Tensor:
    """The transpose of A, of ``scale * r``."""
    inverse = move_of(moves.move.field, moves.move.inverse)
    whole = moves.step == 1 and moves.pairs == moves.batch
    out = (torch.empty if whole else torch.zeros)(shape, dtype=dtype, device=r.device)
    turned, upright = moves.turned(out), moves.upright(out)
    if whole and r.dtype == dtype:
        if scale is None:
            torch.neg(r, out=turned)
        else:
            torch.mul(r, -scale, out=turned)
        inverse.turned(turned, out=upright).neg_()
        return out
    r = r if scale is None else r * scale
    upright.copy_(inverse.turned(r))
    turned.copy_(r.neg())
    return out


class _Transposed(torch.autograd.Function):
    """The transpose of A, to be differentiated: a residual's gradient to that of ``z``."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, moves: Moves, shape: torch.Size, dtype: torch.dtype
    ) -> Tensor:
        ctx.moves = moves
        return _transposed(grad, moves, shape, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return compared(grad, ctx.moves)[1], None, None, None
