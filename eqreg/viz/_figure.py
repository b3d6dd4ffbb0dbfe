"""Pictures for pages: our colours, rows of images, and ``show`` with alt text and caption."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..extras import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart by readers with any common colour blindness. The order is the
# order of curves in a plot; yellow, faint on white, comes last.
COLORS = MappingProxyType(
    {
        "blue": "#0072B2",
        "vermilion": "#D55E00",
        "green": "#009E73",
        "purple": "#CC79A7",
        "orange": "#E69F00",
        "sky": "#56B4E9",
        "black": "#000000",
        "yellow": "#F0E442",
    }
)

_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
_CSS_PIXELS_PER_INCH = 96
_GREY, _COLOUR = 2, 3  # dimensions of an image array


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
    """
    figure = require("matplotlib.figure", extra="tasks").Figure(figsize=size, layout="constrained")
    cycle = require("cycler", extra="tasks").cycler(color=list(COLORS.values()))
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
        cell: side of an image in inches.
        cmap: colour map of one-channel images.

    Returns:
        The figure; hand it to :func:`show`.

    Raises:
        ValueError: if there is no image, a shape cannot be read, or titles are too few or too many.
    """
    arrays = [as_image(image) for image in images]
    if not arrays:
        raise ValueError("grid needs at least one image, got none")
    if titles is not None and len(titles) != len(arrays):
        raise ValueError(f"grid got {len(arrays)} images but {len(titles)} titles")
    low, high = limits or (min(map(np.min, arrays)), max(map(np.max, arrays)))
    columns = min(columns or len(arrays), len(arrays))
    rows = -(-len(arrays) // columns)
    title_height = 0.3 if titles else 0.0
    figure, axes = subplots(
        rows, columns, size=(columns * cell, rows * (cell + title_height)), squeeze=False
    )
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
    """
    check_alt(alt)
    png = to_png(picture, dpi=1.75 * _CSS_PIXELS_PER_INCH)  # sharp on a high-density screen too
    if width is None:
        width = css_width(picture, png)
    body = image_tag(png, alt=alt)
    return Picture(figure_tag(body, caption=caption, width=width), alt)


def check_alt(alt: Any) -> None:
    """Reject a missing alternative text."""
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(
            f"a figure needs alternative text: expected alt as a non-empty string, got {alt!r}"
        )


def as_image(image: Any) -> np.ndarray:
    """An image in any layout of :func:`grid` as floats ``(H, W)`` or ``(H, W, 3)``."""
    array = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
    given = array.shape
    if array.dtype == np.uint8:
        array = array / 255.0
    array = np.asarray(array, dtype=float)
    if array.ndim == _COLOUR + 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == _COLOUR and array.shape[0] in (1, 3) and array.shape[-1] != _COLOUR:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == _COLOUR and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != _GREY and (array.ndim != _COLOUR or array.shape[-1] != _COLOUR):
        raise ValueError(
            "expected an image (H, W), (H, W, 3), (C, H, W) or (1, C, H, W) with C = 1 or 3, "
            f"got shape {given}"
        )
    return array


def to_png(picture: Any, *, dpi: float) -> bytes:
    """PNG bytes of a figure (which is closed), an image array, or bytes that are a PNG already."""
    if isinstance(picture, bytes):
        if not picture.startswith(_PNG_HEADER):
            raise TypeError(f"expected the bytes of a PNG file, got bytes starting {picture[:8]!r}")
        return picture
    buffer = io.BytesIO()
    if hasattr(picture, "savefig"):
        # No creation software or date inside: the same figure gives the same bytes.
        picture.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        close(picture)
    elif hasattr(picture, "shape"):
        pixels = (as_image(picture).clip(0, 1) * 255).round().astype(np.uint8)
        require("PIL.Image", extra="tasks").fromarray(pixels).save(buffer, format="png")
    else:
        raise TypeError(
            "expected a matplotlib figure, an image array or the bytes of a PNG file, "
            f"got {type(picture).__name__}"
        )
    return buffer.getvalue()


def close(figure: Any) -> None:
    """Take a figure off pyplot's list, so that a notebook does not draw it a second time."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)


def css_width(picture: Any, png: bytes) -> float:
    """Natural width on a page: inches of a figure, pixels of anything else."""
    if hasattr(picture, "get_figwidth"):
        return round(picture.get_figwidth() * _CSS_PIXELS_PER_INCH)
    return int.from_bytes(png[16:20], "big")  # PNG header: width


def image_tag(png: bytes, *, alt: str, style: str = "", extra: str = "") -> str:
    """An ``<img>`` that carries its own data."""
    data = base64.b64encode(png).decode()
    # "dark-light": the book's theme would otherwise change the contrast of pictures in dark mode.
    return (
        f'<img class="dark-light" src="data:image/png;base64,{data}" alt="{escape(alt)}" {extra}'
        f'style="width:100%;height:auto;margin:0;background:#fff;{style}">'
    )


def figure_tag(body: str, *, caption: str | None, width: float) -> str:
    """Wrap ``body`` into a ``<figure>`` no wider than the page."""
    text = (
        f'<figcaption style="margin-top:.4em;text-align:left;color:inherit;font-weight:400">'
        f"{escape(caption)}</figcaption>"
        if caption
        else ""
    )
    style = f"margin:1em auto;max-width:{width:g}px"
    return f'<figure class="eqreg" style="{style}">{body}{text}</figure>'
