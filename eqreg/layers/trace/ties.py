"""The result of tracing: which entries of which parameters are tied, what every feature is, and what breaks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...symmetry.fields import FieldType
from ...symmetry.groups import Group
from ..reynolds import reynolds
from ..wrappers import unwrapped
from .orbits import orbit_index
from .solve import outputs_asked, solve
from .state import Break, Opaque, Pair, Param, State
from .tape import learnt, record
from .values import Action, Maps, Value, outer

_IMAGE = 4


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
    """

    group: Group
    sizes: dict[str, tuple[int, ...]]
    tied: tuple[str, ...]
    untied: dict[str, str]
    fields: dict[str, FieldType]
    features: dict[str, bool]
    breaks: tuple[Break, ...]
    restarts: int
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

    Raises:
        ValueError: for groups that do not move pixels to pixels, or inputs that cannot be turned.
    """
    action = Action(group)
    core = copy.deepcopy(unwrapped(model)).cpu().double().eval()
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
    asked = outputs_asked(state, channels)
    restarts = solve(state, asked)
    _check_outputs(state, asked)
    uses = _uses(state)
    fields, features = _features(state)
    untied = _untied(state)
    return Ties(
        group, sizes, tuple(n for n in sizes if n in uses), untied, fields, features,
        tuple(state.breaks), restarts, lambda name: _pairs_of(state, uses, name), action,
    )  # fmt: skip


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


def _entries(state: State, t: int) -> list[str]:
    """Names of the parameters that a tensor is a function of."""
    known = state.known.get(t)
    if not isinstance(known, Param):
        return []
    names, starts = list(state.offsets), torch.tensor(list(state.offsets.values()))
    found: set[int] = set()
    for part in known.parts:
        flat = part.reshape(-1)
        ends = flat[flat >= 0].aminmax() if bool((flat >= 0).any()) else None
        if ends is not None:
            low, high = (int(torch.searchsorted(starts, e, right=True)) - 1 for e in ends)
            found.update(range(low, high + 1))
    return [names[i] for i in found]


def _uses(state: State) -> dict[str, list[int]]:
    """The ties of each parameter."""
    names, starts = list(state.offsets), torch.tensor(list(state.offsets.values()))
    uses: dict[str, list[int]] = {}
    for i, tie_ in enumerate(state.ties):
        found: set[int] = set()
        for part in tie_.param.parts:
            flat = part.reshape(-1)
            flat = flat[flat >= 0]
            low, high = (int(torch.searchsorted(starts, e, right=True)) - 1 for e in flat.aminmax())
            inside = (
                {low}
                if low == high
                else set((torch.searchsorted(starts, flat, right=True) - 1).tolist())
            )
            found |= inside
        for j in found:
            uses.setdefault(names[j], []).append(i)
    return uses


def _pairs_of(state: State, uses: dict[str, list[int]], name: str) -> list[list[Pair]]:
    start = state.offsets[name]
    end = start + _size(state, name)
    found = []
    for i in uses.get(name, ()):
        for pairs in state.ties[i].pairs():
            kept = []
            for a, b in pairs:
                ours = (a >= start) & (a < end)
                if not bool(ours.all()):
                    a, b = a[ours], b[ours]
                kept.append((a - start, b - start))
            if kept and len(kept[0][0]):
                found.append(kept)
    return found


def _size(state: State, name: str) -> int:
    t = next(t for t, n in state.tape.parameters.items() if n == name)
    return torch.Size(state.tape.shapes[t]).numel()


def _untied(state: State) -> dict[str, str]:
    """Parameters that reach the outputs only through what is not understood."""
    found: dict[str, str] = {}
    for node in state.tape.nodes:
        result = state.known.get(node.outs[0]) if node.outs and node.outs[0] is not None else None
        if isinstance(result, Opaque):
            for t in node.ins:
                for name in _entries(state, t):
                    found.setdefault(name, result.reason)
    return found


def _features(state: State) -> tuple[dict[str, FieldType], dict[str, bool]]:
    fields: dict[str, FieldType | None] = {}
    features: dict[str, bool] = {}
    for path, t in state.tape.features:
        known = state.known.get(t)
        kind = _field(state, known) if isinstance(known, Value) else None
        features[path] = features.get(path, True) and isinstance(known, Value)
        fields[path] = kind if path not in fields or fields[path] == kind else None
    return {p: k for p, k in fields.items() if k is not None}, features


def _field(state: State, value: Value) -> FieldType | None:
    """The type of a feature (1, C, H, W), if its channels are regular and trivial fields."""
    if len(value.shape) != _IMAGE:
        return None
    if (parts := state.image(value)) is None:
        return None
    order, channels, terms, c = state.action.group.order, parts[1], [], 0
    block = state.action.regular(order)
    while c < value.shape[1]:
        if all(torch.equal(p[c : c + order] - c, b) for p, b in zip(channels, block, strict=True)):
            terms.append("1r")
            c += order
        elif all(int(p[c]) == c for p in channels):
            terms.append("1t")
            c += 1
        else:
            return None
    return FieldType(state.action.group, " + ".join(terms))
