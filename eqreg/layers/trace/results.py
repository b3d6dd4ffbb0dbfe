"""What a tape that was read says of parameters and features."""

from __future__ import annotations

import torch
from torch import Tensor

from ...symmetry.fields import FieldType
from ..tokens import IMAGE, LAYOUTS, as_images
from .action import Maps
from .state import Opaque, Pair, Param, State
from .values import Value

_IMAGE = 4


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


class Uses:
    """The ties of each parameter."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.of: dict[str, list[int]] = {}
        self._layouts: dict[int, tuple[tuple[int, ...], tuple[int, ...], int]] = {}
        names, starts = list(state.offsets), torch.tensor(list(state.offsets.values()))
        for i, tie_ in enumerate(state.ties):
            parts = tie_.param.parts
            homes = [state.homes.get(p.untyped_storage().data_ptr()) for p in parts]
            if None in homes:
                found = {names[j] for part in parts for j in _owners(part, starts)}
            else:  # views of what a parameter's entries were numbered in
                found = {name for name in homes if name is not None}
                if len(parts) == 1:
                    p = parts[0]
                    self._layouts[i] = (tuple(p.shape), p.stride(), int(p.storage_offset()))
            for name in found:
                self.of.setdefault(name, []).append(i)

    def key(self, name: str) -> tuple[object, ...] | None:
        """The same for parameters that are tied alike; None if that is not known."""
        used = self.of.get(name, ())
        if len(used) != 1 or used[0] not in self._layouts:
            return None
        tie_ = self.state.ties[used[0]]
        if tie_.key is None or tie_.signs is not None:
            return None
        return (_size(self.state, name), self._layouts[used[0]], tie_.key)

    def factors(self, name: str) -> list[Maps] | None:
        """Maps of the dimensions that a parameter moves by as their product, as it lies in memory, if it does."""
        used = self.of.get(name, ())
        if len(used) != 1 or used[0] not in self._layouts:
            return None
        tie_, (shape, stride, offset) = self.state.ties[used[0]], self._layouts[used[0]]
        if tie_.factors is None or tie_.signs is not None or offset != 0:
            return None
        if torch.Size(shape).numel() != _size(self.state, name):
            return None
        whole = torch.empty(shape, device="meta")
        if stride == whole.stride():
            return list(tie_.factors)
        if len(shape) == 2 and stride == whole.t().contiguous().t().stride():
            return list(tie_.factors[::-1])
        return None

    def pairs(self, name: str) -> list[list[Pair]]:
        """For each use of a parameter, for each generator, entries that have to be equal."""
        start = self.state.offsets[name]
        end = start + _size(self.state, name)
        found = []
        for i in self.of.get(name, ()):
            for pairs in self.state.ties[i].pairs():
                kept = []
                for a, b, sign in pairs:
                    ours = (a >= start) & (a < end)
                    if not bool(ours.all()):
                        a, b, sign = a[ours], b[ours], None if sign is None else sign[ours]
                    kept.append((a - start, b - start, sign))
                if kept and len(kept[0][0]):
                    found.append(kept)
        return found


def _owners(part: Tensor, starts: Tensor) -> set[int]:
    """Numbers of the parameters among whose entries a tensor reads."""
    flat = part.reshape(-1)
    flat = flat[flat >= 0]
    low, high = (int(torch.searchsorted(starts, e, right=True)) - 1 for e in flat.aminmax())
    if low == high:
        return {low}
    return set((torch.searchsorted(starts, flat, right=True) - 1).unique().tolist())


def _size(state: State, name: str) -> int:
    return state.sizes[name]


def untied(state: State) -> dict[str, str]:
    """Parameters that reach the outputs only through what is not understood."""
    found: dict[str, str] = {}
    for node in state.tape.nodes:
        result = state.known.get(node.outs[0]) if node.outs and node.outs[0] is not None else None
        if isinstance(result, Opaque):
            for t in node.ins:
                for name in _entries(state, t):
                    found.setdefault(name, result.reason)
    return found


Kind = tuple[FieldType, str]  # and how it is laid out, one of ``tokens.LAYOUTS``


def features(state: State) -> tuple[dict[str, Kind], dict[str, bool]]:
    """Types of what modules put out, where they have one; and of all, whether they are known to turn."""
    fields: dict[str, Kind | None] = {}
    turns: dict[str, bool] = {}
    seen: dict[int, Kind | None] = {}
    for path, t in state.tape.features:
        known = state.known.get(t)
        if t not in seen:  # a container puts out what its last module does
            seen[t] = _kind(state, known) if isinstance(known, Value) else None
        kind = seen[t]
        turns[path] = turns.get(path, True) and isinstance(known, Value)
        fields[path] = kind if path not in fields or fields[path] == kind else None
    return {p: k for p, k in fields.items() if k is not None}, turns


def _kind(state: State, value: Value) -> Kind | None:
    """Type and layout of a feature, if it is a batch of images in any of the layouts."""
    for layout in LAYOUTS:
        ids, *moved = (as_images(v, 1, layout) for v in (value.ids, *value.moved))
        if ids is None:
            continue
        image = value if layout == IMAGE else Value(ids, tuple(m for m in moved if m is not None))
        if (field := _field(state, image)) is not None:
            return field, layout
    return None


def _field(state: State, value: Value) -> FieldType | None:
    """The type of a feature (1, C, H, W), if its channels are regular and trivial fields."""
    if len(value.shape) != _IMAGE:
        return None
    if (parts := state.image(value)) is None:
        return None
    order, channels, terms, c = state.action.group.order, parts[1], [], 0
    n = value.shape[1]
    stay = torch.stack([p == torch.arange(n) for p in channels]).all(0).tolist()
    whole = _blocks(channels, state.action.regular(order)).tolist() if n >= order else []
    while c < n:
        if c < len(whole) and whole[c]:
            terms.append("1r")
            c += order
        elif stay[c]:
            terms.append("1t")
            c += 1
        else:
            return None
    return FieldType(state.action.group, " + ".join(terms))


def _blocks(channels: Maps, block: Maps) -> Tensor:
    """For each channel, whether a regular field begins there."""
    order = len(block[0])
    found = [
        (p.unfold(0, order, 1) == torch.arange(len(p) - order + 1)[:, None] + b).all(1)
        for p, b in zip(channels, block, strict=True)
    ]
    return torch.stack(found).all(0)
