"""Ways in which a tensor could move, for an operation that objects to how it does."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch

from .action import Maps, outer
from .demand import image_map
from .state import Demand, State
from .values import Value

_IMAGE = 4


def propose(state: State, t: int | None, value: Value | None = None) -> Iterator[Demand]:
    """Ways in which a tensor could move, the likely ones first."""
    assert t is not None
    shape = state.tape.shapes[t]
    if value is None:
        known = state.known.get(t)
        value = known if isinstance(known, Value) else None
    stay = state.action.trivial

    def options(votes: Maps | None, n: int, regular: bool = True) -> list[Maps]:
        found = [votes] if votes is not None and state.action.obeys(votes) else []
        return [*found, *([state.action.regular(n)] if regular else []), stay(n)]

    def voted(sizes: tuple[int, ...]) -> list[Maps] | list[None]:
        return state.numbers.votes(value, sizes) if value is not None else [None] * len(sizes)

    if len(shape) == _IMAGE and shape[2] > 1 and (plane := state.action.plane(*shape[2:])):
        sizes = (*shape[:2], shape[2] * shape[3])
        votes = voted(sizes)
        for channels, batch in product(
            options(votes[1], sizes[1]), options(votes[0], sizes[0], False)
        ):
            parts = zip(batch, channels, plane, strict=True)
            yield [(t, tuple(outer(list(p)) for p in parts))]
    if len(shape) > 1:
        sizes = torch.Size(shape[:-1]).numel(), shape[-1]
        votes = voted(sizes)
        lines = state.numbers.rows(value) if value is not None else []
        for rows, channels in product(
            [*lines, *options(votes[0], sizes[0], False)], options(votes[1], sizes[1])
        ):
            yield [(t, tuple(outer(list(p)) for p in zip(rows, channels, strict=True)))]
        votes = voted(shape)
        lead = [options(v, n, False)[0] for v, n in zip(votes[:-1], shape[:-1], strict=True)]
        for channels in options(votes[-1], shape[-1]):
            yield [(t, tuple(outer(list(p)) for p in zip(*lead, channels, strict=True)))]


def whole_groups(state: State, t: int, groups: int) -> Iterator[Demand]:
    """An image whose channels come in groups: fields within each, or groups that change places."""
    shape = state.tape.shapes[t]
    each = shape[1] // groups
    stay, turn = state.action.trivial, state.action.regular
    for lead, within in ((stay(groups), turn(each)), (turn(groups), stay(each))):
        channels = tuple(outer([a, b]) for a, b in zip(lead, within, strict=True))
        if (maps := image_map(state, shape, channels)) is not None:
            yield [(t, maps)]
