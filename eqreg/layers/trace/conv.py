"""Convolutions of any dimension: weights are tied over turned taps, and strides are tried, not computed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .action import Maps, digest, outer
from .products import choice, rows
from .propose import propose, whole_groups
from .state import Break, Conflict, Constant, Demand, Param, State
from .tape import Node
from .values import Value

_EARLIER = (
    "look before it for padding, cropping or shifting to one side; sizes that need none may do"
)
CENTRE = "choose padding and sizes with stride | H + 2P - K, for example another crop size"


def convolution(state: State, node: Node) -> None:
    """A convolution of any dimension; the last two turn, or none does."""
    x, weight = state.data(node.ins[0]), state.known[node.ins[1]]
    assert isinstance(weight, Param | Constant)
    bias = state.known[node.ins[2]] if len(node.ins) > 2 else None
    stride, padding, dilation, transposed, extra, groups = node.args[3:9]
    kernel = weight.shape[2:]
    taps = torch.Size(kernel).numel()
    shape, out_shape = x.shape, state.tape.shapes[node.outs[0]]  # type: ignore[index]
    if taps == 1 and groups == 1 and shape[2:] == out_shape[2:] and isinstance(weight, Param):

        def last(t: Tensor) -> Tensor:
            return t.movedim(1, -1)

        parts = tuple(p.flatten(1) if transposed else p.flatten(1).t() for p in weight.parts)
        out = rows(state, node, Value(last(x.ids), tuple(map(last, x.moved))), parts, node.ins[0])
        state.tie(bias, state.chosen[node.index])
        first = [v.movedim(-1, 1) for v in (out.ids, *out.moved)]
        return state.put(node, [Value(first[0], tuple(first[1:]))])
    batch, channels, turns = _as_image(state, node, x)
    po = choice(state, node, _grouped(state, node, channels, out_shape[1], groups))
    each_in, each_out = shape[1] // groups, out_shape[1] // groups
    for p, c in zip(po, channels, strict=True):
        to, of = p.view(groups, -1) // each_out, c.view(groups, -1) // each_in
        if not bool((to == of[:, :1]).all() and (of == of[:, :1]).all()):
            raise Conflict(
                node, f"its {groups} groups cut through fields", _images(state, node),
                "let each group of the convolution hold whole fields",
            )  # fmt: skip
    plane = state.plane(out_shape[2:]) if turns else None
    identity = torch.arange(torch.Size(out_shape[2:]).numel())
    place = plane if plane is not None else (identity,) * len(po)
    if turns and plane is None:
        raise Conflict(node, f"its output {out_shape} is not square", iter(()))
    if turns and not _carries(
        state.action,
        shape[2:],
        kernel,
        *map(tuple, (stride, padding, dilation)),
        transposed,
        tuple(extra),
    ):
        state.breaks.append(Break(
            node.path, node.name,
            f"kernel {tuple(kernel)}, stride {tuple(stride)}, padding {tuple(padding)} on {tuple(shape[2:])} sample "
            "other pixels of a turned image", CENTRE, assumed=True,
        ))  # fmt: skip

    turned = state.plane(tuple(kernel)) if turns else None
    k = turned if turned is not None else (torch.arange(taps),) * len(po)

    def pair(c: Tensor, o: Tensor) -> Tensor:
        if transposed:
            i, j = torch.arange(shape[1])[:, None], torch.arange(each_out)
            return (c[i] * each_out + o[i // each_in * each_out + j] % each_out).flatten()
        j, i = torch.arange(out_shape[1])[:, None], torch.arange(each_in)
        return (o[j] * each_in + c[j // each_out * each_in + i] % each_in).flatten()

    def pairs() -> Maps:
        return tuple(outer([pair(c, o), t]) for c, o, t in zip(channels, po, k, strict=True))

    if isinstance(weight, Constant):
        flat = weight.value.double().reshape(-1)
        if not all(bool(torch.allclose(flat[m], flat, atol=1e-9)) for m in pairs()):
            raise Conflict(node, "its fixed kernel is not symmetric", _images(state, node))
    elif turns and taps > 1 and state.plane(tuple(kernel)) is None:
        raise Conflict(
            node, f"its kernel {tuple(kernel)} is not square", iter(()), "use square kernels"
        )
    else:
        state.tie(
            weight,
            pairs,
            key=("taps", transposed, groups, turns, tuple(kernel), digest(channels, po)),
            factors=((channels, po, k) if transposed else (po, channels, k))
            if groups == 1
            else (tuple(map(pair, channels, po)), k),
        )
    state.tie(bias, po)
    maps = tuple(outer(list(p)) for p in zip(batch, po, place, strict=True))
    state.put(node, [state.numbers.fresh(maps, out_shape)])


def _as_image(state: State, node: Node, x: Value) -> tuple[Maps, Maps, bool]:
    """How batch and channels move, and whether the image turns (else it stays)."""
    if (image := state.image(x)) is not None:
        return *image, True
    n = torch.Size(x.shape[2:]).numel()
    stay = state.action.trivial(n)
    parts = state.numbers.factors(x, (*x.shape[:2], n), stay)
    if parts is not None:
        return parts[0], parts[1], False
    raise Conflict(
        node,
        f"its input {x.shape} does not turn as an image with channels",
        _images(state, node),
        _EARLIER,
    )


def _images(state: State, node: Node) -> Iterator[Demand]:
    shape, groups = state.tape.shapes[node.ins[0]], node.args[8]
    if groups > 1:
        yield from whole_groups(state, node.ins[0], groups)
    if groups < shape[1]:
        yield from propose(state, node.ins[0])


def _grouped(state: State, node: Node, channels: Maps, outputs: int, groups: int) -> Maps:
    """The default choice: regular fields, inside the groups if there are any."""
    if groups == 1:
        return state.action.regular(outputs)
    each_in, each_out = len(channels[0]) // groups, outputs // groups
    o, found = torch.arange(outputs), []
    for g, c in enumerate(channels):
        to = c.view(groups, each_in)[:, 0] // each_in
        if each_in == each_out:
            within = c[o] % each_in
        elif each_in > 1 and bool((to == torch.arange(groups)).all()):
            within = state.action.regular(each_out)[g][o % each_out]
        else:
            within = o % each_out
        if each_in > 1 and each_in == each_out and bool((to == torch.arange(groups)).all()):
            within = state.action.regular(each_out)[g][o % each_out]
        found.append(to[o // each_out] * each_out + within)
    return tuple(found)


@lru_cache(maxsize=512)
def _carries(
    action: Any,
    size: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
) -> bool:
    """Whether a convolution with a symmetric kernel turns with its image; one channel says it for all."""
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(1, 1, *kernel, dtype=torch.float64, generator=generator)
    x = torch.rand(1, 1, *size, dtype=torch.float64, generator=generator)

    def turned(t: Tensor, g: int) -> Tensor:
        plane = action.plane(*t.shape[-2:])
        return t.flatten(-2)[..., plane[g]].view(t.shape)

    for _ in range(3):
        for g in range(len(action.generators)):
            if action.plane(*kernel[-2:]) is None:
                return True  # reported by its kernel
            w = w + turned(turned(turned(w, g), g), g) + turned(turned(w, g), g) + turned(w, g)
    w = w / w.abs().mean()

    def run(t: Tensor) -> Tensor:
        return torch.ops.aten.convolution(
            t, w, None, stride, padding, dilation, transposed, extra, 1
        )

    y = run(x)
    return all(
        torch.allclose(run(turned(x, g)), turned(y, g), atol=1e-9)
        for g in range(len(action.generators))
    )
