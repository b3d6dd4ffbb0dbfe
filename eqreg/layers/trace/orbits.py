"""Entries of parameters that have to be equal, and the mean over them.

Where one use ties a parameter, its orbits are those of a group action, and the mean over an orbit is the
mean over the group. Where several uses tie it in different ways (shared weights, tables that are read
through indices), what has to be equal are the connected components of all ties together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...checks import wide
from ...symmetry.groups import Group
from ..reynolds import Index, Signed
from .action import Action, Maps, is_permutation, outer
from .state import Pair

_COPIES = 64
_SHORT = 64


def orbit_index(pairs: list[list[Pair]], numel: int, action: Action) -> Index | None:
    """Where a mean over orbits reads, for :func:`~eqreg.layers.reynolds.reynolds`: (copies * numel,), int32.

    Args:
        pairs: for each use, for each generator, entries and those that they have to equal.
        numel: size of the parameter.
        action: for the order of the generators.

    Returns:
        None if the orbits are too uneven for a mean of at most 64 copies.
    """
    if any(sign is not None for use in pairs for _, _, sign in use):
        return _signed(pairs, numel, action)
    if len(pairs) == 1 and all(len(a) == numel for a, _, _ in pairs[0]):
        maps = []
        for a, b, _ in pairs[0]:
            full = torch.full((numel,), -1, dtype=torch.int32)
            full[a] = b.int()
            maps.append(full)
        if all(map(is_permutation, maps)) and (elements := action.elements(tuple(maps))):
            return torch.cat(elements)
    labels = components([p for use in pairs for p in use], numel)
    return _repeated(labels)


def factored_mean(tensor: Tensor, factors: Sequence[Maps], group: Group) -> Tensor:
    """The mean over the group where a parameter's dimensions move each by itself: whole rows are read, no index.

    Args:
        tensor: the parameter.
        factors: for each of its dimensions, or of dimensions merged to one, the maps of the generators.
        group: for the order of the generators.
    """
    if len(factors) > 1 and len(factors[-1][0]) < _SHORT:  # short rows are quicker read as one
        last = tuple(outer(list(p)) for p in zip(*factors[-2:], strict=True))
        factors = [*factors[:-2], last]
    value = wide(tensor).reshape([len(maps[0]) for maps in factors])

    def halved(value: Tensor, moves: Sequence[Tensor]) -> Tensor:
        moved = value
        for d, m in enumerate(moves):
            if not torch.equal(m, torch.arange(len(m))):
                moved = moved.index_select(d, m.to(value.device))
        return (value + moved).mul_(0.5)

    # The mean over four turns is that over half a turn, and then over a quarter; flips come last.
    for g in range(len(factors[0])):
        moves = [maps[g] for maps in factors]
        if g == 0 and group.n == 4:
            value = halved(value, [m[m] for m in moves])
        value = halved(value, moves)
    return value.view(tensor.shape).to(tensor.dtype)


def _signed(pairs: list[list[Pair]], numel: int, action: Action) -> Signed | None:
    """The same where entries equal the negatives of others; None for several uses, or entries without a tie."""
    if len(pairs) != 1 or any(len(a) != numel for a, _, _ in pairs[0]):
        return None
    maps = []
    for a, b, sign in pairs[0]:
        minus = torch.zeros_like(a) if sign is None else (sign < 0).long()
        both = torch.full((2 * numel,), -1, dtype=torch.int32)  # entries, and their negatives
        both[a] = (b + minus * numel).int()
        both[a + numel] = (b + (1 - minus) * numel).int()
        maps.append(both)
    elements = action.elements(tuple(maps)) if all(map(is_permutation, maps)) else None
    return None if elements is None else Signed(torch.cat([e[:numel] for e in elements]))


def components(pairs: list[Pair], numel: int) -> Tensor:
    """The smallest entry of each entry's connected component."""
    labels = torch.arange(numel)
    a = torch.cat([p[0] for p in pairs])
    b = torch.cat([p[1] for p in pairs])
    while True:
        least = torch.minimum(labels[a], labels[b])
        new = labels.scatter_reduce(0, a, least, "amin").scatter_reduce(0, b, least, "amin")
        new = new[new]
        if torch.equal(new, labels):
            return labels
        labels = new


def _repeated(labels: Tensor) -> Tensor | None:
    """For each copy and entry a member of its orbit, each member equally often."""
    _, inverse, sizes = labels.unique(return_inverse=True, return_counts=True)
    copies = math.lcm(*sizes.unique().tolist())
    if copies > _COPIES:
        return None
    order = inverse.argsort(stable=True)
    start = sizes.cumsum(0) - sizes
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - start[inverse[order]]
    k = torch.arange(copies)[:, None]
    member = start[inverse] + (rank + k) % sizes[inverse]
    return order[member].reshape(-1).int()
