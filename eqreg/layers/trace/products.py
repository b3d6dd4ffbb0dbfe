"""Products: linear layers, whose weights are tied, and products of two features."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from .action import Maps, digest, is_permutation, outer
from .demand import axis_of, complete
from .propose import propose
from .state import Conflict, Constant, Demand, Param, State
from .tables import turned_table
from .tape import Node
from .values import Value, match, mix


def choice(state: State, node: Node, default: Maps) -> Maps:
    """How the output channels move: as demanded, else as a sister layer came to, else the default."""
    wanted = state.wanted.get(node.index)
    if wanted is None and (habit := state.habits.get(state.kind(node))):
        default = habit
    if wanted is not None:
        full = [complete(state, w, g) for g, w in enumerate(wanted)]
        default = tuple(d if f is None else f for f, d in zip(full, default, strict=True))
    state.chosen[node.index] = default
    return default


def linear(state: State, node: Node) -> bool:
    """A product with a parameter, from either side; False if it is not one."""
    axis = axis_of(state, node)
    if axis is None:
        return False
    right = isinstance(state.known[node.ins[-1]], Param)
    at, weight_at = (-2, -1) if right else (-1, -2)
    weight = state.known[node.ins[weight_at]]
    assert isinstance(weight, Param)
    parts = []
    for part in weight.parts:
        if part.ndim == 3:
            if not bool((part == part[:1]).all()):
                return False
            part = part[0]
        parts.append(part if right else part.t())
    known = state.known[node.ins[at]]
    table = turned_table(state, known.value) if right and isinstance(known, Constant) else None
    x = state.data(node.ins[at])
    turn = (lambda t: t) if right else (lambda t: t.transpose(-1, -2))
    if table is not None:
        out = _table_rows(state, node, table, tuple(parts), x.shape)
    else:
        x = Value(turn(x.ids), tuple(map(turn, x.moved)))
        out = rows(state, node, x, tuple(parts), node.ins[at])
    if len(node.ins) == 3:
        bias = state.known[node.ins[0]]
        if isinstance(bias, Param) and bias.shape[-1] == out.shape[-1]:
            if torch.Size(bias.shape).numel() == out.shape[-1]:
                state.tie(bias, state.chosen[node.index])
            elif (maps := state.location(out)) is not None:
                state.tie(Param(tuple(p.expand(out.shape) for p in bias.parts)), maps)
        elif isinstance(bias, Param) or not isinstance(bias, Constant):
            return False
    state.put(
        node, [Value(turn(out.ids), tuple(map(turn, out.moved)), out.source if right else None)]
    )
    return True


def rows(state: State, node: Node, x: Value, weights: tuple[Tensor, ...], t: int) -> Value:
    """``x @ w`` for numbers (..., I) and entries (I, O): rows go to rows, columns are permuted."""
    inputs, outputs = weights[0].shape
    flat = Value(x.ids.reshape(-1, inputs), tuple(m.reshape(-1, inputs) for m in x.moved))
    if state.numbers.distinct(flat):
        state.numbers.lookup(flat)
    columns, keys = _columns(state, flat)
    if columns is None:
        raise Conflict(
            node,
            f"tokens and the {inputs} channels do not turn apart from each other",
            propose(state, t),
        )
    po = choice(state, node, state.action.regular(outputs))

    def pairs() -> Maps:
        return tuple(outer([c, o]) for c, o in zip(columns, po, strict=True))

    state.tie(Param(weights), pairs, key=("rows", digest(columns, po)), factors=(columns, po))
    up, *turned = keys
    source = [match(up, k) for k in turned]
    if len(up.unique()) == len(up) and all(s is not None for s in source):
        maps = tuple(outer([s, o]) for s, o in zip(source, po, strict=True) if s is not None)
        return state.numbers.fresh(maps, (*x.shape[:-1], outputs))
    _, inverse = torch.cat(keys).unique(return_inverse=True)
    base, state.numbers.next = state.numbers.next, state.numbers.next + len(_) * outputs
    up, *turned = (base + part[:, None] * outputs for part in inverse.chunk(len(keys)))
    shape = (*x.shape[:-1], outputs)
    ids = (up + torch.arange(outputs)).view(shape)
    return Value(ids, tuple((k + o).view(shape) for k, o in zip(turned, po, strict=True)))


def _table_rows(
    state: State, node: Node, table: tuple[Maps, list[Tensor], list[Tensor]], weights: tuple[Tensor, ...],
    shape: tuple[int, ...],
) -> Value:  # fmt: skip
    """``table @ w``: rows turn with the grid, columns are permuted; the weight is tied with signs."""
    grid, reads, signs = table
    outputs = weights[0].shape[1]
    po = choice(state, node, state.action.regular(outputs))
    maps = tuple(outer([c, o]) for c, o in zip(reads, po, strict=True))
    state.tie(Param(weights), maps, tuple(s.repeat_interleave(outputs) for s in signs))
    moved = tuple(outer([r, o]) for r, o in zip(grid, po, strict=True))
    return state.numbers.fresh(moved, (*shape[:-1], outputs))


def _columns(state: State, flat: Value) -> tuple[Maps | None, list[Tensor]]:
    """How the columns of a matrix move if its rows move as wholes, with a key for each row of each run."""
    m, n = flat.shape
    salt = mix(torch.arange(n), 7) | 1
    hashed = mix(flat.ids)
    up = (hashed * salt).sum(1)
    votes = state.numbers.votes(flat, (m, n))[1]
    found, keys = [], [up]
    for g, moved in enumerate(flat.moved):
        turned = mix(moved)
        for p in (votes[g], match(hashed.sum(0), turned.sum(0))):
            if p is None or not is_permutation(p):
                continue
            key = (turned * salt[p]).sum(1)
            if bool(torch.isin(key, up).all()):
                found.append(p)
                keys.append(key)
                break
        else:
            return None, keys
    return tuple(found), keys


def bilinear(state: State, node: Node) -> None:
    """``a @ b`` of two features: equal where sums of products of equal numbers are."""
    a, b = (state.data(t) for t in node.ins[-2:])
    exact = 20 if a.shape[-1] <= 1 << 13 else 16  # sums of products stay below 2^53

    def drawn(ids: Tensor, salt: int) -> Tensor:
        return (mix(ids, salt) & ((1 << exact) - 1)).double()

    keys = []
    for u, v in zip((a.ids, *a.moved), (b.ids, *b.moved), strict=True):
        first, second = (torch.matmul(drawn(u, s), drawn(v, s + 10)).long() for s in (1, 2))
        keys.append(first + mix(second))
    left, right = (state.numbers.votes(v, v.shape) for v in (a, b))
    lead = left[:-1]
    guess = None
    if all(is_permutation(m) for maps in (*lead, right[-1]) for m in maps):
        guess = tuple(outer(list(p)) for p in zip(*lead, right[-1], strict=True))
    out = state.numbers.settle(keys, guess)
    if not state.numbers.closed(out):
        raise Conflict(
            node, f"the factors {a.shape} and {b.shape} do not turn alike along what is summed",
            _factors(state, node, a, b, left, right), "head widths that hold whole fields, or fewer heads",
        )  # fmt: skip
    state.put(node, [out])


def _factors(
    state: State, node: Node, a: Value, b: Value, left: list[Maps], right: list[Maps]
) -> Iterator[Demand]:
    """Common actions on the summed dimension and on the batch; the rest as it is."""

    def options(n: int, *votes: Maps, regular: bool = True) -> list[Maps]:
        found = [v for v in votes if state.action.obeys(v)]
        return [*found, *([state.action.regular(n)] if regular else []), state.action.trivial(n)]

    summed = options(a.shape[-1], left[-1], right[-2])
    batches = options(a.shape[0], left[0], right[0], regular=False) if len(a.shape) > 2 else [None]
    ends = options(b.shape[-1], right[-1])
    starts = options(a.shape[-2], left[-2], regular=False)
    for end, batch, k in product(ends, batches, summed):
        lead = [] if batch is None else [batch]
        yield [
            (node.ins[-2], tuple(outer(list(p)) for p in zip(*lead, starts[0], k, strict=True))),
            (node.ins[-1], tuple(outer(list(p)) for p in zip(*lead, k, end, strict=True))),
        ]
