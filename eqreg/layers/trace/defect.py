"""How inputs and outputs move, and by how much a network misses it: the numeric check of a trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...symmetry.fields import FieldType
from .action import Action, Maps, outer
from .modes import Looking, awake
from .tape import learnt, tensors_of

Kinds = Sequence[FieldType | None] | None
_IMAGE = 4
EXACT = 1e-8  # relative error, in float64, of what counts as equivariant
_SIGNS = 3


def as_call(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example input as positional and keyword arguments."""
    if isinstance(x, dict):
        return (), x
    return (tuple(x) if isinstance(x, tuple | list) else (x,)), {}


def single(x: Any) -> Any:
    """The first element of a batch, on the CPU and in float64; what is no tensor stays."""

    def first(a: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        a = a.detach().cpu()
        a = a[:1] if a.ndim > 0 else a
        return a.double().clone() if a.is_floating_point() else a.clone()

    return tree_map(first, x)


def channel_maps(action: Action, kind: FieldType) -> Maps:
    """Where the channels of a field read when they are turned."""
    found = []
    for g in action.generators:
        place = torch.tensor(kind.permutation(g))
        source = torch.empty_like(place)
        source[place] = torch.arange(len(place))
        found.append(source)
    return tuple(found)


def input_maps(action: Action, x: Any, turn: Sequence[bool] | None, kinds: Kinds) -> list[Maps]:
    """How the tensors of an input move: images turn, the rest stays, unless given.

    Raises:
        ValueError: if an image is not square where it has to be, an input is empty or holds NaN, or if nothing turns.
    """
    found = []
    tensors = [t for t in tree_leaves(x) if isinstance(t, Tensor)]
    if not (any(t.ndim >= _IMAGE for t in tensors) if turn is None else any(turn)):
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or "no tensor"
        raise ValueError(
            f"nothing turns with the group: expected an image (B, C, H, W) among the inputs, got {shapes}; "
            "say with turn= which inputs are images"
        )
    if turn is not None and len(turn) != len(tensors):
        raise ValueError(
            f"turn= needs one entry for each of {len(tensors)} tensors, got {len(turn)}"
        )
    for i, t in enumerate(tensors):
        if t.numel() == 0 or bool(t.isnan().any()):  # infinite values may be a mask's
            what = "holds NaN" if t.numel() else "is empty"
            raise ValueError(
                f"expected an example with values: input {i} of shape {tuple(t.shape)} {what}"
            )
        if not (t.ndim >= _IMAGE if turn is None else turn[i]):
            found.append(action.trivial(t.numel()))
            continue
        maps = _image_maps(action, tuple(t.shape), kinds[i] if kinds is not None else None)
        if maps is None:
            raise ValueError(
                f"{action.group} turns square images, got {t.shape[-2]} x {t.shape[-1]}"
            )
        found.append(maps)
    return found


def _image_maps(action: Action, shape: tuple[int, ...], kind: FieldType | None) -> Maps | None:
    """Images (B, C, H, W), volumes (B, C, D, H, W), or less, whose last two dimensions turn."""
    plane = action.plane(*shape[-2:])
    if plane is None:
        return None
    lead, channels = ((1, 1) + shape[:-2])[-2:] if len(shape) <= _IMAGE else shape[:2]
    depth = torch.arange(math.prod(shape[2:-2]))
    moves = channel_maps(action, kind) if kind is not None else action.trivial(channels)
    batch = torch.arange(lead)
    return tuple(outer([batch, c, depth, p]) for c, p in zip(moves, plane, strict=True))


def output_maps(
    action: Action, shapes: Sequence[tuple[int, ...]], kinds: Kinds
) -> list[Maps | None]:
    """How outputs move: images turn, and their channels stay unless given; vectors stay; None is not asked."""
    found: list[Maps | None] = []
    for i, shape in enumerate(shapes):
        kind = kinds[i] if kinds is not None and i < len(kinds) else None
        maps: Maps | None = None
        if len(shape) >= _IMAGE:
            maps = _image_maps(action, shape, kind)
        elif len(shape) < _IMAGE - 1:
            maps = action.trivial(torch.Size(shape).numel())
        found.append(maps)
    return found


@torch.no_grad()
def defect(
    model: nn.Module, x: Any, action: Action, turn: Sequence[bool] | None = None, in_kinds: Kinds = None,
    out_kinds: Kinds = None,
) -> float:  # fmt: skip
    """Largest relative error, over the generators and the outputs, of ``f(g x)`` against ``g f(x)``.

    Args:
        model: in evaluation mode.
        x: its input, as for :func:`~eqreg.layers.trace.tie`; not changed.
        action: of the group.
        turn, in_kinds, out_kinds: which inputs turn, and types of inputs and outputs.

    Returns:
        The error; infinite if it is no number, and NaN if nothing is asked of any output.
    """
    moves = input_maps(action, x, turn, in_kinds)

    def run(g: int | None) -> list[Tensor]:
        maps = iter(moves)

        def move(a: Any) -> Any:
            if not isinstance(a, Tensor):
                return a
            m = next(maps)
            return a.clone() if g is None else a.reshape(-1)[m[g]].view(a.shape)

        args, kwargs = as_call(tree_map(move, x))
        return [t.clone() for t in tensors_of(model(*args, **kwargs)) if t.is_floating_point()]

    upright, worst = run(None), 0.0
    asked = output_maps(action, [tuple(y.shape) for y in upright], out_kinds)
    if all(maps is None for maps in asked):
        return math.nan
    for g in range(len(action.generators)):
        for y, y_g, maps in zip(upright, run(g), asked, strict=True):
            if maps is not None:
                off = (y.reshape(-1)[maps[g]] - y_g.reshape(-1)).norm() / y.norm().clamp_min(1e-300)
                worst = max(worst, float(off)) if bool(off.isfinite()) else math.inf
    return worst


class _Open(Looking):
    """Operations that put out one number for many inputs let some of each through: nothing behind them is hidden.

    What is done to every entry alike turns with the image, whichever function it is.
    """

    _SHUT = ("relu", "hardtanh", "hardswish", "hardsigmoid", "threshold", "clamp", "clamp_min")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func._schema.name.split("::")[1], args[0] if args else None
        if name.rstrip("_") not in self._SHUT or not isinstance(given, Tensor):
            return func(*args, **(kwargs or {}))
        leak = 0.1 * given if given.is_floating_point() else None
        out = func(*args, **(kwargs or {}))
        return out if leak is None or out.shape != leak.shape else out.add_(leak)


@torch.no_grad()
def tied_defect(model: nn.Module, x: Any, *rest: Any, proved: bool = False) -> float:
    """Largest :func:`defect` of a tied network over several weights; stops at the first that shows one.

    With one set of weights a ReLU may be shut for all pixels, and what breaks behind it is not seen. So the weights
    also change their signs, and ReLUs let something through (:class:`_Open`). If that shows an error, or no numbers,
    it may be the open ReLUs' own: then the network as it is decides, with the signs of all weights together and of
    each parameter for itself; signs for which the outputs are no numbers (roots, logarithms) say nothing.

    Args:
        model: disturbed and tied.
        x, rest: as for :func:`defect`.
        proved: that all this was done at another size. If then no error is seen through open ReLUs, that is enough.
    """
    if proved:
        with awake(_Open)():
            found = defect(model, x, *rest)
        if found <= EXACT:
            return found
    worst = defect(model, x, *rest)
    generator = torch.Generator().manual_seed(0)
    tensors = {n: t for n, t in learnt(model).items() if not n.endswith("running_var")}
    now = dict.fromkeys(tensors, 1)
    for draw in range(_SIGNS):
        if worst > EXACT:
            break
        for name, t in tensors.items():  # a sign for a whole parameter leaves it tied
            sign = -1 if draw == 0 else 2 * int(torch.randint(2, (), generator=generator)) - 1
            if sign != now[name]:
                t.neg_()
                now[name] = sign
        if draw == 0:
            with awake(_Open)():
                found = defect(model, x, *rest)
            if found <= EXACT:
                worst = max(worst, found)
                break
        found = defect(model, x, *rest)
        worst = max(worst, found) if math.isfinite(found) else worst
    for name, t in tensors.items():
        if now[name] < 0:
            t.neg_()
    return worst


@torch.no_grad()
def disturb_(model: nn.Module, x: Any) -> None:
    """Noise on all parameters and statistics, so that no symmetry is there by itself.

    Batch norms are set to what they see of ``x`` first: with the statistics of a new network deep ones put out next
    to nothing but their biases, which are equivariant whatever breaks.
    """
    generator = torch.Generator().manual_seed(0)
    for name, t in learnt(model).items():
        # Uniform, of variance 1: much quicker to draw than a normal one.
        noise = torch.rand(t.shape, generator=generator, dtype=t.dtype)
        noise.sub_(0.5).mul_(math.sqrt(12))
        if name.endswith("running_var"):
            t.copy_((0.2 * noise).exp())
        elif name.endswith("running_mean"):
            t.copy_(0.2 * noise)
        else:
            t.add_(noise.mul_(0.02 + 0.2 * t.abs().mean()))
    handles = [
        m.register_forward_pre_hook(_measure)
        for m in model.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_mean is not None
    ]
    try:
        args, kwargs = as_call(tree_map(lambda a: a.clone() if isinstance(a, Tensor) else a, x))
        if handles:
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()


def _measure(norm: Any, inputs: tuple[Any, ...]) -> None:
    z = inputs[0].transpose(0, 1).flatten(1)
    if z.shape[1] > 1 and bool((var := z.var(1)).min() > 0):
        norm.running_mean.mul_(var.sqrt()).add_(z.mean(1))
        norm.running_var.mul_(var)
