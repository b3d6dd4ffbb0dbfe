"""Pictures as bytes: what a figure looks like at a desk and on a phone, and where on it photographs are."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..extras import require
from ._narrow import narrowed

CSS_PIXELS_PER_INCH = 96
PHONE = 600  # CSS pixels of a screen up to which the narrow form is shown; so does the style sheet
_PNG_HEADER = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 2, 3  # dimensions of an image array
_QUALITY = 88  # of WebP with losses, for photographs
_WORTH = 0.7  # losses must save this much: text is crisper without
_HUE = 0.05  # between the channels of a grey
_PAPER = 0.9  # of every channel of what looks like paper
ALL = "all"


@dataclass(frozen=True)
class Raster:
    """A WebP file.

    Attributes:
        data: its bytes.
        width: pixels across.
        height: pixels down.
        photos: the places of photographs, as the corners of a CSS polygon; "all"; or none at all. There the
            book's dark mode keeps colours.
    """

    data: bytes
    width: int
    height: int
    photos: str

    @property
    def address(self) -> str:
        return f"data:image/webp;base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Drawing:
    """A picture at a desk and, if it is another there, on a phone; ``width`` in CSS pixels."""

    wide: Raster
    narrow: Raster | None
    width: float

    def smaller(self, quality: int) -> Drawing:
        """The same with more loss, where that saves something."""
        narrow = None if self.narrow is None else _less(self.narrow, quality)
        return Drawing(_less(self.wide, quality), narrow, self.width)

    def tag(self, *, alt: str, style: str = "", extra: str = "") -> str:
        """The picture as HTML; ``style`` and ``extra`` go to the element around it."""
        source = ""
        if self.narrow is not None:
            source = (
                f'<source media="(max-width:{PHONE}px)" srcset="{self.narrow.address}" '
                f'width="{self.narrow.width}" height="{self.narrow.height}">'
            )
        photos = "".join(
            f'data-{name}="{raster.photos}" '
            for name, raster in (("photos", self.wide), ("narrow-photos", self.narrow))
            if raster is not None and raster.photos
        )
        # "dark-light": the book's theme would otherwise change the contrast of pictures in dark mode.
        return (
            f'<span class="drawn" {photos}{extra}style="display:block;position:relative;{style}">'
            f'<picture>{source}<img class="dark-light" src="{self.wide.address}" alt="{escape(alt)}" '
            f'loading="lazy" width="{self.wide.width}" height="{self.wide.height}" '
            f'style="width:100%;height:auto;margin:0;background:#fff"></picture></span>'
        )


def drawing(picture: Any, *, dpi: float) -> Drawing:
    """A matplotlib figure (which is closed), an image array, or the bytes of a PNG file, as it is shown.

    Raises:
        TypeError: if ``picture`` is none of these.
        ValueError: an array that is no image.
    """
    if not hasattr(picture, "savefig"):
        png = to_png(picture, dpi=dpi)
        return Drawing(_webp(png, ALL), None, int.from_bytes(png[16:20], "big"))  # header: width
    wide = _webp(to_png(picture, dpi=dpi), _photos(picture))
    width = round(picture.get_figwidth() * CSS_PIXELS_PER_INCH)
    with narrowed(picture) as another:
        narrow = _webp(to_png(picture, dpi=dpi), _photos(picture)) if another else None
    return Drawing(wide, narrow, width)


def _photos(figure: Any) -> str:
    """Corners of all places where a photograph is; the way between two places has no area."""
    corners = []
    for ax in figure.axes:
        if ax.get_visible() and any(map(_is_photograph, ax.images)):
            box = ax.get_position()
            x0, x1, y0, y1 = (f"{100 * v:.2f}%" for v in (box.x0, box.x1, 1 - box.y1, 1 - box.y0))
            corners.append(f"{x0} {y0},{x1} {y0},{x1} {y1},{x0} {y1},{x0} {y0}")
    if len(corners) > 1:
        # Back through the first corners, so that the polygon closes along the ways it came.
        corners += [c.split(",")[0] for c in corners[-2::-1]]
    return ",".join(corners)


def _is_photograph(image: Any) -> bool:
    """Whether colours are to stay: not of numbers in a colour map with white in it, which is the paper there."""
    if image.get_array().ndim == _COLOUR:
        return True
    colours = image.get_cmap()(np.linspace(0, 1, 33))[:, :3]
    return bool(np.ptp(colours, axis=1).max() < _HUE or colours.min(axis=1).max() < _PAPER)


def _webp(png: bytes, photos: str) -> Raster:
    image = require("PIL.Image", extra="tasks").open(io.BytesIO(png)).convert("RGB")
    data = _encoded(image, lossless=True, method=4)
    if photos:
        lossy = _encoded(image, quality=_QUALITY, method=4)
        data = lossy if len(lossy) < _WORTH * len(data) else data
    return Raster(data, image.width, image.height, photos)


def _less(raster: Raster, quality: int) -> Raster:
    image = require("PIL.Image", extra="tasks").open(io.BytesIO(raster.data)).convert("RGB")
    data = _encoded(image, quality=quality, method=4)
    return (
        raster
        if len(data) >= len(raster.data)
        else Raster(data, image.width, image.height, raster.photos)
    )


def _encoded(image: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="webp", **options)
    return buffer.getvalue()


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
