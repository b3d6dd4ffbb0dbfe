"""Restorations to look at closely: large, with one line to drag, one frame to zoom, and what is wrong with each."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from ._figure import Picture, check_alt, figure_tag
from ._raster import as_image
from ._wipe import LAYER, LINE, NO_SCRIPT, between, data, panes

_POINT = (
    "const p=event.target.closest('.pane');if(p){const b=p.getBoundingClientRect(),"
    "f=this.closest('figure'),s=+this.dataset.part,"
    "g=(v,n)=>f.style.setProperty(n,100*Math.min(1,Math.max(0,(v-s/2)/(1-s)))+'%');"
    "g((event.clientX-b.left)/b.width,'--zx');g((event.clientY-b.top)/b.height,'--zy')}"
)
_FRAME = (
    "position:absolute;border:2px solid #F0E442;box-shadow:0 0 0 1px #000;box-sizing:border-box;"
)


def closeup(
    clean: Any,
    before: Any,
    after: Mapping[str, Any],
    *,
    alt: str,
    caption: str | None = None,
    names: tuple[str, str, str] = ("before", "after", "clean"),
    notes: Mapping[str, str] | None = None,
    box: tuple[int, int] | None = None,
    zoom: int = 4,
    error: float = 0.3,
    size: int = 240,
) -> Picture:
    """One large picture a method, all of the same place, beside the truth.

    A line to drag shows on its left the image before. Below each picture stand, at half its width, what a frame
    marks, enlarged (the same frame in all; a click moves it), and the error ``image - clean``:
    grey is right, white is too bright, black is too dark. The truth has the marked part of the image before
    instead. Everything but the dragging works without JavaScript.

    Args:
        clean: an image as for :func:`grid`, values in [0, 1].
        before: the same, degraded.
        after: method -> the same, restored.
        alt: what a reader who cannot see the pictures must know; ``{name}`` stands for the method.
        caption: the finding, in a sentence; plain text.
        names: of the image before, of what the methods make of it, and of the truth.
        notes: method -> a word beside its name, the last of ``names`` included; the PSNR in dB of the values
            clipped to [0, 1] if not given.
        box: row and column of the frame's middle in pixels; where the methods' errors differ most if not given.
        zoom: the picture's side over the frame's, so that what it marks stands ``zoom / 2`` times as large.
        error: difference shown as black or white; of colours the mean over the channels.
        size: least width of a picture in CSS pixels. On a phone two stand in a row.

    Returns:
        The figure.

    Raises:
        ValueError: nothing to compare, no alternative text, images of several shapes, a name twice, a frame
            outside of the image, or ``zoom`` or ``error`` that are not above 1 and 0.

    >>> clean = np.eye(32)
    >>> closeup(clean, 0 * clean, {"plain": 0.9 * clean}, alt="a diagonal, by {name}")
    Picture('a diagonal, by {name}')
    """
    check_alt(alt)
    if not after:
        raise ValueError("closeup needs at least one picture after, got none")
    if names[2] in after:
        raise ValueError(f"closeup: {names[2]!r} names the truth and a method")
    if not zoom > 1 or not error > 0:
        raise ValueError(f"closeup: expected zoom > 1 and error > 0, got {zoom} and {error}")
    truth = as_image(clean)
    images = {names[0]: as_image(before)} | {name: as_image(y) for name, y in after.items()}
    for name, image in images.items():
        if image.shape != truth.shape:
            raise ValueError(f"closeup: expected {name} of shape {truth.shape}, got {image.shape}")
    first = images.pop(names[0])
    place = _frame(truth, images, box, zoom)
    given = {names[2]: ""} | {
        name: f"{_psnr(image, truth):.2f} dB" for name, image in images.items()
    }
    given |= notes or {}
    shown = {names[2]: truth} | images
    blocks = "".join(
        _block(name, image, image - truth if name in images else None, given[name],
               alt.replace("{name}", name), zoom, error)
        for name, image in shown.items()
    )  # fmt: skip
    told = (
        f"Below each: what the frame marks, {zoom / 2:g} times as large (a click moves it), and the error: grey is "
        f"none, white {error:g} too bright, black {error:g} too dark. "
        f"Below “{names[2]}”: the marked part of “{names[0]}”."
    )
    body = (
        panes(blocks, size, f"--before:url({data(first)});", f'onclick="{_POINT}" data-part="{1 / zoom}"')
        + between(names[0], names[1])
        + f'<div style="font-size:.85em;margin-top:.3em">{escape(told)}</div>{NO_SCRIPT}'
    )  # fmt: skip
    html = figure_tag(body, caption=caption, width=max(3 * (size + 20), 240))
    start = f"--at:50%;--zx:{place[1]:.1f}%;--zy:{place[0]:.1f}%;"
    return Picture(html.replace('style="', f'style="{start}', 1), alt)


def _block(
    name: str,
    image: np.ndarray,
    wrong: np.ndarray | None,
    note: str,
    alt: str,
    zoom: int,
    error: float,
) -> str:
    height, width = image.shape[:2]
    part = 1 / zoom
    frame = (
        f'<div style="{_FRAME}left:calc(var(--zx)*{1 - part:.4f});top:calc(var(--zy)*{1 - part:.4f});'
        f'width:{100 * part:.2f}%;height:{100 * part:.2f}%"></div>'
    )
    ratio = f"aspect-ratio:{width}/{height};"
    near = f"var(--zx) var(--zy)/{100 * zoom}%;image-rendering:pixelated"
    stored = f"--y:url({data(image)});"
    if wrong is None:
        beside = f'<div style="{ratio}background:var(--before) {near}"></div>'
    else:
        mean = wrong if wrong.ndim == 2 else wrong.mean(2)
        stored += f"--e:url({data(0.5 + mean / (2 * error))});"
        beside = f'<div style="{ratio}position:relative;background:var(--e) 0/cover">{frame}</div>'
    return (
        f'<div style="{stored}"><div class="pane" style="position:relative;{ratio}overflow:hidden;'
        f'touch-action:pan-y"><div style="{LAYER}background:var(--before) 0/cover"></div>'
        f'<div role="img" aria-label="{escape(alt)}" style="{LAYER}background:var(--y) 0/cover;'
        f'clip-path:inset(0 0 0 var(--at))"></div>{frame}<div style="{LINE}"></div></div>'
        f"<div><b>{escape(name)}</b> {escape(note)}</div>"
        '<div class="near" style="display:grid;grid-template-columns:1fr 1fr;gap:.3em;align-items:start;'
        f'aspect-ratio:{2 * width}/{height}">'
        f'<div style="{ratio}background:var(--y) {near}"></div>{beside}</div></div>'
    )


def _psnr(image: np.ndarray, truth: np.ndarray) -> float:
    wrong = float(np.mean((image.clip(0, 1) - truth) ** 2))
    return float("inf") if wrong == 0 else -10 * np.log10(wrong)


def _frame(
    truth: np.ndarray, images: Mapping[str, np.ndarray], box: tuple[int, int] | None, zoom: int
) -> tuple[float, float]:
    """How far down and to the right the frame stands, in % of its way."""
    shape = truth.shape[:2]
    sides = [max(1, n // zoom) for n in shape]
    if box is not None:
        if not all(0 <= b < n for b, n in zip(box, shape, strict=True)):
            raise ValueError(f"closeup: expected a frame's middle within {shape}, got {box}")
        corner = [b - s / 2 for b, s in zip(box, sides, strict=True)]
    else:
        wrong = np.stack(
            [np.square(y - truth).reshape(*shape, -1).mean(2) for y in images.values()]
        )
        # Sums over all places of the frame, from cumulative sums.
        total = np.pad(wrong.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
        h, w = sides
        sums = total[:, h:, w:] - total[:, :-h, w:] - total[:, h:, :-w] + total[:, :-h, :-w]
        spread = sums.std(0) if len(sums) > 1 else sums[0]
        corner = [float(c) for c in np.unravel_index(int(spread.argmax()), spread.shape)]
    way = [max(1, n - s) for n, s in zip(shape, sides, strict=True)]
    down, right = (100 * min(1.0, max(0.0, c / n)) for c, n in zip(corner, way, strict=True))
    return float(down), float(right)
