"""The reading of a whole tape: forward, and back to an earlier choice where an operation objects."""

from __future__ import annotations

from itertools import chain, tee

from .action import Maps
from .demand import Trial, axis_of, complete, image_map, pushed
from .moves import MOVES, is_pointwise, spreads
from .rules import forward
from .state import Break, Conflict, Constant, Opaque, Param, State
from .tape import Node
from .values import Value

_RESTARTS = 300
# What operations of all kinds may raise when they run on numbers; a network must not stop a report.
_UNFORESEEN = (
    ArithmeticError,
    AssertionError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
_PADS = ("constant_pad_nd", "reflection_pad2d", "replication_pad2d")
_IMAGE = 4


def solve(state: State, asked: dict[int, Maps]) -> int:
    """Read the tape; ``asked`` says how outputs have to move.

    Returns:
        How often it began anew from an earlier choice.
    """
    nodes = _needed(state)
    for node in nodes:  # demands that run backwards have to know parameters when they meet them
        if node.name in MOVES and all(
            isinstance(state.known.get(t), Param | Constant) for t in node.ins
        ):
            forward(state, node)
    for t, maps in asked.items():
        if (trial := pushed(state, [(t, maps)])) is not None:
            state.wanted, state.bare = trial.wanted, trial.bare
    state.firm = dict(state.wanted)
    return _Solver(state, nodes).run()


def _needed(state: State) -> list[Node]:
    """Operations on which outputs or features depend."""
    wanted = {*state.tape.outputs, *(t for _, t in state.tape.features)}
    found = []
    for node in reversed(state.tape.nodes):
        if any(t in wanted for t in node.outs):
            wanted.update(node.ins)
            found.append(node)
    return found[::-1]


class Hopeless(Exception):
    """A brief reading met an operation that it cannot go on behind."""


class _Solver:
    def __init__(self, state: State, nodes: list[Node]) -> None:
        self.state, self.nodes = state, nodes
        self.place = {n.index: i for i, n in enumerate(nodes)}
        self.users: dict[int, int] = {}
        for i, n in enumerate(nodes):
            for t in n.ins:
                self.users.setdefault(t, i)
        self.marks = [(0, 0, 0)] * len(nodes)
        self.tried: set[tuple[int, int]] = set()
        self.restarts = 0

    def run(self) -> int:
        state, at = self.state, 0
        while at < len(self.nodes):
            node = self.nodes[at]
            self.marks[at] = (len(state.ties), len(state.breaks), state.numbers.next)
            try:
                forward(state, node)
                at += 1
            except _UNFORESEEN as error:
                reason = f"tracing it failed: {type(error).__name__}: {str(error).splitlines()[:1]}"
                self._give_up(node, reason, "report it, with the network")
                at += 1
            except Conflict as conflict:
                back = None
                if not self._assume(conflict, sampling=True):
                    back = self._mend(conflict, at)
                    if back is None:
                        back = self._bend(at)
                    if back is None and not self._assume(conflict, sampling=False):
                        self._give_up(node, conflict.reason, conflict.remedy)
                at = at + 1 if back is None else back
        return self.restarts

    def _give_up(self, node: Node, reason: str, remedy: str) -> None:
        if self.state.brief:
            raise Hopeless(reason)
        self.state.breaks.append(Break(node.path, node.name, reason, remedy))
        opaque = Opaque(f"behind {node.path or 'the model'}: {reason}")
        self.state.put(node, [opaque] * len(node.outs))

    def _mend(self, conflict: Conflict, at: int) -> int | None:
        """Take the first proposal that changes a choice; where to go on, or None."""
        if self.restarts >= _RESTARTS:
            return None
        once, again = tee(conflict.proposals)
        for demand, keep in chain(((d, True) for d in once), ((d, False) for d in again)):
            try:
                trial = pushed(self.state, demand, keep)
            except (Conflict, *_UNFORESEEN):
                continue  # a way back through an operation that cannot be read
            if trial is None:
                continue
            changed = self._changed(trial)
            key = (conflict.node.index, _digest(trial))
            if changed and key not in self.tried:
                self.tried.add(key)
                self.restarts += 1
                self._learn(trial)
                self.state.wanted, self.state.bare = trial.wanted, trial.bare
                return self._return_to(min(min(changed), at))
        return None

    def _return_to(self, back: int) -> int:
        ties, breaks, self.state.numbers.next = self.marks[back]
        del self.state.ties[ties:], self.state.breaks[breaks:]
        return back

    def _bend(self, at: int) -> int | None:
        """Blame the last padding of one side before a conflict that nothing mends; where to go on, or None."""
        for back in range(at - 1, -1, -1):
            node = self.nodes[back]
            if node.name in _PADS and node.index not in self.state.bent:
                pads = node.args[1]
                if any(a != b for a, b in zip(pads[::2], pads[1::2], strict=True)):
                    self.state.bent.add(node.index)
                    self.tried.clear()
                    return self._return_to(back)
        return None

    def _learn(self, trial: Trial) -> None:
        """Sister layers further on begin with what this one came to."""
        state = self.state
        for i, wanted in trial.wanted.items():
            if i in self.place and wanted is not state.wanted.get(i):
                full = [complete(state, w, g) for g, w in enumerate(wanted)]
                node = self.nodes[self.place[i]]
                if all(f is not None for f in full):
                    state.habits[state.kind(node)] = tuple(f for f in full if f is not None)

    def _changed(self, trial: Trial) -> list[int]:
        """Places of the operations whose choice a trial changes."""
        state = self.state
        places = [
            self.place[i]
            for i, w in trial.wanted.items()
            if i in self.place and _differs(state.chosen.get(i), w)
        ]
        return places + [
            self._first(t) for t, w in trial.bare.items() if _differs(state.bare.get(t), w)
        ]

    def _first(self, t: int) -> int:
        """Where the action of a parameter among data is chosen: as it is read, or where it meets what it outgrows."""
        made = self.state.producer.get(t)
        choice = made is not None and made.index in self.place and spreads(self.state, made)
        return self.place[made.index] if choice and made is not None else self.users[t]

    def _assume(self, conflict: Conflict, sampling: bool) -> bool:
        """Go on behind an operation that keeps channels as if it were equivariant, and say so."""
        state, node = self.state, conflict.node
        out = node.outs[0]
        if out is None or axis_of(state, node) is not None:
            return False
        made = state.tape.shapes[out]
        for t in node.ins:
            known = state.known[t]
            if (
                not isinstance(known, Value)
                or (maps := self._kept(node, t, known, made, sampling)) is None
            ):
                continue
            state.breaks.append(
                Break(node.path, node.name, conflict.reason, conflict.remedy, assumed=True)
            )
            state.put(node, [state.numbers.fresh(maps, made)])
            return True
        return False

    def _kept(
        self, node: Node, t: int, known: Value, made: tuple[int, ...], sampling: bool
    ) -> Maps | None:
        """How a result would move if it moved as an input does; pixels may be sampled."""
        state, given = self.state, self.state.tape.shapes[t]
        if given == made and not sampling and state.numbers.closed(known):
            return state.location(known)
        if sampling and is_pointwise(node):
            return None  # what is broadcast is not sampled: its partner decides
        same = len(given) == len(made) == _IMAGE and given[:2] == made[:2]
        if not same or (given != made) != sampling or (parts := state.image(known)) is None:
            return None
        return image_map(state, made, parts[1])


def _differs(old: Maps | None, new: Maps) -> bool:
    if old is None:
        return True
    return any(bool(((a != b) & (b >= 0)).any()) for a, b in zip(old, new, strict=True))


def _digest(trial: Trial) -> int:
    parts: list[tuple[str, int, bytes]] = []
    for kind, choices in (("channels", trial.wanted), ("data", trial.bare)):
        parts += [(kind, k, m.numpy().tobytes()) for k, maps in choices.items() for m in maps]
    return hash(tuple(sorted(parts)))
