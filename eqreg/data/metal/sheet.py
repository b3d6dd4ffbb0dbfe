"""A contact sheet: a row for each case, so that a look tells whether the data are what was meant."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...extras import require
from ...physics.ct.units import MU_WATER

# The window in HU, a tile's side and the height of a row's title in pixels.
_LOW, _HIGH = -300.0, 400.0
_TILE, _TITLE = 256, 18
_METAL = (255, 120, 0)


class Row(NamedTuple):
    """A case: title, slice without metal, mask, scan, LI; images (H, W) in 1/cm."""

    title: str
    gt: np.ndarray[Any, Any]
    mask: np.ndarray[Any, Any]
    ma: np.ndarray[Any, Any]
    li: np.ndarray[Any, Any]


def sheet(rows: Sequence[Row]) -> bytes:
    """A PNG of the rows: without metal, with the metal in orange, scanned, after LI; window -300 to 400 HU."""
    image = require("PIL.Image", extra="tasks")
    draw = require("PIL.ImageDraw", extra="tasks")
    heads = ("without metal", "metal", "scanned", "after LI")
    page = image.new("RGB", (len(heads) * _TILE, (len(rows) * (_TILE + _TITLE)) + _TITLE), "white")
    pen = draw.Draw(page)
    for i, head in enumerate(heads):
        pen.text((i * _TILE + 4, 3), head, fill="black")
    for k, row in enumerate(rows):
        top = _TITLE + k * (_TILE + _TITLE)
        # The font that comes with Pillow has no letters beyond Latin-1.
        pen.text(
            (4, top + 3), row.title.encode("latin-1", "replace").decode("latin-1"), fill="black"
        )
        metal = _grey(row.gt)
        metal[row.mask > 0] = _METAL
        for i, tile in enumerate((_grey(row.gt), metal, _grey(row.ma), _grey(row.li))):
            small = image.fromarray(tile).resize((_TILE, _TILE), image.Resampling.BILINEAR)
            page.paste(small, (i * _TILE, top + _TITLE))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def _grey(mu: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    hu = (mu / MU_WATER - 1) * 1000
    grey = np.clip((hu - _LOW) / (_HIGH - _LOW), 0, 1) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, -1)
