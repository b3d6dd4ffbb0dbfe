"""The groups of the book: C_n of rotations, D_n of rotations and mirrors."""

from __future__ import annotations

from dataclasses import dataclass

from .elements import Element, Group, need_group
from .fields import FieldType

__all__ = [
    "C1", "C2", "C4", "C8", "D4", "CyclicGroup", "DihedralGroup", "Element", "Group", "need_group",
]  # fmt: skip


@dataclass(frozen=True, repr=False)
class _Typed(Group):
    """A group that writes the types of its feature fields."""

    def field(self, spec: str) -> FieldType:
        """The feature type written ``spec``, for example ``C4.field("3t + 8r")``."""
        return FieldType(self, spec)


@dataclass(frozen=True, repr=False)
class CyclicGroup(_Typed):
    """C_n, the rotations by multiples of 360/n degrees.

    >>> CyclicGroup(4).compose(3, 2)
    Element(turns=1, flip=0)
    """

    def __repr__(self) -> str:
        return f"C{self.n}"


@dataclass(frozen=True, repr=False)
class DihedralGroup(_Typed):
    """D_n, the rotations by multiples of 360/n degrees and the n mirrorings; order 2n.

    >>> DihedralGroup(4).compose(Element(0, 1), 1)
    Element(turns=3, flip=1)
    """

    has_flips = True

    def __repr__(self) -> str:
        return f"D{self.n}"


C1, C2, C4, C8 = CyclicGroup(1), CyclicGroup(2), CyclicGroup(4), CyclicGroup(8)
D4 = DihedralGroup(4)
