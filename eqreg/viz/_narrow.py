"""A figure for a phone: the same axes in fewer columns at their natural size, instead of a small picture."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ._legends import below, names, thinned

# Figures and axes are Any: matplotlib's annotations know neither a figure's headline nor what axes share.

WIDTH = 3.55  # inches: 341 CSS pixels of the 343 that a page has on a phone of 375
_FITS = 3.8  # a figure up to here is hardly shrunk
_PICTURE = 1.7  # inches: of pictures at least two stand in a row
_SMALLEST = 7.0  # points: 9.3 CSS pixels
_LINE = 1.45 / 72  # inches of a line of text, for each point of its size
_GLYPH = 0.55 / 72  # and of a letter's width


@contextmanager
def narrowed(figure: Any) -> Iterator[bool]:
    """Arrange a figure for a phone, and back again.

    Pictures (axes without axis) stand two or three in a row, plots below each other; a row of the wide figure starts
    a new line. No text is smaller than 7 points, and titles break.

    Args:
        figure: one with a layout engine, such as of :func:`eqreg.viz.subplots`.

    Yields:
        Whether there is a narrow form: not of a figure that fits anyway, or whose axes stand freely.
    """
    axes = [ax for ax in figure.axes if ax.get_subplotspec() is not None]
    free = [ax for ax in figure.axes if ax not in axes and not hasattr(ax, "_colorbar_info")]
    engine = figure.get_layout_engine()
    if figure.get_figwidth() <= _FITS or not axes or free or figure.subfigs or engine is None:
        yield False
        return
    undo: list[Callable[[], Any]] = []
    try:
        _arrange(figure, axes, undo)
        yield True
    finally:
        for step in reversed(undo):
            step()


def _arrange(figure: Any, axes: list[Any], undo: list[Callable[[], Any]]) -> None:
    size = figure.get_size_inches().copy()
    undo.append(partial(figure.set_size_inches, size))
    rows: dict[int, dict[Any, list[Any]]] = {}
    for ax in axes:
        spec = ax.get_subplotspec()
        if ax.axison or ax.has_data() or ax.texts or ax.get_legend():
            place = (spec.rowspan.start, spec.colspan.start)
            rows.setdefault(place[0], {}).setdefault(place, []).append(ax)  # twins share a place
        else:  # an empty place of a grid
            undo += [partial(ax.set_visible, True), partial(ax.set_in_layout, True)]
            ax.set_visible(False)
            ax.set_in_layout(False)
    cells = max(len(row) for row in rows.values())
    wide = size[0] / max(1, max(ax.get_subplotspec().get_gridspec().ncols for ax in axes))
    columns = min(cells, max(2, int(WIDTH / min(wide, _PICTURE))))
    lines: list[list[list[Any]]] = []
    for _, row in sorted(rows.items()):
        line: list[list[Any]] = []
        for _, group in sorted(row.items()):
            if line and (
                len(line) == columns or not _is_picture(group) or not _is_picture(line[0])
            ):
                lines.append(line)
                line = []
            line.append(group)
        lines.append(line)
    heights = [_height(line, size[1], columns) for line in lines]
    head = figure._suptitle
    extra = 0.0
    if head is not None:
        _rewrite(head, WIDTH, undo)
        extra = (head.get_text().count("\n") + 1) * head.get_fontsize() * _LINE
    grid = figure.add_gridspec(len(lines), columns, height_ratios=heights)
    for i, line in enumerate(lines):
        alone = len(line) == 1 and not _is_picture(line[0])
        for j, group in enumerate(line):
            for ax in group:
                undo.append(partial(ax.set_subplotspec, ax.get_subplotspec()))
                ax.set_subplotspec(grid[i, :] if alone else grid[i, j])
                _own_labels(ax, undo)
    figure.set_size_inches(WIDTH, sum(heights) + extra)
    _readable(figure, undo)


def _is_picture(group: list[Any]) -> bool:
    return not group[0].axison


def _height(line: list[list[Any]], whole: float, columns: int) -> float:
    """Inches of a line: of plots as before, of pictures by their shape."""
    if not _is_picture(line[0]):
        spec = line[0][0].get_subplotspec()
        ratios = spec.get_gridspec().get_height_ratios() or [1] * spec.get_gridspec().nrows
        share = sum(ratios[i] for i in spec.rowspan) / sum(ratios)
        return max(1.6, whole * share)
    width = WIDTH / columns
    tallest, title = 0.0, 0.0
    for group in line:
        ax = group[0]
        across, down = (abs(b - a) for a, b in (ax.get_xlim(), ax.get_ylim()))
        shape = down / across if ax.images and across else 1.0
        tallest = max(tallest, width * shape)
        letters = max(4, int(width / (_GLYPH * ax.title.get_fontsize())))
        count = len(_broken(ax.get_title(), letters).splitlines())
        title = max(title, count * ax.title.get_fontsize() * _LINE)
    return tallest + title


def _own_labels(ax: Any, undo: list[Callable[[], Any]]) -> None:
    """What shared axes leave to their neighbour, each needs where they no longer stand beside it."""
    for axis, sides in (
        (ax.xaxis, ("labelbottom", "labeltop")),
        (ax.yaxis, ("labelleft", "labelright")),
    ):
        if axis._get_shared_axes() and len(axis._get_shared_axes()) > 1:
            now = axis.get_tick_params()
            if not any(now.get(side, True) for side in sides):
                name, first = axis.axis_name, sides[0]
                ax.tick_params(axis=name, **{first: True})
                undo.append(partial(ax.tick_params, axis=name, **{first: False}))
    spec = ax.get_subplotspec()
    width = (
        WIDTH if spec.is_first_col() and spec.is_last_col() else WIDTH / spec.get_gridspec().ncols
    )
    for text in (ax.title, ax._left_title, ax._right_title):
        _rewrite(text, width, undo)


def _rewrite(text: Any, width: float, undo: list[Callable[[], Any]]) -> None:
    old = text.get_text()
    new = _broken(old, max(4, int(width / (_GLYPH * text.get_fontsize()))))
    if new != old:
        text.set_text(new)
        undo.append(partial(text.set_text, old))


def _broken(text: str, letters: int) -> str:
    """Lines of at most so many letters, broken between words; formulas stay whole."""
    if "$" in text:
        return text
    return "\n".join(
        textwrap.fill(line, letters, break_long_words=False) for line in text.split("\n")
    )


def _readable(figure: Any, undo: list[Callable[[], Any]]) -> None:
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    for text in figure.findobj(Text):
        if 0 < text.get_fontsize() < _SMALLEST:
            undo.append(partial(text.set_fontsize, text.get_fontsize()))
            text.set_fontsize(_SMALLEST)
    with warnings.catch_warnings():
        # A wide legend or long names may leave a plot no room at all: that is what is mended here.
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.draw_without_rendering()
        below(figure, undo)
        figure.draw_without_rendering()
    for ax in figure.axes:
        if ax.axison and isinstance(ax.yaxis.get_major_formatter(), FixedFormatter | FuncFormatter):
            names(ax, figure.bbox.width, _SMALLEST, undo)
    figure.draw_without_rendering()
    for ax in figure.axes:
        if not isinstance(ax.xaxis.get_major_formatter(), FixedFormatter | FuncFormatter):
            continue  # numbers choose as many ticks as fit
        labels = [t for t in ax.get_xticklabels() if t.get_text() and ax.axison]
        boxes = [t.get_window_extent() for t in labels]
        if any(a.x1 > b.x0 for a, b in zip(boxes, boxes[1:], strict=False)):
            for label in labels:
                undo.append(partial(label.set_rotation, label.get_rotation()))
                label.set_rotation(90)
            thinned(labels, undo)
