"""The result of tracing: which entries of which parameters are tied, what every feature is, and what breaks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...symmetry.fields import FieldType
from ...symmetry.groups import Group
from ..reynolds import reynolds
from ..wrappers import unwrapped
from .action import Action, Maps, outer
from .demand import image_map
from .orbits import orbit_index
from .results import features, pairs_of, untied, uses
from .solve import outputs_asked, solve
from .state import Break, Pair, State
from .tape import learnt, record, tensors_of
from .values import Value

_IMAGE = 4
_EXACT = 1e-8


@dataclass(eq=False)
class Ties:
    """What the group does to a network, see :func:`tie`.

    Attributes:
        group: the group.
        sizes: shape of every parameter and running statistic, by name.
        tied: names of those whose entries are tied.
        untied: names of those that the trace did not reach, with the reason.
        fields: type of what each module puts out, where it is a sum of trivial and regular fields, in the
            order of execution; a module that runs several times with different types is left out.
        features: for every module that ran, whether what it puts out is known to turn.
        breaks: the operations that no weights make equivariant, in the order of execution.
        restarts: how often a choice of channels was revised.
        error: relative error of the tied network in float64, with noise on all its parameters.
    """

    group: Group
    sizes: dict[str, tuple[int, ...]]
    tied: tuple[str, ...]
    untied: dict[str, str]
    fields: dict[str, FieldType]
    features: dict[str, bool]
    breaks: tuple[Break, ...]
    restarts: int
    error: float
    _pairs: Callable[[str], list[list[Pair]]] = field(repr=False)
    _action: Action = field(repr=False)
    _indices: dict[str, Tensor | None] = field(default_factory=dict, repr=False)

    @property
    def coverage(self) -> float:
        """Share of all parameters whose action is known."""
        numel = {n: torch.Size(s).numel() for n, s in self.sizes.items()}
        return 1 - sum(numel[n] for n in self.untied) / max(1, sum(numel.values()))

    def index(self, name: str) -> Tensor | None:
        """Where the orbit mean of a parameter reads (see ``reynolds``); None if it is not tied."""
        if name not in self._indices:
            numel = torch.Size(self.sizes[name]).numel()
            pairs = self._pairs(name)
            self._indices[name] = orbit_index(pairs, numel, self._action) if pairs else None
        return self._indices[name]

    @property
    def exact(self) -> bool:
        """Whether the tied network was found equivariant, in float64, up to 1e-8."""
        return self.error <= _EXACT

    @torch.no_grad()
    def project_(self, model: nn.Module) -> nn.Module:
        """Set every tied entry to the mean of its orbit; running statistics too."""
        tensors = learnt(unwrapped(model))
        for name in self.tied:
            index = self.index(name)
            if index is not None:
                tensor = tensors[name]
                tensor.copy_(reynolds(tensor, index.to(tensor.device)))
        return model


def tie(
    model: nn.Module,
    x: Any,
    group: Group,
    *,
    turn: Sequence[bool] | None = None,
    in_fields: Sequence[FieldType | None] | None = None,
    out_fields: Sequence[FieldType | None] | None = None,
    fields: Mapping[str, FieldType] | None = None,
) -> Ties:
    """Trace a network once and deduce how the group acts on its parameters and features.

    Args:
        model: any module; it is copied, not changed.
        x: an example input: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
            Of a batch the first element is used; the size should be one that the network sees in use.
        group: C2, C4, D2 or D4.
        turn: for each tensor among the inputs, whether it turns; by default those with four dimensions do.
        in_fields: for each tensor among the inputs, its type; images are trivial by default.
        out_fields: for each tensor among the outputs, its type; by default trivial.
        fields: types of what modules put out, by path.

    Raises:
        ValueError: for groups that do not move pixels to pixels, or inputs that cannot be turned.
    """
    action = Action(group)
    core = _copied(unwrapped(model)).cpu().double().eval()
    args, kwargs = as_call(tree_map(_first, x))
    tape = record(core, args, kwargs)
    tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
    turned = {}
    for i, (t, given) in enumerate(zip(tape.inputs, tensors, strict=True)):
        turns = given.ndim == _IMAGE if turn is None else turn[i]
        kind = in_fields[i] if in_fields is not None else None
        turned[t] = _input_maps(action, tuple(given.shape), turns, kind)
    sizes = {n: tuple(t.shape) for n, t in learnt(core).items()}
    offsets, total = {}, 0
    for name, shape in sizes.items():
        offsets[name] = total
        total += torch.Size(shape).numel()
    state = State(tape, action, turned, offsets)
    channels = {
        t: _channels(action, kind)
        for t, kind in zip(tape.outputs, out_fields or (), strict=False)
        if kind is not None
    }
    asked = {
        t: maps
        for path, t in tape.features
        if path in (fields or {})
        and (maps := image_map(state, tape.shapes[t], _channels(action, (fields or {})[path])))
    }
    outputs = {t: maps for t, maps in outputs_asked(state, channels).items() if t not in asked}
    restarts = solve(state, {**asked, **outputs})
    _check_outputs(state, outputs)
    used = uses(state)
    kinds, known = features(state)
    missed = untied(state)
    ties = Ties(
        group, sizes, tuple(n for n in sizes if n in used), missed, kinds, known,
        tuple(state.breaks), restarts, 0.0, lambda name: pairs_of(state, used, name), action,
    )  # fmt: skip
    actions = [turned[t] for t in tape.inputs], [{**asked, **outputs}.get(t) for t in tape.outputs]
    ties.error = _measured(ties, core, args, kwargs, *actions, tape.places)
    if not ties.exact and not ties.breaks:
        reason = (
            f"outputs of the tied network differ by {ties.error:.1e}: the trace misses something"
        )
        ties.breaks = (Break("", "numeric check", reason),)
    state.forget()
    return ties


@torch.no_grad()
def _measured(
    ties: Ties,
    core: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    inputs: list[Maps],
    outputs: list[Maps | None],
    places: list[int],
) -> float:
    """Largest relative error over the generators, after noise on all parameters and tying."""
    generator = torch.Generator().manual_seed(0)
    for name, t in learnt(core).items():
        noise = torch.randn(t.shape, generator=generator, dtype=t.dtype)
        scale = 0.02 + 0.2 * t.abs().mean()
        t.mul_((0.2 * noise).exp()) if name.endswith("running_var") else t.add_(scale * noise)
    ties.project_(core)

    def run(g: int | None) -> list[Tensor]:
        maps = iter(inputs)

        def move(a: Any) -> Any:
            if not isinstance(a, Tensor):
                return a
            m = next(maps)
            return a.clone() if g is None else a.reshape(-1)[m[g]].view(a.shape)

        y = core(*(moved := tree_map(move, (args, kwargs)))[0], **moved[1])
        leaves = tensors_of(y)
        return [leaves[i].double() for i in places]

    upright, worst = run(None), 0.0
    for g in range(len(ties._action.generators)):
        for y, y_g, maps in zip(upright, run(g), outputs, strict=True):
            if maps is not None:
                off = (y.reshape(-1)[maps[g]] - y_g.reshape(-1)).norm() / y.norm().clamp_min(1e-300)
                worst = max(worst, float(off)) if bool(off.isfinite()) else math.inf
    return worst


def _copied(model: nn.Module) -> nn.Module:
    """A copy, also of modules that hold computed tensors (weight norm by hooks), which deepcopy refuses."""
    held = (t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor))
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in held if not t.is_leaf})


def as_call(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """An example input as positional and keyword arguments."""
    if isinstance(x, dict):
        return (), x
    return (tuple(x) if isinstance(x, tuple | list) else (x,)), {}


def _first(a: Any) -> Any:
    if not isinstance(a, Tensor):
        return a
    a = a.detach().cpu()
    a = a[:1] if a.ndim > 0 else a
    return a.double().clone() if a.is_floating_point() else a.clone()


def _channels(action: Action, kind: FieldType) -> Maps:
    found = []
    for g in action.generators:
        place = torch.tensor(kind.permutation(g))
        source = torch.empty_like(place)
        source[place] = torch.arange(len(place))
        found.append(source)
    return tuple(found)


def _input_maps(
    action: Action, shape: tuple[int, ...], turns: bool, kind: FieldType | None
) -> Maps:
    if not turns:
        return action.trivial(torch.Size(shape).numel())
    plane = action.plane(*shape[-2:])
    if plane is None:
        raise ValueError(f"{action.group} turns square images, got {shape[-2]} x {shape[-1]}")
    lead = torch.arange(torch.Size(shape[:-3]).numel())
    c = shape[-3] if len(shape) > 2 else 1
    channels = _channels(action, kind) if kind is not None else action.trivial(c)
    return tuple(outer([lead, p, q]) for p, q in zip(channels, plane, strict=True))


def _check_outputs(state: State, asked: dict[int, Maps]) -> None:
    for i, t in enumerate(state.tape.outputs):
        known = state.known.get(t)
        if not isinstance(known, Value) or t not in asked:
            continue
        flat = known.ids.reshape(-1)
        if not all(
            bool((flat[m] == k.reshape(-1)).all())
            for m, k in zip(asked[t], known.moved, strict=True)
        ):
            state.breaks.append(Break(
                "", "output", f"output {i} of shape {known.shape} does not turn as an image or stay as a vector",
                "give its type with out_fields=",
            ))  # fmt: skip
