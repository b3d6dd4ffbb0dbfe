"""What all groups of planar rotations and mirrors share. No torch here: groups are plain values.

Conventions (the notation page has them all): a *turn* of a group with ``n`` rotations is ``360/n``
degrees counter-clockwise as an image is displayed, and an element with ``flip`` set mirrors left and
right *first* and turns afterwards. An ``int k`` stands for ``k`` turns wherever an element is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from operator import index as as_int
from typing import NamedTuple


class Element(NamedTuple):
    """A group element: ``turns`` counter-clockwise turns after ``flip`` left-right mirrorings.

    >>> from eqreg import D4
    >>> D4.compose(Element(1, 1), Element(1, 1))  # mirror, turn, mirror, turn: nothing has changed
    Element(turns=0, flip=0)
    """

    turns: int
    flip: int = 0


@dataclass(frozen=True)
class Group:
    """What cyclic and dihedral groups share; use :class:`CyclicGroup` or :class:`DihedralGroup`.

    Args:
        n: number of rotations, an int >= 1.

    Raises:
        TypeError: if ``n`` is not an int.
        ValueError: if ``n`` < 1.
    """

    n: int
    has_flips = False

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int):
            raise TypeError(f"number of rotations n must be an int, got {self.n!r}")
        if self.n < 1:
            raise ValueError(f"number of rotations n must be at least 1, got {self.n}")
        if type(self) is Group:
            raise TypeError("Group is abstract: use CyclicGroup(n) or DihedralGroup(n)")

    @property
    def order(self) -> int:
        """Number of elements."""
        return self.n * (2 if self.has_flips else 1)

    @cached_property
    def elements(self) -> tuple[Element, ...]:
        """All elements, first the rotations by 0, 1, ..., n-1 turns, then the same behind a flip.

        The order numbers the channels of a regular field; it is escnn's.
        """
        flips = (0, 1) if self.has_flips else (0,)
        return tuple(Element(k, f) for f in flips for k in range(self.n))

    @property
    def identity(self) -> Element:
        """The element that moves nothing."""
        return Element(0, 0)

    def element(self, g: Element | tuple[int, int] | int) -> Element:
        """The canonical element for ``g``: an int is that many turns, taken modulo ``n``.

        Raises:
            TypeError: if ``g`` is neither an int nor a pair (turns, flip).
            ValueError: if ``g`` flips and the group does not.
        """
        try:
            turns, flip = g if isinstance(g, tuple) else (g, 0)
            turns, flip = as_int(turns), as_int(flip)
        except (TypeError, ValueError):
            raise TypeError(
                f"expected an element of {self}, given as an int (turns) or a pair (turns, flip), got {g!r}"
            ) from None
        if flip not in ((0, 1) if self.has_flips else (0,)):
            allowed = "0 or 1" if self.has_flips else "0: it holds rotations only"
            raise ValueError(f"{g!r} is not an element of {self}: flip must be {allowed}")
        return Element(turns % self.n, flip)

    def compose(self, a: Element | int, b: Element | int) -> Element:
        """The product ``ab``: first ``b``, then ``a``."""
        a, b = self.element(a), self.element(b)
        # Moving a rotation past a flip reverses it: F R = R^-1 F.
        return Element((a.turns + (-b.turns if a.flip else b.turns)) % self.n, a.flip ^ b.flip)

    def inverse(self, g: Element | int) -> Element:
        """The element that undoes ``g``."""
        g = self.element(g)
        return g if g.flip else Element(-g.turns % self.n, 0)

    def index(self, g: Element | int) -> int:
        """Position of ``g`` in :attr:`elements`."""
        g = self.element(g)
        return g.flip * self.n + g.turns

    def angle(self, g: Element | int) -> float:
        """Rotation angle of ``g`` in degrees, counter-clockwise, in [0, 360)."""
        return 360.0 * self.element(g).turns / self.n

    def permutation(self, g: Element | int) -> tuple[int, ...]:
        """The regular representation of ``g`` as a permutation: ``e_h`` goes to ``e_(gh)``.

        Returns:
            ``p`` of length ``order`` with ``p[index(h)] == index(gh)``. For a cyclic group this is
            the shift ``p[h] = h + g``.

        >>> from eqreg import C4
        >>> C4.permutation(1)
        (1, 2, 3, 0)
        """
        return _permutation(self, self.element(g))


def need_group(group: object) -> None:
    """Refuse what is not a group.

    Raises:
        TypeError: it is none.

    >>> need_group(4)
    Traceback (most recent call last):
        ...
    TypeError: group must be a Group such as C4 (from eqreg import C4), got 4
    """
    if not isinstance(group, Group):
        raise TypeError(
            f"group must be a Group such as C4 (from eqreg import C4), got {repr(group):.60}"
        )


@lru_cache(maxsize=1024)
def _permutation(group: Group, g: Element) -> tuple[int, ...]:
    return tuple(group.index(group.compose(g, h)) for h in group.elements)
