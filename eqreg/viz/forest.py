"""A forest plot: what every task says about the same contrasts, with both intervals and the verdict in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..measure.contrasts import Contrast
from ._figure import COLORS, subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROW, _HEAD = 0.27, 0.62  # inches for a contrast, and for a task's title and axis
_TEXT = 8  # points
_COLOR = {"gain": "blue", "loss": "vermilion", "equivalent": "green", "undecided": "black"}
_APART = 0.24  # of a row, between the intervals over seeds and over images


def forest(
    tasks: Mapping[str, Sequence[Contrast]],
    margins: Mapping[str, float],
    *,
    units: Mapping[str, tuple[str, float]] | None = None,
    reach: Mapping[str, float] | None = None,
) -> Figure:
    """One panel a task, one row a contrast.

    In each row a dot at the mean difference; above, thick, its 95 % interval over seeds by the pooled error;
    below, thin with ends, the one over test images; at the right the verdict. What lies within the margin of zero
    is shaded; the margin stands in the title. The dot of what is undecided is empty.

    Args:
        tasks: title -> contrasts of ``eqreg.measure.contrasts``, in the order from top to bottom.
        margins: title -> margin of that task, in the unit of its contrasts.
        units: title -> name of the unit and what the numbers are multiplied by, such as ``("points", 100)``;
            ``("dB", 1)`` for tasks that are not named.
        reach: title -> where the axis ends on both sides, in the unit of the contrasts, so that several figures can
            be compared; intervals that are longer are cut. By default, all intervals fit.

    Returns:
        The figure.

    Raises:
        ValueError: no task, a task without contrasts or margin, or a number that is not finite; the message
            names it. Also a reach that is not positive, or of no task here.
    """
    _check(tasks, margins)
    for title, far in (reach or {}).items():
        if title not in tasks or not 0 < far < math.inf:
            raise ValueError(
                f"forest: expected positive reaches of {', '.join(tasks)}, got {far} of {title}"
            )
    count = sum(len(rows) for rows in tasks.values())
    height = _ROW * count + _HEAD * len(tasks)
    heights = [_ROW * len(rows) + _HEAD for rows in tasks.values()]
    figure, axes = subplots(
        len(tasks), 1, size=(7.0, height), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for (title, rows), ax in zip(tasks.items(), axes[:, 0], strict=True):
        unit, scale = (units or {}).get(title, ("dB", 1.0))
        margin = scale * margins[title]
        ends = (reach or {}).get(title)
        ax.axvspan(-margin, margin, color="0.9", zorder=0)
        ax.axvline(0, color="0.5", lw=0.8, zorder=1)
        longest = margin
        for place, c in enumerate(rows):
            color = COLORS[_COLOR[c.verdict]]
            mean, half = scale * c.mean, scale * c.half
            # Solid, whatever the cycle of styles has come to.
            ax.plot([mean - half, mean + half], [place - _APART / 2] * 2, "-", color=color, lw=3)
            filled = "white" if c.verdict == "undecided" else color
            ax.plot(mean, place - _APART / 2, "o", color=color, markerfacecolor=filled, ms=6)
            longest = max(longest, abs(mean) + half)
            if not math.isnan(c.image_half):
                wide = scale * c.image_half
                ax.errorbar(
                    mean, place + _APART, xerr=wide, fmt="none", ecolor=color, capsize=2, lw=1
                )
                longest = max(longest, abs(mean) + wide)
            ax.annotate(
                c.verdict, (1.0, place), xycoords=("axes fraction", "data"), va="center",
                xytext=(6, 0), textcoords="offset points", fontsize=_TEXT, color=color,
            )  # fmt: skip
        far = 1.1 * longest if ends is None else scale * ends
        ax.set_xlim(-far, far)
        ax.set_ylim(len(rows) - 0.4, -0.6)  # the first row on top
        ax.set_yticks(range(len(rows)), [f"{c.a} − {c.b}" for c in rows], fontsize=_TEXT)
        ax.set_title(f"{title}, {unit} (±{margin:g})", fontsize=_TEXT + 1, loc="left")
        ax.tick_params(axis="x", labelsize=_TEXT)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    return figure


def _check(tasks: Mapping[str, Sequence[Contrast]], margins: Mapping[str, float]) -> None:
    if not tasks:
        raise ValueError("forest: expected at least one task, got none")
    for title, rows in tasks.items():
        if not rows:
            raise ValueError(f"forest: expected contrasts of {title}, got none")
        if not 0 < margins.get(title, math.nan) < math.inf:
            raise ValueError(
                f"forest: expected a positive margin of {title}, got {margins.get(title)}"
            )
        for c in rows:
            if not (math.isfinite(c.mean) and math.isfinite(c.half)) or math.isinf(c.image_half):
                raise ValueError(f"forest: expected finite numbers for {c.a} - {c.b} of {title}")
