"""What is known of each tensor while a tape is read, and what stops the reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .action import Action, Maps, outer
from .tape import Node, Tape
from .values import Numbers, Value, mix

Demand = list[tuple[int, Maps]]  # tensors, and how their entries ought to move
Pair = tuple[Tensor, Tensor, Tensor | None]  # entries, those that they equal, and by which sign


@dataclass(frozen=True, eq=False)
class Param:
    """A function of parameters, entry by entry: each part says which entry it reads, -1 for none."""

    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.parts[0].shape)

    @property
    def plain(self) -> bool:
        """Whether one number stands everywhere, which no turn can notice."""
        return all(bool((p == p.reshape(-1)[0]).all()) for p in self.parts)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that depends on neither input nor parameters."""

    value: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return tuple(self.value.shape)


@dataclass(frozen=True)
class Opaque:
    """A tensor whose action is not known; ``told`` if a break says so already."""

    reason: str
    told: bool = True


Known = Value | Param | Constant | Opaque


@dataclass(frozen=True)
class Break:
    """An operation that no choice of weights makes equivariant, or that tracing cannot carry.

    Attributes:
        path: of the innermost module that ran it.
        op: name of the operation.
        reason: what is wrong, with the sizes.
        remedy: what would mend it; empty if nothing is known.
        assumed: whether the trace went on as if the operation were equivariant; else all that depends on
            it is left out.
    """

    path: str
    op: str
    reason: str
    remedy: str = ""
    assumed: bool = False


class Conflict(Exception):
    """An operation that cannot carry the actions of its inputs as they are; proposals may mend it."""

    def __init__(
        self, node: Node, reason: str, proposals: Iterator[Demand], remedy: str = ""
    ) -> None:
        super().__init__(reason)
        self.node, self.reason, self.proposals, self.remedy = node, reason, proposals, remedy


@dataclass(frozen=True, eq=False)
class Tie:
    """One use of a parameter: its flattened entries have to equal those that the maps read."""

    param: Param
    maps: Callable[[], Maps] | Maps
    signs: Maps | None = None  # of flattened entries, where some equal the negative of others
    key: tuple[object, ...] | None = None  # what the maps are made of, the same for the same maps
    factors: tuple[Maps, ...] | None = None  # of each dimension, where the maps are their product

    def pairs(self) -> list[list[Pair]]:
        """For each part of the parameter, for each generator, entries that have to be equal."""
        maps = self.maps() if callable(self.maps) else self.maps
        found = []
        for part in self.param.parts:
            a, pairs = part.reshape(-1), []
            for g, m in enumerate(maps):
                b, sign = a[m], self.signs[g] if self.signs else None
                both = (a >= 0) & (b >= 0)
                if not bool(both.all()):
                    a_, b, sign = a[both], b[both], None if sign is None else sign[both]
                    pairs.append((a_, b, sign))
                else:
                    pairs.append((a, b, sign))
            found.append(pairs)
        return found


class Sources:
    """Where movements read, kept up to a number of bytes: demands pass them again and again."""

    _BYTES = 1 << 28

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Tensor] = {}
        self._bytes = 0

    def get(self, key: tuple[object, ...]) -> Tensor | None:
        """What was kept under a key."""
        return self._kept.get(key)

    def keep(self, key: tuple[object, ...], source: Tensor) -> None:
        """Keep one more, if there is room."""
        if self._bytes + source.nbytes <= self._BYTES:
            self._kept[key] = source
            self._bytes += source.nbytes


@dataclass
class State:
    """The reading of a tape."""

    tape: Tape
    action: Action
    turned: dict[int, Maps]  # how the inputs move
    offsets: dict[str, int]  # of each parameter's entries among all
    brief: bool = False  # stop at the first break that is more than an assumption
    numbers: Numbers = field(default_factory=Numbers)
    known: dict[int, Known] = field(default_factory=dict)
    producer: dict[int, Node] = field(default_factory=dict)
    wanted: dict[int, Maps] = field(default_factory=dict)  # output channels, by node; -1 is free
    firm: dict[int, Maps] = field(default_factory=dict)  # what of it the outputs ask for
    bare: dict[int, Maps] = field(default_factory=dict)  # parameters used as data, by tensor
    habits: dict[tuple[object, ...], Maps] = field(default_factory=dict)  # mended choices, by kind
    chosen: dict[int, Maps] = field(default_factory=dict)  # output channels as they were used
    free: set[int] = field(default_factory=set)  # made of parameters that may move in any way
    bent: set[int] = field(default_factory=set)  # one-sided paddings taken as if they were even
    homes: dict[int, str] = field(default_factory=dict)  # storages of entries: whose they are
    ties: list[Tie] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)  # of parameters, in entries
    sources: Sources = field(default_factory=Sources)

    def __post_init__(self) -> None:
        shapes = self.tape.shapes
        self.sizes = {n: torch.Size(shapes[t]).numel() for t, n in self.tape.parameters.items()}
        self.producer = {t: n for n in self.tape.nodes for t in n.outs if t is not None}
        self.begin()

    def begin(self) -> None:
        """What is known before the first operation."""
        tape = self.tape
        for t, value in tape.constants.items():
            self.known[t] = Constant(value)
        for t, name in tape.parameters.items():
            n = torch.Size(tape.shapes[t]).numel()
            entries = torch.arange(self.offsets[name], self.offsets[name] + n)
            self.homes[entries.untyped_storage().data_ptr()] = name
            self.known[t] = Param((entries.view(tape.shapes[t]),))
        for t, maps in self.turned.items():
            self.known[t] = self.numbers.fresh(maps, tape.shapes[t])

    def forget(self) -> None:
        """Free what only the reading needed; the ties stay."""
        self.known.clear()
        self.producer.clear()
        self.tape.nodes.clear()
        self.tape.constants.clear()
        self.numbers = Numbers()
        self.sources = Sources()

    def kind(self, node: Node) -> tuple[object, ...]:
        """What sister layers have in common: the name in their block, and sizes."""
        shapes = (self.tape.shapes[t] for t in (*node.ins[-2:], *node.outs) if t is not None)
        return (node.path.rsplit(".", 1)[-1], node.name, *shapes)

    def put(self, node: Node, results: list[Known]) -> None:
        """The results of an operation; those that are missing are opaque."""
        for i, t in enumerate(node.outs):
            if t is not None:
                self.known[t] = results[i] if i < len(results) else Opaque("not traced")

    def tie(
        self,
        param: Known | None,
        maps: Callable[[], Maps] | Maps,
        signs: Maps | None = None,
        key: tuple[object, ...] | None = None,
        factors: tuple[Maps, ...] | None = None,
    ) -> None:
        """Entries of a parameter that have to be equal: each with those that the maps read."""
        if isinstance(param, Param) and not param.plain:
            self.ties.append(Tie(param, maps, signs, key, factors))

    def image(self, value: Value) -> tuple[Maps, Maps] | None:
        """How batch and channels of (N, C, ...) move if the last two dimensions turn as an image."""
        plane = self.plane(value.shape[2:])
        if plane is None:
            return None
        sizes = (*value.shape[:2], len(plane[0]))
        parts = self.numbers.factors(value, sizes, plane)
        return None if parts is None else (parts[0], parts[1])

    def plane(self, size: tuple[int, ...]) -> Maps | None:
        """The last two dimensions turn, those before stay; None for fewer, or if they cannot turn."""
        plane = self.action.plane(*size[-2:]) if len(size) > 1 else None
        lead = torch.arange(torch.Size(size[:-2]).numel())
        return None if plane is None else tuple(outer([lead, p]) for p in plane)

    def location(self, value: Value) -> Maps | None:
        """How the entries of a tensor move, as maps that read every place once; None if that is not plain."""
        self.numbers.lookup(value)
        # Where numbers repeat over the pixels, only its shape tells an image from a constant.
        if value.source is None and (parts := self.image(value)) is not None:
            plane = self.plane(value.shape[2:])
            assert plane is not None
            return tuple(outer(list(p)) for p in zip(*parts, plane, strict=True))
        return self.numbers.location(value)

    def data(self, t: int) -> Value:
        """A tensor as numbers; a parameter among data moves as demanded, or stays."""
        known = self.known[t]
        if isinstance(known, Value):
            return known
        if isinstance(known, Constant):
            ids = self.numbers.constant(known.value)
            return Value(ids, tuple(ids for _ in self.action.generators))
        if isinstance(known, Opaque):
            raise AssertionError("opaque tensors are handled before")
        n = torch.Size(known.shape).numel()
        stay = torch.arange(n)
        maps = tuple(
            stay if m is None else torch.where(m < 0, stay, m)
            for m in self.bare.get(t, [None] * len(self.action.generators))
        )
        keys = sum(
            (mix(p, i) for i, p in enumerate(known.parts)),
            torch.zeros(known.shape, dtype=torch.long),
        )
        self.tie(known, maps)
        flat = keys.reshape(-1)
        if len(flat.unique()) == n:
            return self.numbers.fresh(maps, known.shape)
        return self.numbers.settle([keys, *(flat[m].view(known.shape) for m in maps)], None)
