"""How each kind of operation carries numbers, and which parameters it ties.

Movement of data acts on numbers as on values. Pointwise operations and norms make new numbers from old
ones; a parameter they read gets the action of its partner. The rest is run on random values, equal
where the numbers are equal. Contractions with a parameter are in ``conv`` and ``products``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .action import outer
from .conv import CENTRE, convolution
from .moves import MOVES, fill_of, is_pointwise, moved, spreads
from .norms import BATCH_NORMS, ROWS, affine, along, joined, norm
from .products import bilinear, linear
from .propose import propose
from .state import Break, Conflict, Constant, Demand, Known, Opaque, Param, State
from .tape import Node, Ref
from .values import Value, mix

_MAKERS = ("new_", "zeros", "ones", "empty", "full", "rand", "arange", "scalar_tensor")
_REDUCTIONS = set("mean sum var std norm linalg_vector_norm amax amin var_mean std_mean".split())
_IMAGE = 4
_TOLERANCE = 1e-11


def forward(state: State, node: Node) -> None:
    """Read one operation.

    Raises:
        Conflict: its inputs move in ways that it cannot carry.
    """
    known = [state.known[t] for t in node.ins]
    opaque = next((k for k in known if isinstance(k, Opaque)), None)
    if opaque is not None:
        if not opaque.told and (node.name not in MOVES or len(node.ins) > 1):
            raise Conflict(node, opaque.reason, iter(()))
        return state.put(node, [opaque] * len(node.outs))
    data = any(isinstance(k, Value) for k in known)
    if node.name.startswith(_MAKERS) or not any(isinstance(k, Value | Param) for k in known):
        return state.put(node, _constants(state, node))
    if node.name in MOVES:
        if any(t in state.free for t in node.ins):
            state.free.update(t for t in node.outs if t is not None)
        return state.put(node, _move(state, node, data))
    if not data and (results := _of_parameters(state, node)) is not None:
        return state.put(node, results)
    if node.name == "convolution" and isinstance(known[1], Param | Constant) and data:
        return convolution(state, node)
    if node.name in ("mm", "addmm", "bmm", "baddbmm") and linear(state, node):
        return None
    if node.name == "bmm":
        return bilinear(state, node)
    if node.name in BATCH_NORMS or node.name in ROWS:
        return norm(state, node)
    if is_pointwise(node):
        return _pointwise(state, node)
    return _numeric(state, node)


def _constants(state: State, node: Node) -> list[Known]:
    def value(t: int) -> Tensor:
        known = state.known[t]
        return known.value if isinstance(known, Constant) else torch.zeros(state.tape.shapes[t])

    out = node.call(value)
    if node.name.startswith(("empty", "new_empty")):
        out = [torch.zeros_like(o) for o in out]
    return [Constant(o) for o in out]


# ---------------------------------------------------------------- movement


def _move(state: State, node: Node, data: bool) -> list[Known]:
    filled = fill_of(node)
    if not data:
        params = [k for t in node.ins if isinstance(k := state.known[t], Param)]
        parts = []
        for slot in range(max(len(p.parts) for p in params)):

            def entries(t: int, slot: int = slot) -> Tensor:
                known = state.known[t]
                if isinstance(known, Param) and slot < len(known.parts):
                    return known.parts[slot]
                return torch.full(state.tape.shapes[t], -1)

            parts.append(moved(state, node, entries, -1))
        return [Param(tuple(p)) for p in zip(*parts, strict=True)]
    values = {}
    for i in MOVES[node.name]:
        for r in tree_leaves(node.args[i]) if i < len(node.args) else ():
            if isinstance(r, Ref):
                values[r.index] = state.data(r.index)
    if node.index in state.bent and (bent := _even(state, node, values[node.ins[0]])) is not None:
        return [bent]
    fill = 0 if filled is None else int(state.numbers.constant(torch.tensor(filled)))
    if len(values) == 1 and node.name in (
        "clone",
        "_to_copy",
        "detach",
        "alias",
        "lift_fresh",
        "contiguous",
    ):
        return [*values.values()]
    runs = [moved(state, node, lambda t: values[t].ids, fill)]
    for g in range(len(state.action.generators)):
        runs.append(moved(state, node, lambda t, g=g: values[t].moved[g], fill, g))  # type: ignore[misc]
    return [Value(ids, tuple(rest)) for ids, *rest in zip(*runs, strict=True)]


def _even(state: State, node: Node, x: Value) -> Value | None:
    """A padding of one side, taken as if it were even: an image or a map of tokens that keeps turning."""
    made = state.tape.shapes[node.ins[0]], state.tape.shapes[node.outs[0]]  # type: ignore[index]
    grown = [d for d, (a, b) in enumerate(zip(*made, strict=True)) if a != b]
    if len(made[0]) != _IMAGE or grown not in ([2, 3], [1, 2]):
        return None
    first, h, w, last = _merged(made[0], grown)
    sizes = [n for n in (*first, h * w, *last)]
    before, after = state.action.plane(h, w), state.action.plane(*(made[1][d] for d in grown))
    parts = state.numbers.factors(x, sizes)
    at = len(first)
    if (
        parts is None
        or before is None
        or after is None
        or not all(map(torch.equal, parts[at], before))
    ):
        return None
    parts[at] = after
    state.breaks.append(Break(
        node.path, node.name, f"pads one side only, {made[0]} -> {made[1]}: a turned image is padded elsewhere",
        "give sizes that need no padding: multiples of the window or the stride", assumed=True,
    ))  # fmt: skip
    return state.numbers.fresh(tuple(outer(list(p)) for p in zip(*parts, strict=True)), made[1])


def _merged(
    shape: tuple[int, ...], grown: list[int]
) -> tuple[tuple[int, ...], int, int, tuple[int, ...]]:
    """The dimensions before the image, height, width, and those behind."""
    a, b = grown
    return shape[:a], shape[a], shape[b], shape[b + 1 :]


# ---------------------------------------------------------------- functions of parameters alone


def _of_parameters(state: State, node: Node) -> list[Known] | None:
    """The result as a function of parameters, entry by entry; None if it is not one."""
    params = [k for t in node.ins if isinstance(k := state.known[t], Param)]
    shape = state.tape.shapes[next(o for o in node.outs if o is not None)]
    if node.name in _REDUCTIONS:
        # An entry of each row stands for the row: its entries are tied through their own uses.
        dims = tuple(d for d in range(len(params[0].shape)) if _reduced(params[0].shape, shape, d))
        first = tuple(p.amin(dims, keepdim=True) if dims else p for p in params[0].parts)
        return [Param(tuple(p.reshape(shape) for p in first))] * len(node.outs)
    if node.name in ROWS or node.name in BATCH_NORMS or node.name == "_weight_norm_interface":
        channel = node.name != "native_layer_norm"
        parts = params[0].parts + tuple(
            q.expand(shape) if q.ndim == len(shape) else along(q, shape, channel)
            for p in params[1:] for q in p.parts
        )  # fmt: skip
        return [Param(parts), *[Param(params[0].parts)] * (len(node.outs) - 1)]
    if is_pointwise(node):
        return [Param(tuple(q.expand(shape) for p in params for q in p.parts))]
    return None


def _reduced(before: tuple[int, ...], after: tuple[int, ...], d: int) -> bool:
    if len(after) == len(before):
        return before[d] != after[d]
    return d >= len(after) or before[d] != after[d]


# ---------------------------------------------------------------- pointwise operations and norms


def _pointwise(state: State, node: Node) -> None:
    shape = state.tape.shapes[next(o for o in node.outs if o is not None)]
    values: list[Value] = []
    params: list[Param] = []
    # What may move in any way comes last: others' actions are tried first where the two differ.
    for t in sorted(dict.fromkeys(node.ins), key=lambda t: t in state.free):
        known = state.known[t]
        if isinstance(known, Value):
            values.append(known.expand(shape))
        elif isinstance(known, Constant) and known.value.numel() > 1:
            values.append(state.data(t).expand(shape))
        elif isinstance(known, Param) and not known.plain:
            params.append(Param(tuple(p.expand(shape) for p in known.parts)))
    out = joined(state, values)
    if not state.numbers.closed(out):
        raise Conflict(
            node, "what meets here turns in different ways", _partners(state, node, values, out),
            "let both sides come from layers with the same channels, or drop the constant",
        )  # fmt: skip
    if any(t in state.free for t in node.ins) or spreads(state, node):
        state.free.update(t for t in node.outs if t is not None)
    state.put(node, [affine(state, node, out, params)] * len(node.outs))


def _partners(state: State, node: Node, values: list[Value], both: Value) -> Iterator[Demand]:
    out = node.outs[0]
    assert out is not None
    for v in values:
        maps = state.location(v) if state.numbers.closed(v) else None
        if maps is not None:
            yield [(out, maps)]
    yield from propose(state, out, both)


# ---------------------------------------------------------------- everything else


def _numeric(state: State, node: Node) -> None:
    """Run the operation on random values, twice, so that no equality is an accident."""
    values = {t: state.data(t) for t in node.ins if not isinstance(state.known[t], Constant)}
    runs = 1 + len(state.action.generators)
    keys: list[list[Tensor | None]] = []
    for salt in (1, 2):
        results = []
        for run in range(runs):

            def value(t: int, run: int = run, salt: int = salt) -> Tensor:
                if (v := values.get(t)) is None:
                    known = state.known[t]
                    assert isinstance(known, Constant)
                    return known.value
                return state.numbers.draw(v.ids if run == 0 else v.moved[run - 1], salt)

            results.append(node.call(value))
            if any(isinstance(r, Tensor) and r.is_complex() for r in results[-1]):
                raise Conflict(
                    node,
                    "a spectrum turns with phases, and tracing knows no complex numbers",
                    iter(()),
                )
        keys.append([_classes([r[i] for r in results]) for i in range(len(node.outs))])
    out: list[Known] = []
    for first, second in zip(*keys, strict=True):
        if first is None or second is None:
            made = f"it reads what {node.name} of {node.path or 'the model'} gives"
            # Whole numbers may well be there for nothing, as the places of a maximum are.
            out.append(Opaque(f"{made}: places in an order of their own", told=False))
            continue
        settled = state.numbers.settle((mix(first) + second).unbind(0), None)
        if not state.numbers.closed(settled):
            raise Conflict(node, _why(state, node), propose(state, node.ins[0]), _remedy(node))
        out.append(settled)
    state.put(node, out)


def _classes(results: list[Any]) -> Tensor | None:
    """Integers, equal for equal floats (up to rounding), one row for each run."""
    if not all(isinstance(r, Tensor) and r.is_floating_point() for r in results):
        return None
    both = torch.stack([r.double() for r in results])
    flat = both.reshape(-1)
    order = flat.sort()
    near = _TOLERANCE * max(1.0, float(flat.abs().max()) if len(flat) else 1.0)
    step = (order.values.diff() > near).long().cumsum(0)
    classes = torch.zeros_like(order.indices)
    classes[order.indices[1:]] = step
    return classes.view(both.shape)


def _why(state: State, node: Node) -> str:
    given = state.tape.shapes[node.ins[0]]
    made = state.tape.shapes[next(o for o in node.outs if o is not None)]
    if node.name == "convolution":
        return "its weight is a product of parameters, of which tracing does not know how they turn"
    return f"{given} -> {made} is not the same for a turned input"


def _remedy(node: Node) -> str:
    if "pool" in node.name:
        return CENTRE
    if "upsample" in node.name:
        return "use sizes that the stride divides, without padding on one side"
    return ""
