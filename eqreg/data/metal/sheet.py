"""A contact sheet: a row for each case, so that a look tells whether the data are what was meant."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from ...extras import require
from ...physics.ct import mu_to_hu

# The window in HU, a tile's side and the height of a row's title in pixels.
WINDOW = (-300.0, 400.0)
_TILE, _TITLE, _LETTERS = 256, 28, 20
_METAL = (255, 120, 0)

Picture = np.ndarray[Any, Any]


class Tiles(NamedTuple):
    """A row: its title, and its pictures (H, W, 3) uint8."""

    title: str
    pictures: Sequence[Picture]


def sheet(heads: Sequence[str], rows: Sequence[Tiles]) -> bytes:
    """A PNG with a row of tiles for each case, under their heads."""
    image = require("PIL.Image", extra="tasks")
    draw = require("PIL.ImageDraw", extra="tasks")
    # White on black, as the pictures are, and large enough for a sheet that is shown at half its size.
    page = image.new("RGB", (len(heads) * _TILE, len(rows) * (_TILE + _TITLE) + _TITLE), "black")
    # The letters of matplotlib: those that come with Pillow are small, or ASCII alone.
    folder = require("matplotlib", extra="tasks").get_data_path()
    letters = require("PIL.ImageFont", extra="tasks").truetype(
        f"{folder}/fonts/ttf/DejaVuSans.ttf", _LETTERS
    )
    look = {"fill": "white", "font": letters}
    pen = draw.Draw(page)
    for i, head in enumerate(heads):
        pen.text((i * _TILE + 4, 3), head, **look)
    for k, row in enumerate(rows):
        top = _TITLE + k * (_TILE + _TITLE)
        pen.text((4, top + 3), row.title, **look)
        for i, tile in enumerate(row.pictures):
            small = image.fromarray(tile).resize((_TILE, _TILE), image.Resampling.BILINEAR)
            page.paste(small, (i * _TILE, top + _TITLE))
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    return buffer.getvalue()


def grey(mu: Tensor, window: tuple[float, float] = WINDOW) -> Picture:
    """An image (H, W) in 1/cm as grey pixels of a window in HU."""
    low, high = window
    shade = ((mu_to_hu(mu) - low) / (high - low)).clamp(0, 1) * 255
    return np.repeat(shade.numpy().astype(np.uint8)[..., None], 3, -1)


def marked(mu: Tensor, mask: Tensor) -> Picture:
    """As :func:`grey`, the metal in orange."""
    picture = grey(mu)
    picture[mask.numpy()] = _METAL
    return picture
