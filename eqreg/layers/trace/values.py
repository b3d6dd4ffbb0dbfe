r"""Numbers for values: what every entry of a tensor holds, for an image and for its turned copies.

**Why numbers suffice.** Run the network on :math:`x` and on :math:`gx` for each generator :math:`g`, and give
two entries the same number only if they hold the same value for *every* image, given the ties found so far. If
each number of the turned run occurs in the upright run, then ``moved[i] == ids[R[i]]`` defines a map :math:`R`
with :math:`z_i(gx)=z_{R(i)}(x)`: the feature turns with the image. No formula for strides, windows or heads is
needed, since movement of data acts on numbers as it acts on values, and what computes on values is tied so
that equal numbers go to equal numbers. Two numbers that ought to be one only lose a symmetry; they never
invent one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .action import Maps, is_permutation, outer

_CONSTANTS = 1 << 16  # numbers below stand for constants
_PROBES = 24


def mix(a: Tensor, salt: int = 0) -> Tensor:
    """A hash of integers: equal to equal, and as good as random."""
    z = a * -7046029254386353131 + (salt * 2862933555777941757 + 3037000493) % (1 << 62)
    z = (z ^ ((z >> 32) & 0xFFFFFFFF)) * -2960836687157239405
    return z ^ ((z >> 29) & 0x7FFFFFFFF)


@dataclass(eq=False)
class Value:
    """Numbers of a tensor's entries, for the image and for each turned copy."""

    ids: Tensor
    moved: Maps
    source: Maps | None = None  # flat, where it is known and the numbers are distinct

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.ids.shape)

    def expand(self, shape: tuple[int, ...]) -> Value:
        """Broadcast, as pointwise operations do."""
        if self.shape == shape:
            return self
        return Value(self.ids.expand(shape), tuple(m.expand(shape) for m in self.moved))


class Numbers:
    """Hands out numbers and finds them again."""

    def __init__(self) -> None:
        self.next = _CONSTANTS
        self._constants: dict[float | None, int] = {}  # None is NaN, which equals nothing
        self._table = torch.zeros(0, dtype=torch.float64)
        self._where = torch.empty(0, dtype=torch.int32)

    def fresh(self, source: Maps, shape: tuple[int, ...]) -> Value:
        """Distinct numbers that move as ``source`` says."""
        base, n = self.next, len(source[0])
        self.next += n
        ids = torch.arange(base, base + n).view(shape)
        return Value(ids, tuple(base + s.view(shape) for s in source), source)

    def constant(self, t: Tensor) -> Tensor:
        """Numbers of constants, the same for the same value wherever it appears."""
        values, inverse = t.double().unique(return_inverse=True)
        found = [None if math.isnan(v) else v for v in values.tolist()]
        for v in found:
            self._constants.setdefault(v, len(self._constants))
        if len(self._constants) >= _CONSTANTS:
            raise MemoryError("more than 65536 different constants meet the data")
        table = [math.nan if v is None else v for v in self._constants]
        self._table = torch.tensor(table, dtype=torch.float64)
        return torch.tensor([self._constants[v] for v in found])[inverse]

    def draw(self, ids: Tensor, salt: int) -> Tensor:
        """A random value in [0.5, 1.5) for each number; constants have their own."""
        drawn = (mix(ids, salt) & ((1 << 52) - 1)).double() / (1 << 52) + 0.5
        fixed = ids < _CONSTANTS
        if bool(fixed.any()):
            drawn[fixed] = self._table[ids[fixed]]
        return drawn

    def find(self, ids: Tensor, wanted: Tensor) -> Tensor:
        """For each wanted number a place where ``ids`` has it, or -1; all flat."""
        if len(self._where) < self.next:
            self._where = torch.zeros(2 * self.next, dtype=torch.int32)
        self._where[ids] = torch.arange(len(ids), dtype=torch.int32)
        # What earlier calls left behind is recognised by reading back.
        found = self._where[wanted].long().clamp_(max=len(ids) - 1)
        return torch.where(ids[found] == wanted, found, -1)

    def lookup(self, value: Value) -> Maps:
        """Where each moved number sits; one place of several if numbers repeat, -1 if nowhere."""
        if value.source is not None:
            return value.source
        flat = value.ids.reshape(-1)
        found = tuple(self.find(flat, m.reshape(-1)) for m in value.moved)
        if all(bool((f >= 0).all()) for f in found) and self.distinct(value):
            value.source = found
        return found

    def _once(self, ids: Tensor, looked: Tensor) -> Tensor:
        """A lookup that knows only the numbers that do not repeat, such as padding does."""
        last = len(ids) - 1
        alone = self.find(ids.flip(0), ids) + self.find(ids, ids) == last
        return torch.where((looked >= 0) & alone[looked.clamp_min(0)], looked, -1)

    def distinct(self, value: Value) -> bool:
        """Whether no number repeats."""
        flat = value.ids.reshape(-1)
        return value.source is not None or bool(
            (self.find(flat, flat) == torch.arange(len(flat))).all()
        )

    def closed(self, value: Value) -> bool:
        """Whether the turned run holds no number that the upright one lacks."""
        return all(bool((f >= 0).all()) for f in self.lookup(value))

    def settle(self, keys: Sequence[Tensor], guess: Maps | None) -> Value:
        """Numbers from keys, one tensor of them for each run; a guess that fits spares the sorting."""
        shape = tuple(keys[0].shape)
        flat = [k.reshape(-1) for k in keys]
        if guess is not None and all(
            bool((flat[0][g] == k).all()) for g, k in zip(guess, flat[1:], strict=True)
        ):
            return self.fresh(guess, shape)
        values, inverse = torch.cat(flat).unique(return_inverse=True)
        inverse = inverse + self.next
        self.next += len(values)
        ids, *moved = (part.view(shape) for part in inverse.chunk(len(flat)))
        return Value(ids, tuple(moved))

    def location(self, value: Value) -> Maps | None:
        """Maps with ``ids[map] == moved`` that read every place once, or None where they are not plain."""
        self.lookup(value)
        if value.source is not None:
            return value.source
        for sizes in _groupings(value.shape):
            found = self.factors(value, sizes)
            if found is not None:
                return tuple(outer(parts) for parts in zip(*found, strict=True))
        return None

    def factors(
        self, value: Value, sizes: Sequence[int], last: Maps | None = None
    ) -> list[Maps] | None:
        """Maps of each dimension of ``value`` seen with ``sizes``, if it moves as their product.

        ``last`` is tried for the last dimension in place of what the numbers say, which is not unique
        where they repeat (padding by copies).
        """
        votes = self.votes(value, sizes)
        if last is not None:
            votes[-1] = last
        flat = value.ids.reshape(-1)
        for g, moved in enumerate(value.moved):
            parts = [
                v[g] if is_permutation(v[g]) else torch.arange(n)
                for v, n in zip(votes, sizes, strict=True)
            ]
            if not bool((flat[outer(parts)] == moved.reshape(-1)).all()):
                return None
            for d, part in enumerate(parts):
                votes[d] = (*votes[d][:g], part, *votes[d][g + 1 :])
        return votes

    def votes(self, value: Value, sizes: Sequence[int]) -> list[Maps]:
        """For each dimension, where most of a few lines along it say it reads; -1 where none knows.

        Where numbers repeat, lines are told apart by what they hold in any order.
        """
        lookups = self.lookup(value)
        if value.source is None:
            lookups = tuple(map(self._once, [value.ids.reshape(-1)] * len(lookups), lookups))
        found: list[Maps] = []
        stride = lookups[0].numel()
        for d, n in enumerate(sizes):
            stride //= max(n, 1)
            maps = []
            for looked, moved in zip(lookups, value.moved, strict=True):
                lines = looked.view(sizes).movedim(d, 0).reshape(n, -1)
                chosen = _sample(lines.shape[1])
                lines = lines[:, chosen]
                # Lines that do not know differ from each other, so that they outvote nobody.
                unknown = -1 - torch.arange(lines.shape[1])
                said = torch.where(lines < 0, unknown, lines // stride % n)
                agreed = torch.equal(said, said[:, :1].expand_as(said))
                votes = (said[:, 0] if agreed else said.mode(1).values).clamp_min(-1)
                if value.source is None and not is_permutation(votes):
                    held = _held(value.ids, moved, sizes, d)
                    votes = votes if held is None else held
                maps.append(votes)
            found.append(tuple(maps))
        return found

    def rows(self, value: Value) -> list[Maps]:
        """Maps of the rows of (..., C) that single columns move by, the most common first."""
        n = value.shape[-1]
        looked = [m.view(-1, n) for m in self.lookup(value)]
        votes: dict[bytes, list[Maps]] = {}
        for c in _sample(n).tolist():
            maps = tuple(torch.where(m[:, c] < 0, -1, m[:, c] // n) for m in looked)
            if all(map(is_permutation, maps)):
                votes.setdefault(torch.cat(maps).numpy().tobytes(), []).append(maps)
        return [v[0] for v in sorted(votes.values(), key=len, reverse=True)[:3]]


def _held(ids: Tensor, moved: Tensor, sizes: Sequence[int], d: int) -> Tensor | None:
    """How one dimension moves by what its lines hold, in any order; None if other lines are there."""
    others = [i for i in range(len(sizes)) if i != d]
    return match(
        *(mix(v).reshape(*sizes).sum(others) if others else v.reshape(-1) for v in (ids, moved))
    )


def _sample(n: int) -> Tensor:
    """A few of ``n`` lines, by hash, so that they do not fall into the rhythm of a dimension."""
    i = torch.arange(min(n, _PROBES))
    return i if n <= _PROBES else ((mix(i, 5) >> 20) & 0xFFFFFFF) % n


def _groupings(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ways to see a shape as dimensions that may move each by itself; two of an image move together."""
    found = [shape]
    for d in range(len(shape) - 1):
        found.append((*shape[:d], shape[d] * shape[d + 1], *shape[d + 2 :]))
    if len(shape) > 2:
        found.append((torch.Size(shape[:-1]).numel(), shape[-1]))
    return found


def match(keys: Tensor, moved: Tensor) -> Tensor | None:
    """The map with ``keys[map] == moved``; equal keys are paired in order. None if there is none."""
    a, b = keys.sort(stable=True), moved.sort(stable=True)
    if not torch.equal(a.values, b.values):
        return None
    found = torch.empty_like(a.indices)
    found[b.indices] = a.indices
    return found


def each(call: Callable[[Tensor], Tensor], value: Value) -> list[Tensor]:
    """A function of numbers, for all runs."""
    return [call(value.ids), *(call(m) for m in value.moved)]
