"""Pictures for pages: our colours, rows of images, and ``show`` with alt text and caption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require
from ._raster import CSS_PIXELS_PER_INCH, as_image, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart by readers with any common colour blindness. Its yellow cannot be seen on
# white, nor on black once a page in the dark has turned it; grey stands in its place. The order is that of curves.
COLORS = MappingProxyType(
    {
        "blue": "#0072B2",
        "vermilion": "#D55E00",
        "green": "#009E73",
        "purple": "#CC79A7",
        "orange": "#E69F00",
        "sky": "#56B4E9",
        "black": "#000000",
        "grey": "#7F7F7F",
    }
)

_COLOUR = 3  # dimensions of an image array


@dataclass(frozen=True)
class Picture:
    """A displayable HTML figure; what :func:`show` returns."""

    html: str
    alt: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        # Plain text is what nbval compares and a terminal shows, so it holds no address.
        return f"Picture({self.alt!r})"


def subplots(
    rows: int = 1, columns: int = 1, *, size: tuple[float, float] = (6.0, 3.5), **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, like ``pyplot.subplots`` but outside pyplot's list of open figures.

    Args:
        rows: rows of axes.
        columns: columns of axes.
        size: width and height in inches; a page shows 96 pixels to the inch.
        **options: passed to :meth:`matplotlib.figure.Figure.subplots`, for example ``sharey=True``.

    Returns:
        The figure and one axes, or an array of axes if there are several.

    >>> figure, axes = subplots(1, 2, size=(6.0, 2.5))
    >>> axes.shape
    (2,)
    """
    figure = require("matplotlib.figure", extra="tasks").Figure(figsize=size, layout="constrained")
    cycler = require("cycler", extra="tasks").cycler
    # More curves than colours: the next are dashed.
    cycle = cycler(linestyle=["-", "--", ":"]) * cycler(color=list(COLORS.values()))
    axes = figure.subplots(rows, columns, **options)
    for ax in np.atleast_1d(axes).flat:
        ax.set_prop_cycle(cycle)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def grid(
    images: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    limits: tuple[float, float] | None = (0.0, 1.0),
    cell: float = 1.9,
    cmap: str = "gray",
) -> Figure:
    """Images side by side on one common scale, so that equal values look equal.

    Args:
        images: arrays or tensors, each ``(H, W)``, ``(H, W, 3)``, ``(C, H, W)`` or ``(1, C, H, W)``
            with C = 1 or 3.
        titles: one line above each image.
        columns: images per row; all in one row if not given.
        limits: values shown as black and white; None takes the extremes over *all* images.
        cell: longer side of an image in inches.
        cmap: colour map of one-channel images.

    Returns:
        The figure; hand it to :func:`show`.

    Raises:
        ValueError: if there is no image, a shape cannot be read, or titles are too few or too many.

    >>> figure = grid([np.eye(8), np.ones((3, 8, 8))], ["grey", "colour"])
    >>> [ax.get_title() for ax in figure.axes]
    ['grey', 'colour']
    >>> grid([np.ones((4, 8))], cell=2.0).get_size_inches().tolist()  # no empty stripes beside wide images
    [2.0, 1.0]
    """
    arrays = [as_image(image) for image in images]
    if not arrays:
        raise ValueError("grid needs at least one image, got none")
    if titles is not None and len(titles) != len(arrays):
        raise ValueError(f"grid got {len(arrays)} images but {len(titles)} titles")
    low, high = limits or (min(map(np.min, arrays)), max(map(np.max, arrays)))
    columns = min(columns or len(arrays), len(arrays))
    rows = -(-len(arrays) // columns)
    tall = cell * min(1.0, max(array.shape[0] / array.shape[1] for array in arrays))
    tall += 0.3 if titles else 0.0
    figure, axes = subplots(rows, columns, size=(columns * cell, rows * tall), squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, array, title in zip(axes.flat, arrays, titles or [""] * len(arrays), strict=False):
        # imshow scales grey values itself but takes colours as they are.
        shown = (
            np.clip((array - low) / ((high - low) or 1.0), 0, 1) if array.ndim == _COLOUR else array
        )
        ax.imshow(shown, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
        ax.set_title(title, fontsize=9)
    return figure


def show(
    picture: Any, *, alt: str, caption: str | None = None, width: float | None = None
) -> Picture:
    """A figure with alternative text and caption, for the last line of a cell or ``display``.

    On a phone the axes of a figure stand in fewer columns at their natural size.

    Args:
        picture: a matplotlib figure (closed afterwards), the bytes of a PNG file, or an image array
            with values in [0, 1].
        alt: what a reader who cannot see the picture must know.
        caption: the finding, in a sentence; plain text.
        width: width on the page in CSS pixels; the picture's own if not given. It never exceeds the
            page's width.

    Raises:
        TypeError: if ``picture`` is none of these.
        ValueError: if ``alt`` is empty.

    >>> show(np.eye(8), alt="a diagonal", caption="It is white.")
    Picture('a diagonal')
    """
    check_alt(alt)
    drawn = drawing(picture, dpi=1.75 * CSS_PIXELS_PER_INCH)  # sharp on a high-density screen too
    return Picture(figure_tag(drawn.tag(alt=alt), caption=caption, width=width or drawn.width), alt)


def check_alt(alt: Any) -> None:
    """Reject a missing alternative text."""
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(
            f"a figure needs alternative text: expected alt as a non-empty string, got {alt!r}"
        )


def figure_tag(body: str, *, caption: str | None, width: float, answer: str | None = None) -> str:
    """Wrap ``body`` into a ``<figure>`` no wider than the page; the answer is folded."""
    told = escape(caption or "") + folded(answer)
    text = (
        f'<figcaption style="margin-top:.4em;text-align:left;color:inherit;font-weight:400">'
        f"{told}</figcaption>"
        if told
        else ""
    )
    style = f"margin:1em auto;max-width:{width:g}px"
    return f'<figure class="eqreg" style="{style}">{body}{text}</figure>'


def folded(answer: str | None) -> str:
    """What a reader should not see before a guess; a click opens it, without a script."""
    if not answer:
        return ""
    return (
        '<details style="margin-top:.4em"><summary style="cursor:pointer">Answer</summary>'
        f"<div>{escape(answer)}</div></details>"
    )
