"""Normalisation and softmax: an entry depends on itself and on the set of its row; affine parameters follow."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .action import Maps
from .propose import propose, whole_groups
from .state import Conflict, Constant, Demand, Param, State
from .tape import Node
from .values import Value, mix

ROWS = set(
    "_softmax _safe_softmax softmax _log_softmax native_layer_norm native_group_norm".split()
)
BATCH_NORMS = set(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training batch_norm".split()
)


def along(vector: Tensor, shape: tuple[int, ...], channel: bool) -> Tensor:
    """Entries of an affine parameter over a tensor: along dimension 1, or the last ones."""
    if channel and vector.ndim == 1:
        vector = vector.view(1, -1, *[1] * (len(shape) - 2))
    return vector.expand(shape)


def joined(state: State, values: list[Value]) -> Value:
    """New numbers for a function of several values at the same place."""
    numbers = state.numbers
    lead = next((v for v in values if numbers.closed(v) and v.source is not None), None)
    guess = lead.source if lead is not None else None
    if guess is not None and len(values) == 1:
        return numbers.fresh(guess, values[0].shape)
    keys = [
        sum((mix(part, i) for i, part in enumerate(parts)), torch.zeros((), dtype=torch.long))
        for parts in zip(*([v.ids, *v.moved] for v in values), strict=True)
    ]
    return numbers.settle(keys, guess)


def affine(state: State, node: Node, out: Value, params: list[Param]) -> Value:
    """Let parameters that are read place by place move as ``out`` does, or as demanded where ``out`` lets them."""
    if not params:
        return out
    maps = _wished(state, node, out) or state.location(out)
    if maps is None:
        raise Conflict(
            node,
            "a parameter meets values that repeat in a pattern",
            propose(state, node.outs[0], out),
        )
    for param in params:
        state.tie(param, maps)
    return state.numbers.fresh(maps, out.shape)


def _wished(state: State, node: Node, out: Value) -> Maps | None:
    """How an operation's result was asked to move, if the numbers in it can."""
    wish = state.bare.get(node.outs[0]) if node.outs[0] is not None else None
    flat = out.ids.reshape(-1)
    if wish is None or not state.action.obeys(wish):
        return None
    fits = all(bool((flat[m] == k.reshape(-1)).all()) for m, k in zip(wish, out.moved, strict=True))
    return wish if fits else None


def norm(state: State, node: Node) -> None:
    """A norm over rows of its input, or by running statistics, or a softmax."""
    x = state.data(node.ins[0])
    shape, rest = x.shape, [state.known[t] for t in node.ins[1:]]
    channel = node.name != "native_layer_norm"
    if node.name in BATCH_NORMS and not _by_statistics(node):
        out = joined(state, [x])
    else:
        view, dims = _rows(node, shape)

        def key(ids: Tensor) -> Tensor:
            e = mix(ids).reshape(view)
            return mix(e + mix(e.sum(dims, keepdim=True), 1)).view(shape)

        guess = x.source if state.numbers.closed(x) else None
        out = state.numbers.settle([key(x.ids), *map(key, x.moved)], guess)
    if not state.numbers.closed(out):
        raise Conflict(
            node, f"it normalises over parts of {shape} that a turn does not keep together",
            _proposals(state, node),
            "let each group of the norm hold whole fields",
        )  # fmt: skip
    params = [
        Param(tuple(along(q, shape, channel) for q in p.parts))
        for p in rest
        if isinstance(p, Param) and not p.plain
    ]
    fixed = [p for p in rest if isinstance(p, Constant) and p.value.numel() > 1]
    if fixed:
        spread = [Constant(along(p.value, shape, channel)) for p in fixed]
        values = [state.numbers.constant(c.value) for c in spread]
        out = joined(state, [out, *(Value(i, (i,) * len(out.moved)) for i in values)])
        if not state.numbers.closed(out):
            raise Conflict(node, "fixed scales differ within a field", propose(state, node.ins[0]))
    state.put(node, [affine(state, node, out, params)])


def _by_statistics(node: Node) -> bool:
    """Whether a batch norm measures its input: instance norms, and training."""
    return node.name != "_native_batch_norm_legit_no_training" and bool(
        next((a for a in node.args[3:] if isinstance(a, bool)), False)
    )


def _rows(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How to see a tensor, and the dimensions over which an operation normalises then."""
    if node.name == "native_layer_norm":
        return shape, tuple(range(len(shape) - len(node.args[1]), len(shape)))
    if node.name == "native_group_norm":
        return (shape[0], node.args[6], -1), (2,)
    if node.name in BATCH_NORMS:
        return shape, (0, *range(2, len(shape)))
    return shape, (node.args[1],)


def _proposals(state: State, node: Node) -> Iterator[Demand]:
    """Whole groups of a group norm may change places; else as for any tensor."""
    if node.name == "native_group_norm":
        yield from whole_groups(state, node.ins[0], node.args[6])
    yield from propose(state, node.ins[0])
