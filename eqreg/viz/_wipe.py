"""Before and after on one place, with a line to drag between them; no kernel, no script of its own."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ..extras import require
from ._figure import Picture, check_alt, figure_tag
from ._raster import as_image

_WIDEST = 300  # CSS pixels of a pane
_QUALITY = 88  # of WebP: what is lost is invisible beside what a network leaves

# `--at` is how much of each picture still shows the state before. The pointer moves it on any picture,
# the range input by keyboard; both act on the whole figure, so that methods are compared at one place.
_MOVE = "this.closest('figure').style.setProperty('--at',this.value+'%')"
DRAG = (
    "const p=event.target.closest('.pane');if(p&&(event.buttons||event.pointerType==='mouse')){"
    "const b=p.getBoundingClientRect(),f=this.closest('figure'),"
    "v=Math.round(100*Math.min(1,Math.max(0,(event.clientX-b.left)/b.width)));"
    "f.style.setProperty('--at',v+'%');f.querySelector('.at').value=v}"
)
_CHOOSE = (
    "const f=this.closest('figure'),v=this.value;"
    "f.querySelectorAll('[data-i]').forEach(e=>e.hidden=e.dataset.i!==v);"
    "const name=this.dataset.names.split('|')[+v];this.setAttribute('aria-valuetext',name);"
    "f.querySelector('output').value=name"
)
_ROW = "display:flex;flex-wrap:wrap;align-items:center;gap:.2em .8em;margin-top:.4em"
# Where a label takes the whole line of a phone, a slider and its value go to the next one together.
BESIDE = "flex:1 1 8em;display:flex;align-items:center;gap:.8em"
_INPUT = "flex:1 1 5em;min-width:5em;height:2.2em;accent-color:#0072B2"
LAYER = "position:absolute;inset:0;width:100%;height:100%;margin:0;padding:0;"
LINE = "position:absolute;top:0;bottom:0;left:var(--at);width:2px;background:#fff;mix-blend-mode:difference"
NO_SCRIPT = (
    "<noscript><style>figure.eqreg label{display:none!important}</style><p>Without JavaScript the line does "
    "not move: left of it is the state before, right of it the state after.</p></noscript>"
)


def wipe(
    before: Any,
    after: Mapping[str, Any],
    *,
    alt: str,
    caption: str | None = None,
    names: Sequence[str] = ("before", "after"),
    values: Sequence[str] = (),
    label: str = "",
    notes: Mapping[str, Sequence[str]] | None = None,
    size: int = 240,
) -> Picture:
    """Pictures of one scene before and after, one pane a method, with one line to drag in all of them.

    Panes stand side by side as far as the page is wide, two in a row on a phone. Without JavaScript each
    pane shows half of both.

    Args:
        before: an image as for :func:`grid`, values in [0, 1]; with ``values``, one for each of them.
        after: method -> image of the same shape; with ``values``, one for each of them.
        alt: what a reader who cannot see the pictures must know; ``{name}`` stands for the method.
        caption: the finding, in a sentence; plain text.
        names: of the two states, for the range input.
        values: what a second slider runs through, such as angles, in order.
        label: of the second slider; needed with ``values``.
        notes: method -> a word below its pane, one for each value (or one).
        size: least width of a pane in CSS pixels; where not two of them fit, panes are half as wide as the
            page. They grow to 300.

    Returns:
        The figure.

    Raises:
        ValueError: nothing to compare, no alternative text, images of several shapes, or too few or
            too many of them.

    >>> wipe(np.zeros((8, 8)), {"plain": np.eye(8)}, alt="a diagonal, by {name}")
    Picture('a diagonal, by {name}')
    """
    check_alt(alt)
    if not after:
        raise ValueError("wipe needs at least one picture after, got none")
    if values and not label.strip():
        raise ValueError(f"wipe: {len(values)} values need a label for their slider, got {label!r}")
    count = len(values) or 1
    first = _series(before, count, bool(values), "before")
    shape = first[0].shape
    blocks = []
    for name, given in after.items():
        images = _series(given, count, bool(values), name)
        for image in (*first, *images):
            if image.shape != shape:
                raise ValueError(f"wipe: expected {name} of shape {shape}, got {image.shape}")
        said = (notes or {}).get(name, [""] * count)
        if len(said) != count:
            raise ValueError(f"wipe: expected {count} notes for {name}, got {len(said)}")
        blocks.append(_pane(name, images, said, alt.replace("{name}", name)))
    # The state before is one picture for all panes: stored once, as a property of the figure.
    layers = "".join(f"--before-{i}:url({data(image)});" for i, image in enumerate(first))
    grid = panes("".join(blocks), size, layers)
    control = between(names[0], names[1])
    if values:
        control = (
            f'<label style="{_ROW}"><span>{escape(label)}</span><span style="{BESIDE}"><input type="range" min="0" '
            f'max="{count - 1}" value="0" autocomplete="off" aria-valuetext="{escape(values[0])}" '
            f'data-names="{escape("|".join(values))}" oninput="{_CHOOSE}" style="{_INPUT}">'
            f"<output>{escape(values[0])}</output></span></label>" + control
        )
    html = figure_tag(
        grid + control + NO_SCRIPT, caption=caption, width=len(blocks) * max(_WIDEST, size)
    )
    return Picture(html.replace('style="', 'style="--at:50%;', 1), alt)


def panes(blocks: str, size: int, style: str, extra: str = "") -> str:
    """Panes in rows, in all of which the pointer drags the line."""
    return (
        f'<div onpointermove="{DRAG}" onpointerdown="{DRAG}" {extra} style="{style}display:grid;gap:.6em;'
        f'grid-template-columns:repeat(auto-fit,minmax(min({size}px,46%),1fr));cursor:ew-resize">'
        f"{blocks}</div>"
    )


def between(first: str, last: str) -> str:
    """The line as a range input, for the keyboard."""
    return (
        f'<label style="{_ROW}"><span>{escape(first)}</span><input class="at" type="range" min="0" '
        f'max="100" value="50" autocomplete="off" aria-label="{escape(first)} to {escape(last)}" '
        f'oninput="{_MOVE}" style="{_INPUT}"><span>{escape(last)}</span></label>'
    )


def _series(given: Any, count: int, several: bool, name: str) -> list[np.ndarray]:
    images = [as_image(image) for image in (given if several else [given])]
    if len(images) != count:
        raise ValueError(f"wipe: expected {count} images for {name}, got {len(images)}")
    return images


def _pane(name: str, images: Sequence[np.ndarray], notes: Sequence[str], alt: str) -> str:
    height, width = images[0].shape[:2]
    shown = "".join(
        f'<div data-i="{i}"{" hidden" if i else ""} style="{LAYER}background:var(--before-{i}) 0/cover">'
        f'<img class="dark-light" src="{data(image)}" alt="{escape(alt)}" loading="lazy" draggable="false" '
        f'style="{LAYER}clip-path:inset(0 0 0 var(--at));background:none"></div>'
        for i, image in enumerate(images)
    )
    said = "".join(
        f'<span data-i="{i}"{" hidden" if i else ""}>{escape(note)}</span>'
        for i, note in enumerate(notes)
    )
    return (
        f'<div><div class="pane" style="position:relative;aspect-ratio:{width}/{height};'
        f'overflow:hidden;touch-action:pan-y">{shown}<div style="{LINE}"></div></div>'
        f"<div><b>{escape(name)}</b> {said}</div></div>"
    )


def data(image: np.ndarray) -> str:
    """An image with values in [0, 1] as the address of a WebP file that carries its own data."""
    pixels = (image.clip(0, 1) * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    require("PIL.Image", extra="tasks").fromarray(pixels).save(
        buffer, format="webp", quality=_QUALITY
    )
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
