"""Types of feature fields: how the channels of a tensor move when the image is rotated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from .elements import Element, Group

_TERM = re.compile(r"(\d+)\s*([tr])")


@dataclass(frozen=True)
class FieldType:
    """A direct sum of trivial and regular fields of one group, in channel order.

    A trivial field (``t``) is one channel that keeps its place: grey values, a colour channel, a CT
    slice. A regular field (``r``) is ``group.order`` channels, one for each element, which the group
    permutes; in the layout (field, group) channel ``c = f * order + index(h)`` belongs to field ``f``
    and element ``h``. This is escnn's layout.

    Args:
        group: the group that acts.
        spec: terms like ``"3t + 8r"``; any number, any order.

    Raises:
        TypeError: if ``group`` is not a group or ``spec`` not a string.
        ValueError: if ``spec`` cannot be read or has no channel.

    >>> from eqreg import C4
    >>> FieldType(C4, "3t + 8r").channels
    35

    Reference: Weiler & Cesa, General E(2)-Equivariant Steerable CNNs, NeurIPS 2019.
    Taught in: notebooks/01.
    """

    group: Group
    spec: str

    def __post_init__(self) -> None:
        if not isinstance(self.group, Group):
            raise TypeError(f"group must be a Group such as C4, got {self.group!r}")
        if not isinstance(self.spec, str):
            raise TypeError(f'field type must be written like "3t + 8r", got {self.spec!r}')
        terms = [_TERM.fullmatch(part.strip()) for part in self.spec.split("+")]
        if not all(terms):
            raise ValueError(
                f"cannot read field type {self.spec!r}: expected terms <number>t (trivial) or "
                '<number>r (regular) joined by "+", such as "3t + 8r"'
            )
        # One spelling for one type, so that equal types compare equal: neighbours merge, zeros go.
        merged: list[tuple[int, str]] = []
        for term in terms:
            assert term is not None
            count, kind = int(term[1]), term[2]
            if merged and merged[-1][1] == kind:
                count += merged.pop()[0]
            if count:
                merged.append((count, kind))
        if not merged:
            raise ValueError(f"field type {self.spec!r} has no channel")
        object.__setattr__(self, "spec", " + ".join(f"{count}{kind}" for count, kind in merged))

    @property
    def terms(self) -> tuple[tuple[int, str], ...]:
        """The terms as pairs (multiplicity, ``"t"`` or ``"r"``)."""
        return tuple((int(part[:-1]), part[-1]) for part in self.spec.split(" + "))

    @property
    def channels(self) -> int:
        """Number of channels of the whole type."""
        return sum(count * (self.group.order if kind == "r" else 1) for count, kind in self.terms)

    def permutation(self, g: Element | int) -> tuple[int, ...]:
        """Where ``g`` sends every channel: channel ``c`` goes to ``permutation(g)[c]``."""
        return _permutation(self, self.group.element(g))

    def __str__(self) -> str:
        return self.spec

    def __repr__(self) -> str:
        return f'{self.group}.field("{self.spec}")'


def need_field(*fields: object) -> None:
    """Refuse what is not a field type.

    Raises:
        TypeError: it is none.
    """
    for field in fields:
        if not isinstance(field, FieldType):
            raise TypeError(f'expected a FieldType such as C4.field("8r"), got {repr(field):.60}')


@lru_cache(maxsize=1024)
def _permutation(field: FieldType, g: Element) -> tuple[int, ...]:
    moved: list[int] = []
    regular = field.group.permutation(g)
    for count, kind in field.terms:
        for _ in range(count):
            start = len(moved)
            moved.extend(start + p for p in (regular if kind == "r" else (0,)))
    return tuple(moved)
