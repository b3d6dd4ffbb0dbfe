"""Why is my network not equivariant? One call with a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ..checks import need_whole
from ..layers.grid import exact_sizes
from ..layers.plan import ROOT, as_table
from ..layers.wrappers import unwrapped
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group, need_group

if TYPE_CHECKING:  # tracing is imported when it is asked for, so that the package loads fast
    from ..layers.trace import Break

_EXACT = 1e-8
_IMAGE = 4
_REACH, _ENOUGH = 64, 3  # a search goes so many pixels further, for so many sizes
_OF_SIZE = (
    "choose padding and sizes",
    "give sizes that need no padding",
    "use sizes that the stride divides",
)
_HEAD = ("module", "operation", "what breaks the symmetry", "what would mend it")


@dataclass(frozen=True)
class Report:
    """What :func:`check` found; true if the network can be made exactly equivariant at this size.

    Attributes:
        model: name of its class.
        group: the group.
        size: height of the example, in pixels.
        breaks: operations that no weights make equivariant, in the order of execution.
        untied: parameters whose action is not known, with the reason.
        parameters: share of the parameters whose action is known, in [0, 1].
        features: share of the modules' outputs whose action is known, in [0, 1].
        error: relative error of the network as it is, in float64, the largest over the generators.
        tied_error: the same after noise on all parameters and tying them.
        sizes: for each size tried, ``tied_error`` there; None if the network refused it.
        searched: first and last of the sizes among which :func:`check` searched; None if it did not.
        unasked: shapes of outputs that are neither images that can turn nor vectors: nothing is claimed of them.

    A stride of 2 fits 9 pixels, and 8 it does not (chapter 4):

    >>> from eqreg import C4
    >>> half = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    >>> [check(half, torch.rand(1, 1, size, size), C4).ok for size in (8, 9)]
    [False, True]
    """

    model: str
    group: Group
    size: int
    breaks: tuple[Break, ...]
    untied: dict[str, str]
    parameters: float
    features: float
    error: float
    tied_error: float
    sizes: dict[int, float | None]
    unasked: tuple[tuple[int, ...], ...] = ()
    searched: tuple[int, int] | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing breaks, so that tied weights make the network exactly equivariant, in all its outputs."""
        return not self.breaks and not self.unasked and self.tied_error <= _EXACT

    def __bool__(self) -> bool:
        return self.ok

    def _summary(self) -> list[str]:
        known = f"{self.parameters:.1%} of the parameters and {self.features:.1%} of the features turn in a known way"
        found = [
            f"{self.model} under {self.group} at {self.size} x {self.size}: "
            + (
                "can be made exactly equivariant"
                if self.ok
                else "nothing is known of an output"
                if self.unasked and not self.breaks
                else "one operation breaks it"
                if len(self.breaks) == 1
                else f"{len(self.breaks)} operations break it"
            ),
            f"error as it is {self.error:.1e}, with tied weights {self.tied_error:.1e}; {known}",
        ]
        found += [
            f"an output of shape {shape} is neither an image that can turn nor a vector: what a turn should do to it "
            "is not known, and nothing is claimed of it; let the network return images (B, C, H, W)"
            for shape in self.unasked
        ]
        exact = [str(s) for s, e in self.sizes.items() if e is not None and e <= _EXACT]
        if self.searched:
            first, last = self.searched
            some = f"the next are {', '.join(exact)}" if exact else "there is none"
            found.append(f"sizes from {first} to {last} at which tied weights are exact: {some}")
        elif self.sizes:
            tried = f"of the sizes {min(self.sizes)} to {max(self.sizes)} tried"
            found.append(f"exact with tied weights {tried}: {', '.join(exact) or 'none'}")
        elif any(b.remedy.startswith(_OF_SIZE) for b in self.breaks):
            found.append("sizes='search' looks for sizes at which strides are exact")
        return found

    def _rows(self) -> list[tuple[str, str, str, str]]:
        return [(b.path or ROOT, b.op, b.reason, b.remedy) for b in self.breaks]

    def __str__(self) -> str:
        table = [as_table([_HEAD, *self._rows()])] if self.breaks else []
        return "\n".join(self._summary() + table)

    def _repr_html_(self) -> str:
        lines = "<br>".join(map(escape, self._summary()))
        if not self.breaks:
            return f"<p>{lines}</p>"
        rows = [
            "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
            for tag, row in [("th", _HEAD), *(("td", row) for row in self._rows())]
        ]
        return f"<p>{lines}</p><table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def check(
    model: nn.Module,
    x: Any,
    group: Group,
    *,
    turn: Sequence[bool] | None = None,
    in_fields: Sequence[FieldType | None] | None = None,
    out_fields: Sequence[FieldType | None] | None = None,
    sizes: Sequence[int] | Literal["search"] = (),
) -> Report:
    """Trace a network and say what keeps it from being equivariant.

    Args:
        model: any module; it is copied, not changed.
        x: an example input: a tensor, a tuple of positional or a dict of keyword arguments.
        group: C2, C4, D2 or D4.
        turn, in_fields, out_fields: which input tensors turn, and types of inputs and outputs, in order; by
            default images turn, and images and outputs are trivial.
        sizes: heights of square images at which the tied network is measured as well; ``"search"`` looks for the next
            three above the example's, up to 64 pixels more, at which it is exact.

    Returns:
        A report, to print, to show in a notebook, or to assert::

            assert check(model, x, C4), check(model, x, C4)

    Raises:
        TypeError: for what is no group, or sizes that are no numbers.
        ValueError: for groups that do not move pixels to pixels, inputs that cannot be turned, or sizes below 1.

    >>> from eqreg import C4
    >>> bool(check(nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 8, 8), C4))
    True
    """
    from ..layers.trace import tie
    from ..layers.trace.defect import defect, disturb_, single, tied_defect
    from ..layers.trace.ties import copied

    need_group(group)
    given = {"turn": turn, "in_fields": in_fields, "out_fields": out_fields}
    ties = tie(model, x, group, **given)  # type: ignore[arg-type]
    x = single(x)
    rest = (ties.action, turn, in_fields, out_fields)
    core = copied(unwrapped(model)).cpu().double().eval()
    error = defect(core, x, *rest)
    measured: dict[int, float | None] = {}
    images = [t for t in tree_leaves(x) if isinstance(t, Tensor) and t.ndim >= 2]
    height = images[0].shape[-2] if images else 0
    searched = (height + 1, height + _REACH) if sizes == "search" else None
    tried: Iterable[int] = _candidates(core, x, *searched) if searched else _need_sizes(sizes)
    if sizes:
        if all(t.ndim != _IMAGE for t in images):
            raise ValueError(
                f"sizes= resizes images (B, C, H, W), got {', '.join(str(tuple(t.shape)) for t in images)}"
            )
        disturb_(core, x)
        ties.project_(core)
    for size in tried:
        proved = any(e is not None and e <= _EXACT for e in measured.values())
        try:
            measured[size] = tied_defect(core, _resized(x, size), *rest, proved=proved)
        except (RuntimeError, ValueError, AssertionError):
            measured[size] = None
        if searched and sum(e is not None and e <= _EXACT for e in measured.values()) == _ENOUGH:
            break
    return Report(
        type(unwrapped(model)).__name__, group, height, ties.breaks, ties.untied, ties.coverage,
        sum(ties.features.values()) / max(1, len(ties.features)), error, ties.error, measured,
        ties.unasked, searched,
    )  # fmt: skip


def _need_sizes(sizes: Any) -> Sequence[int]:
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise TypeError(f"sizes: expected whole numbers or 'search', got {sizes!r:.60}")
    for size in sizes:
        need_whole(size, "sizes", 1)
    return sizes


def _candidates(core: nn.Module, x: Any, first: int, last: int) -> Iterator[int]:
    """Sizes at which the network runs and no module's stride misses the grid; functions are left to the measurement."""
    from ..layers.trace.defect import as_call

    image = next(t for t in tree_leaves(x) if isinstance(t, Tensor) and t.ndim == _IMAGE)
    for size in range(first, last + 1):
        args, kwargs = as_call(_resized(x, size))
        if exact_sizes(core, image, [size], lambda _, a=args, k=kwargs: core(*a, **k)):
            yield size


def _resized(x: Any, size: int) -> Any:
    generator = torch.Generator().manual_seed(0)

    def resize(a: Any) -> Any:
        if not isinstance(a, Tensor) or a.ndim != _IMAGE:
            return a
        return torch.rand(*a.shape[:2], size, size, dtype=a.dtype, generator=generator)

    return tree_map(resize, x)
