"""Entries of parameters that have to be equal, and the mean over them.

Where one use ties a parameter, its orbits are those of a group action, and the mean over an orbit is the
mean over the group. Where several uses tie it in different ways (shared weights, tables that are read
through indices), what has to be equal are the connected components of all ties together.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..reynolds import Index, Signed
from .action import Action, is_permutation
from .state import Pair

_COPIES = 64


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
