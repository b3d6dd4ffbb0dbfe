"""Legends and names beside a plot on a phone, where they would cover its lines or leave it no room."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

_MANY = 4  # entries that may stand within a plot
_GAP = 4  # points between a plot's lowest text and its legend


def below(figure: Any, undo: list[Callable[[], Any]]) -> None:
    """Legends that are long, stand outside or lie on a line go below their plots, in as many columns as fit.

    The figure grows by their heights. Expects a figure that is drawn.
    """
    from matplotlib.transforms import ScaledTranslation

    dots, width = figure.dpi, figure.bbox.width
    for legend in list(figure.legends):
        _fit(legend, width, undo)
    grown = 0.0
    for ax in figure.axes:
        legend = ax.get_legend()
        if legend is None:
            continue
        box, inside = legend.get_window_extent(), ax.bbox
        outside = box.x0 < inside.x0 - 1 or box.x1 > inside.x1 + 1 or box.y1 < inside.y0
        if len(legend.get_texts()) <= _MANY and not outside and not _covers(ax, box):
            continue
        old, anchor = legend._loc, legend._bbox_to_anchor
        undo.append(partial(setattr, legend, "_loc", old))
        undo.append(partial(setattr, legend, "_bbox_to_anchor", anchor))
        text = ax.xaxis.get_tightbbox()
        lowest = (inside.y0 - text.y0) if text is not None else 0.0
        shift = ScaledTranslation(0, -lowest / dots - _GAP / 72, figure.dpi_scale_trans)
        # About the middle of the figure: a plot with long names on its left stands far to the right.
        middle = (figure.bbox.x0 + width / 2 - inside.x0) / inside.width
        legend.set_loc("upper center")
        legend.set_bbox_to_anchor((min(0.5, middle), 0.0), ax.transAxes + shift)
        _fit(legend, width, undo)
        grown += legend.get_window_extent().height / dots
    if grown:
        figure.set_figheight(figure.get_figheight() + grown)  # whoever sets the width back sets it


def _covers(ax: Any, box: Any) -> bool:
    """Whether a line of a plot, or one of its marks, runs through a box, in pixels."""
    for line in ax.lines:
        path = line.get_transform().transform_path(line.get_path())
        drawn = line.get_linestyle() not in ("None", "none", " ", "")
        if not line.get_visible() or not len(path.vertices):
            continue
        if drawn and path.intersects_bbox(box, filled=False):
            return True
        if line.get_marker() not in ("None", "none", " ", "", None) and box.count_contains(
            path.vertices
        ):
            return True
    return False


def _fit(legend: Any, width: float, undo: list[Callable[[], Any]]) -> None:
    """Rearrange a legend's entries into columns: as many as the width holds."""
    from matplotlib.offsetbox import VPacker

    box = legend._legend_handle_box
    old = list(box.get_children())
    entries = [entry for column in old for entry in column.get_children()]
    undo.append(partial(box._children.__setitem__, slice(None), old))
    count = min(3, len(entries))
    while count:
        size, rest = divmod(len(entries), count)
        ends = [i * size + min(i, rest) for i in range(count + 1)]
        box._children[:] = [
            VPacker(pad=0, sep=old[0].sep, align=old[0].align, children=entries[a:b])
            for a, b in zip(ends, ends[1:], strict=False)
        ]
        for column in box._children:
            column.set_figure(legend.figure)
        if legend.get_window_extent().width <= 0.98 * width:
            return
        count -= 1


def names(ax: Any, width: float, smallest: float, undo: list[Callable[[], Any]]) -> None:
    """Names on the left that take half of the width become small and break; of those below, some go.

    Args:
        ax: a plot of a figure that is drawn.
        width: the figure's, in pixels.
        smallest: size of the smallest letters, in points.
        undo: gets what sets all back.
    """
    import textwrap

    left = [t for t in ax.get_yticklabels() if t.get_text()]
    if left and max(t.get_window_extent().width for t in left) > 0.4 * width:
        pitch = ax.bbox.height / len(left) / (smallest * 1.3 * ax.figure.dpi / 72)
        texts = [t.get_text() for t in left]
        longest = max(map(len, texts))
        two = 2 * 1.2 / 1.3  # lines of a broken name, whose distance is 1.2 of its letters' size
        letters = max(16, longest // 2 + 2) if pitch >= two else longest
        undo.append(partial(ax.set_yticks, ax.get_yticks(), texts, fontsize=left[0].get_fontsize()))
        broken = [textwrap.fill(text, letters, break_long_words=False) for text in texts]
        ax.set_yticks(ax.get_yticks(), broken, fontsize=smallest)
        # What shares its axis shows the same names, in its own size.
        for other in ax.get_shared_y_axes().get_siblings(ax):
            for text in other.get_yticklabels():
                undo.append(partial(text.set_fontsize, text.get_fontsize()))
                text.set_fontsize(smallest)
    label = ax.xaxis.label
    if label.get_text() and label.get_window_extent().width > min(width, 1.3 * ax.bbox.width):
        share = 1.2 * ax.bbox.width / label.get_window_extent().width
        letters = max(12, int(len(label.get_text()) * share))
        undo.append(partial(label.set_text, label.get_text()))
        label.set_text(textwrap.fill(label.get_text(), letters, break_long_words=False))


def thinned(labels: list[Any], undo: list[Callable[[], Any]]) -> None:
    """Hide each label that would lie on the last one shown, from left to right."""
    last = None
    for label in labels:
        box = label.get_window_extent()
        if last is not None and box.x0 < last.x1 and last.x0 < box.x1:
            undo.append(partial(label.set_visible, True))
            label.set_visible(False)
        else:
            last = box
