"""Operations that move entries, run on integers instead of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .state import Conflict, Constant, Param, State
from .tape import Node, Ref
from .values import Value

# Operations that move entries, with the arguments that hold data (the rest are sizes and indices).
_FIRST = """view _unsafe_view reshape _reshape_alias permute transpose t expand slice select roll clone _to_copy
    constant_pad_nd pixel_shuffle pixel_unshuffle split split_with_sizes unbind chunk index alias detach
    unsqueeze squeeze contiguous repeat flip unfold im2col reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d upsample_nearest2d _upsample_nearest_exact2d as_strided index_select
    gather rot90 lift_fresh channel_shuffle native_channel_shuffle narrow diagonal take embedding masked_fill
    reread repeat_interleave unsafe_split unsafe_chunk view_copy cat stack"""
_FIRST_TWO = "copy slice_scatter select_scatter diagonal_scatter as_strided_scatter overwrite"
MOVES: dict[str, tuple[int, ...]] = {
    **{name: (0,) for name in _FIRST.split()},
    **{name: (0, 1) for name in _FIRST_TWO.split()},
    "index_put": (0, 2),
}
# What keeps the order of all entries of its one tensor.
SAME_ORDER = set(
    """view _unsafe_view reshape _reshape_alias view_copy clone _to_copy alias detach unsqueeze squeeze contiguous
    lift_fresh""".split()
)
_VIEWS = ("view", "_unsafe_view", "_reshape_alias")
_FILL = {"constant_pad_nd": 2, "masked_fill": 2}  # arguments that are values, not sizes
_POINTWISE = set("prelu _prelu_kernel native_dropout where lerp addcmul addcdiv".split())


def is_pointwise(node: Node) -> bool:
    """Whether each entry of the result depends on the entries of the inputs at its place alone."""
    tags = getattr(node.func, "tags", ())
    return node.name in _POINTWISE or torch.Tag.pointwise in tags


def spreads(state: State, node: Node) -> bool:
    """Whether a parameter outgrows all that it meets (``sigma * scale[:, None, None]``): it may move in any way."""
    shape = state.tape.shapes[next(o for o in node.outs if o is not None)]
    known = {t: state.known.get(t) for t in node.ins}
    data = [t for t, k in known.items() if not isinstance(k, Param | Constant)]
    full = torch.Size(shape).numel()
    return bool(data) and all(torch.Size(state.tape.shapes[t]).numel() < full for t in data) and any(
        isinstance(k, Param) and not k.plain for k in known.values()
    )  # fmt: skip


def moved(
    state: State,
    node: Node,
    entries: Callable[[int], Tensor | None],
    fill: int,
    turn: int | None = None,
) -> list[Tensor]:
    """Run a movement on integers; ``entries`` gives them for tensors of data, None for a real argument.

    Masks that depend on the data are those of the recorded run, turned by the generator ``turn``.
    """
    places = set()
    for i in MOVES[node.name]:
        if i < len(node.args):
            places |= {r.index for r in tree_leaves(node.args[i]) if isinstance(r, Ref)}

    def run(dtype: torch.dtype) -> list[Tensor]:
        def value(a: Any) -> Any:
            if not isinstance(a, Ref):
                return a
            if a.index in places and (e := entries(a.index)) is not None:
                return e.to(dtype)
            known = state.known.get(a.index)
            if isinstance(known, Value) and (mask := state.tape.masks.get(a.index)) is not None:
                at = None if turn is None else state.numbers.lookup(known)[turn]
                if at is None or int(at.min()) >= 0:
                    return mask if at is None else mask.reshape(-1)[at].view(mask.shape)
            if not isinstance(known, Constant):
                raise Conflict(node, "an index depends on the data", iter(()))
            return known.value

        args, kwargs = tree_map(value, (node.args, node.kwargs))
        if (at := _FILL.get(node.name)) is not None:
            args = (*args[:at], fill, *args[at + 1 :])
        kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "memory_format", "layout")}
        if node.name in _VIEWS:  # numbers lie in memory in their own order
            return [args[0].reshape(args[1])]
        return [o.long() for o in tree_leaves(node.func(*args, **kwargs))]

    try:
        return run(torch.int64)
    except (RuntimeError, NotImplementedError):
        return run(torch.float64)  # some kernels know no integers; 2^53 is enough


def fill_of(node: Node) -> float | None:
    """The value that a movement writes besides its data."""
    at = _FILL.get(node.name)
    if at is None:
        return None
    given = node.args[at] if at < len(node.args) else 0.0
    return float(given) if isinstance(given, int | float) else 0.0
