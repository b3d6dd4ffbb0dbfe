"""Maps: where a turned copy reads its entries, and how the generators of a group move pixels and channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from ...symmetry.actions import quarter_turns, rotate
from ...symmetry.elements import Element, Group

Maps = tuple[Tensor, ...]  # flat maps "reads from", one for each generator; -1 is unknown


def outer(parts: Sequence[Tensor]) -> Tensor:
    """The flat map of a tensor whose dimensions are moved each by itself; unknown if one part is."""
    total = parts[0]
    for part in parts[1:]:
        total = torch.where(
            (total[:, None] < 0) | (part < 0), -1, total[:, None] * len(part) + part
        ).flatten()
    return total


def digest(*maps: Maps) -> bytes:
    """The same for equal maps."""
    return b"|".join(m.numpy().tobytes() for parts in maps for m in parts)


def is_permutation(p: Tensor) -> bool:
    """Whether a complete map reads every place once."""
    if len(p) == 0 or int(p.min()) < 0:
        return len(p) == 0
    seen = torch.zeros(len(p), dtype=torch.bool)
    seen[p] = True
    return bool(seen.all())


class Action:
    """How the generators of a group move pixels and channels; maps say where the turned copy reads."""

    def __init__(self, group: Group) -> None:
        if any(quarter_turns(g, group) is None for g in group.elements):
            raise ValueError(
                f"tracing moves pixels to pixels, which {group} does not; expected C2, C4, D2 or D4"
            )
        if group.order == 1:
            raise ValueError(f"{group} holds the identity alone: there is nothing to trace")
        self.group = group
        turns = [Element(1, 0)] if group.n > 1 else []
        self.generators = (*turns, *([Element(0, 1)] if group.has_flips else []))
        self.square = any((quarter_turns(g, group) or 0) % 2 for g in self.generators)
        self.plane = lru_cache(maxsize=None)(self._plane)
        self.regular = lru_cache(maxsize=None)(self._regular)

    def _plane(self, height: int, width: int) -> Maps | None:
        """The pixels of an image; None if it cannot be turned."""
        if self.square and height != width:
            return None
        pixels = torch.arange(height * width).view(height, width)
        return tuple(rotate(pixels, g, self.group).flatten() for g in self.generators)

    def _regular(self, channels: int) -> Maps:
        """As many regular fields as fit, then trivial ones."""
        order, found = self.group.order, []
        for g in self.generators:
            block = torch.empty(order, dtype=torch.long)
            block[torch.tensor(self.group.permutation(g))] = torch.arange(order)
            c, whole = torch.arange(channels), channels - channels % order
            found.append(torch.where(c < whole, c - c % order + block[c % order], c))
        return tuple(found)

    def obeys(self, maps: Maps) -> bool:
        """Whether maps of the generators are permutations with the relations of the group."""
        return all(map(is_permutation, maps)) and self.elements(maps) is not None

    def elements(self, maps: Maps) -> list[Tensor] | None:
        """The maps of all elements from permutations for the generators; None without the group's relations."""
        stay = torch.arange(len(maps[0]), dtype=maps[0].dtype)
        found = [stay]
        if self.group.n > 1:
            for _ in range(self.group.n - 1):
                found.append(maps[0].index_select(0, found[-1]))
            if not torch.equal(maps[0].index_select(0, found[-1]), stay):
                return None
        if self.group.has_flips:
            mirror = maps[-1]
            both = maps[0].index_select(0, mirror) if self.group.n > 1 else mirror
            if not all(torch.equal(m.index_select(0, m), stay) for m in (mirror, both)):
                return None
            found += [mirror.index_select(0, m) for m in found]
        return found

    def trivial(self, channels: int) -> Maps:
        """Everything stays."""
        return tuple(torch.arange(channels) for _ in self.generators)
