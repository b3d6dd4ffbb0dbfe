r"""Demands: how a tensor ought to move, carried back to the layers that can make it so.

A contraction with a parameter can give its output channels *any* permutation, by the choice of its ties.
So an operation that cannot carry its inputs proposes a location map for one of them, and the map is pushed
backwards: through movement as integers move, through pointwise operations and norms as it is, until every
branch ends at a contraction (which notes the channels asked for), at a parameter used as data, or at an
input, whose action is given. A demand may leave entries open (-1); demands on one tensor must agree
where both are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .action import Maps, outer
from .moves import MOVES, SAME_ORDER, is_pointwise, moved, spreads
from .state import Constant, Demand, Param, State
from .tape import Node
from .values import Value

_SAME = set(
    """_softmax _safe_softmax _log_softmax native_layer_norm native_group_norm native_batch_norm
    _native_batch_norm_legit _native_batch_norm_legit_no_training""".split()
)
_IMAGE = 4


@dataclass
class Trial:
    """Choices under test: output channels by node, and actions of parameters used as data."""

    wanted: dict[int, Maps]
    bare: dict[int, Maps]
    seen: dict[int, Maps] = field(default_factory=dict)


def axis_of(state: State, node: Node) -> int | None:
    """The dimension of a contraction's output that its parameter's choice moves; None if it has no choice."""

    def param(i: int) -> bool:
        return len(node.ins) >= abs(i) and isinstance(state.known.get(node.ins[i]), Param)

    if node.name == "convolution":
        return 1 if param(1) else None
    if node.name in ("mm", "addmm", "bmm", "baddbmm"):
        shape = state.tape.shapes[node.ins[-1]]
        if param(-1):
            return len(shape) - 1
        if param(-2):
            return len(shape) - 2
    return None


def pushed(state: State, demand: Demand, keep: bool = True) -> Trial | None:
    """The choices that a demand asks for, joined to those made so far; None if it cannot be met.

    Without ``keep`` earlier choices give way, but for those that outputs ask for.
    """
    old = (state.wanted, state.bare) if keep else (state.firm, {})
    trial = Trial(dict(old[0]), dict(old[1]))
    for t, maps in demand:
        before = Trial(dict(trial.wanted), dict(trial.bare), dict(trial.seen))
        if not _push(state, t, maps, trial):
            if not _met(state, t, maps):
                return None
            trial = before  # as it is already, but not by a choice: behind an assumption
    return Trial({**state.wanted, **trial.wanted}, {**state.bare, **trial.bare}, trial.seen)


def _met(state: State, t: int, maps: Maps) -> bool:
    """Whether a tensor moves as demanded."""
    known = state.known.get(t)
    if not isinstance(known, Value):
        return False
    flat = known.ids.reshape(-1)
    return all(
        bool(((m < 0) | (flat[m.clamp_min(0)] == k.reshape(-1))).all())
        for m, k in zip(maps, known.moved, strict=True)
    )


def _push(state: State, t: int, maps: Maps, trial: Trial) -> bool:
    old = trial.seen.get(t)
    if old is not None:
        joined = _join(old, maps)
        if joined is None:
            return False
        if all(torch.equal(a, b) for a, b in zip(joined, old, strict=True)):
            return True
        maps = joined
    trial.seen[t] = maps
    if not any(bool((m >= 0).any()) for m in maps):
        return True
    if t in state.turned:
        return _join(state.turned[t], maps) is not None
    if isinstance(state.known.get(t), Constant):
        return True
    node = state.producer.get(t)
    if node is None:
        return True
    if (axis := axis_of(state, node)) is not None:
        return _at_contraction(state, node, t, axis, maps, trial)
    if node.name in MOVES:
        return _through_movement(state, node, t, maps, trial)
    shape = state.tape.shapes[t]
    if is_pointwise(node) or node.name in _SAME:
        inputs = dict.fromkeys(node.ins) if is_pointwise(node) else node.ins[:1]
        if is_pointwise(node) and spreads(state, node):
            trial.bare[t] = maps
        return all(
            _push(state, i, _unbroadcast(maps, state.tape.shapes[i], shape), trial)
            for i in inputs
            if not isinstance(state.known.get(i), Param | Constant)
        )
    given = state.tape.shapes[node.ins[0]] if node.ins else ()
    if len(shape) == len(given) == _IMAGE and shape[:2] == given[:2]:
        # Pooling, resizing: channels are kept.
        channels = [_along(m, shape, 1) for m in maps]
        if all(c is not None and bool((c >= 0).all()) for c in channels):
            asked = image_map(state, given, tuple(c for c in channels if c is not None))
            return asked is None or _push(state, node.ins[0], asked, trial)
    return True


def _join(a: Maps, b: Maps) -> Maps | None:
    joined = []
    for x, y in zip(a, b, strict=True):
        if bool(((x != y) & (x >= 0) & (y >= 0)).any()):
            return None
        joined.append(torch.where(x >= 0, x, y))
    return tuple(joined)


def _along(m: Tensor, shape: tuple[int, ...], axis: int) -> Tensor | None:
    """What a map says of one dimension; None if it says different things."""
    n, stride = shape[axis], torch.Size(shape[axis + 1 :]).numel()
    if bool((m >= 0).all()):
        lines = (m // stride % n).view(-1, n, stride)
        return lines[0, :, 0].clone() if bool((lines == lines[:1, :, :1]).all()) else None
    ok = (m >= 0).nonzero().flatten()
    place, read = ok // stride % n, m[ok] // stride % n
    found = torch.full((n,), -1)
    found[place] = read
    return found if bool((found[place] == read).all()) else None


def _at_contraction(state: State, node: Node, t: int, axis: int, maps: Maps, trial: Trial) -> bool:
    shape = state.tape.shapes[t]
    stride = torch.Size(shape[axis + 1 :]).numel()
    actual = state.known.get(t)
    found = []
    for g, m in enumerate(maps):
        channels = _along(m, shape, axis)
        if channels is None:
            return False
        if isinstance(actual, Value):
            # The choice moves channels alone; the rest of the demand must be so already.
            looked = state.numbers.lookup(actual)[g]
            both = (m >= 0) & (looked >= 0)
            step = (
                m - m // stride % shape[axis] * stride,
                looked - looked // stride % shape[axis] * stride,
            )
            if state.numbers.distinct(actual) and bool((step[0] != step[1])[both].any()):
                return False
        found.append(channels)
    asked: Maps | None = tuple(found)
    if node.index in trial.wanted:
        asked = _join(trial.wanted[node.index], tuple(found))
    if asked is None or any(complete(state, c, g) is None for g, c in enumerate(asked)):
        return False
    trial.wanted[node.index] = asked
    groups = node.args[8] if node.name == "convolution" else 1
    return groups == 1 or _through_groups(state, node, asked, trial)


def _through_groups(state: State, node: Node, asked: Maps, trial: Trial) -> bool:
    """A grouped convolution takes its groups from its input."""
    groups, inputs = node.args[8], state.tape.shapes[node.ins[0]]
    each_out = len(asked[0]) // groups
    each_in = inputs[1] // groups
    i = torch.arange(inputs[1])
    found = []
    for channels in asked:
        block = torch.where(channels < 0, -1, channels // each_out).view(groups, each_out)
        if not bool(((block == block.amax(1, keepdim=True)) | (block < 0)).all()):
            return False
        to = block.amax(1)
        if each_in > 1 and bool((to == torch.arange(groups)).all()):
            return True  # inside a group any action of the output goes with any of the input
        found.append(
            torch.where(to[i // each_in] < 0, -1, to[i // each_in] * each_in + i % each_in)
        )
    maps = image_map(state, inputs, tuple(found))
    return maps is None or _push(state, node.ins[0], maps, trial)


def complete(state: State, channels: Tensor, g: int) -> Tensor | None:
    """Fill what a demand leaves open with regular fields; None if it is no permutation."""
    known = channels[channels >= 0]
    if len(known.unique()) < len(known):
        return None
    free = (channels < 0).nonzero().flatten()
    if len(free) == 0:
        return channels
    unread = torch.ones(len(channels), dtype=torch.bool)
    unread[known] = False
    if not torch.equal(free, unread.nonzero().flatten()):
        return None
    filled = channels.clone()
    filled[free] = free[state.action.regular(len(free))[g]]
    return filled


def _through_movement(state: State, node: Node, t: int, maps: Maps, trial: Trial) -> bool:
    if any(i in state.tape.masks for i in node.ins):
        return True  # what a mask of the data lets through has no place of its own
    if node.name in SAME_ORDER:
        return _hand_on(state, node.ins[0], maps, trial)
    offsets: dict[int, int] = {}
    total = 0
    for i in dict.fromkeys(node.ins):
        if not isinstance(state.known.get(i), Constant):
            offsets[i] = total
            total += torch.Size(state.tape.shapes[i]).numel()

    def entries(i: int) -> Tensor | None:
        shape = state.tape.shapes[i]
        if i not in offsets:
            # A constant is data among data, or an index, which stays real.
            mixes = node.name in ("cat", "stack") or len(MOVES[node.name]) > 1
            return torch.full(shape, -1) if mixes else None
        return torch.arange(torch.Size(shape).numel()).view(shape) + offsets[i]

    key = node.index, t, tuple(offsets)
    if (source := state.sources.get(key)) is None:
        source = moved(state, node, entries, -1)[node.outs.index(t)].reshape(-1)
        state.sources.keep(key, source)
    found: dict[int, list[Tensor]] = {i: [] for i in offsets}
    complete_source = bool((source >= 0).all())
    for m in maps:
        whole = torch.full((total,), -1)
        if complete_source and bool((m >= 0).all()):
            whole[source] = source[m]
        else:
            place = ((m >= 0) & (source >= 0)).nonzero().flatten()
            read = source[m[place]]
            place, read = source[place][read >= 0], read[read >= 0]
            whole[place] = read
        for i, start in offsets.items():
            n = torch.Size(state.tape.shapes[i]).numel()
            part = whole[start : start + n]
            inside = (part >= start) & (part < start + n)
            if bool(((part >= 0) & ~inside).any()):
                return False
            found[i].append(torch.where(inside, part - start, -1))
    return all(_hand_on(state, i, tuple(parts), trial) for i, parts in found.items())


def _hand_on(state: State, t: int, asked: Maps, trial: Trial) -> bool:
    if not isinstance(state.known.get(t), Param):
        return isinstance(state.known.get(t), Constant) or _push(state, t, asked, trial)
    if any(bool((p >= 0).any()) for p in asked):
        trial.bare[t] = asked
    return True


def _unbroadcast(maps: Maps, shape: tuple[int, ...], to: tuple[int, ...]) -> Maps:
    if shape == to:
        return maps
    n = torch.Size(shape).numel()
    source = torch.arange(n).view(shape).expand(to).reshape(-1)
    found = []
    for m in maps:
        small, ok = torch.full((n,), -1), m >= 0
        small[source[ok]] = source[m[ok]]
        found.append(small)
    return tuple(found)


def image_map(state: State, shape: tuple[int, ...], channels: Maps) -> Maps | None:
    """A batch of turned images whose channels move as given; None if they cannot be turned."""
    plane = state.action.plane(*shape[2:]) if len(shape) == _IMAGE else None
    if plane is None:
        return None
    batch = torch.arange(shape[0])
    return tuple(outer([batch, c, p]) for c, p in zip(channels, plane, strict=True))
