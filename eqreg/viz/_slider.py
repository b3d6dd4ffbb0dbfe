"""Something to drag that moves without a kernel: a range slider over pre-rendered frames."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from ._figure import check_alt, figure_tag, folded, show
from ._raster import Drawing, drawing
from ._wipe import BESIDE
from .frontend import notebook_reader

_DPI = 105
_BUDGET = 300_000  # characters of HTML that a slider should stay below
_TOO_LARGE = 1_500_000
_QUALITIES = (80, 65, 50)  # of WebP, tried in turn

# All there is to run, in the element itself: no script tag, no ids. It survives where scripts are
# run late or moved (Lab, Colab), and the same slider may stand on a page twice.
_MOVE = (
    "const all=this.closest('figure').querySelectorAll('.frame'),now=all[+this.value];"
    "all.forEach(m=>m.style.display=m===now?'block':'none');"
    "this.setAttribute('aria-valuetext',now.dataset.value);"
    "this.closest('figure').querySelector('output').value=now.dataset.value"
)


class Slider:
    """A displayable static slider, live where a reader works in a notebook; see :func:`explore`."""

    def __init__(self, html: str, summary: str, live: Callable[[Any], Any] | None) -> None:
        self.html = html
        self._summary = summary
        self._live = live

    def __repr__(self) -> str:
        return f"Slider({self._summary})"

    def _repr_html_(self) -> str:
        return self.html

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self.html}
        widgets = _widgets() if self._live else None
        if widgets is not None and self._live is not None:
            bundle = {**self._live(widgets)._repr_mimebundle_(), **bundle}
        return bundle


def explore(
    draw: Callable[[Any], Any],
    values: Iterable[Any],
    *,
    label: str,
    alt: str | Callable[[Any], str],
    caption: str | None = None,
    answer: str | None = None,
    start: int = 0,
    live: bool = True,
) -> Slider:
    """A slider that shows ``draw(value)`` for each of the values, drawn now and kept in the page.

    The page needs no kernel and no script of its own; about 25 frames are enough for anything a
    hand can tell apart. In a notebook with ipywidgets the slider is live: it also draws the values
    between, if the values are evenly spaced numbers (not consecutive integers: there is nothing
    between those).

    Args:
        draw: makes a matplotlib figure or an image array of a value.
        values: what the slider runs through, in order.
        label: name of the quantity, with its unit, for example ``"Angle in degrees"``.
        alt: alternative text of the frames: a text in which ``{value}`` stands for the value, or a
            function of the value.
        caption: how to read the frames, or the finding, in a sentence; plain text.
        answer: what a reader was asked to guess before dragging, folded below the caption; plain text.
        start: index of the frame shown first.
        live: offer the live slider.

    Raises:
        TypeError: if ``draw`` returns neither a figure nor an image array.
        ValueError: if ``values`` is empty, ``label`` or an alternative text is empty, or ``start``
            is not an index of ``values``.

    Warns:
        UserWarning: if the slider adds more than 1.5 MB to the page.

    >>> explore(lambda k: np.rot90(np.eye(8), k), range(2), label="Turns", alt="turned {value} times")
    Slider('Turns', 0 to 1, 2 frames)
    """
    values = list(values)
    if not values:
        raise ValueError("explore needs at least one value to draw, got none")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"a slider needs a label: expected a non-empty string, got {label!r}")
    if not 0 <= start < len(values):
        raise ValueError(f"start must be an index of the {len(values)} values, got {start}")
    texts = [_text(value) for value in values]
    alts = [_alt(alt, value) for value in values]

    frames = [drawing(_drawn(draw, value), dpi=_DPI) for value in values]
    html = _page(frames, texts, alts, label, caption, answer, start)
    for quality in _QUALITIES:
        if len(html) <= _BUDGET:
            break
        frames = [frame.smaller(quality) for frame in frames]
        html = _page(frames, texts, alts, label, caption, answer, start)
    if len(html) > _TOO_LARGE:
        warnings.warn(
            f"this slider adds {len(html) / 1e6:.1f} MB to the page ({len(frames)} frames); "
            "expected at most 1.5 MB: take fewer values or a smaller figure",
            stacklevel=2,
        )

    make = None
    if live and _has_values_between(values):

        def make(widgets: Any) -> Any:
            return _live_view(widgets, draw, values, label, alt, caption, answer, start)

    return Slider(html, f"{label!r}, {texts[0]} to {texts[-1]}, {len(frames)} frames", make)


def _page(
    frames: Sequence[Drawing],
    texts: Sequence[str],
    alts: Sequence[str],
    label: str,
    caption: str | None,
    answer: str | None,
    start: int,
) -> str:
    keys = {0, len(frames) // 2, len(frames) - 1}
    images = "".join(
        f'<div class="frame{" key" if i in keys else ""}" data-value="{escape(text)}" '
        f'style="display:{"block" if i == start else "none"}">{frame.tag(alt=alt)}</div>'
        for i, (frame, text, alt) in enumerate(zip(frames, texts, alts, strict=True))
    )
    # autocomplete=off: browsers restore a slider's place on reload, but not the picture's.
    control = (
        '<label style="display:flex;flex-wrap:wrap;align-items:center;gap:.2em .8em;'
        f'margin-top:.4em"><span>{escape(label)}</span><span style="{BESIDE}">'
        f'<input type="range" min="0" max="{len(frames) - 1}" step="1" value="{start}" '
        f'autocomplete="off" aria-valuetext="{escape(texts[start])}" oninput="{_MOVE}" '
        'style="flex:1 1 5em;min-width:5em;height:2.2em;accent-color:#0072B2">'
        '<output style="min-width:2em;font-variant-numeric:tabular-nums">'
        f"{escape(texts[start])}</output></span></label>"
    )
    told = ", ".join(escape(texts[i]) for i in sorted(keys))
    without = (
        "<noscript><style>figure.eqreg label{display:none!important}figure.eqreg .frame{display:none!important}"
        "figure.eqreg .frame.key{display:block!important}.frame.key::before{content:attr(data-value)}</style>"
        f"<p>This slider needs JavaScript. Without, here is what it shows at {told} "
        f"({escape(label)}).</p></noscript>"
    )
    width = max(frame.width for frame in frames)
    return figure_tag(images + control + without, caption=caption, width=width, answer=answer)


def _drawn(draw: Callable[[Any], Any], value: Any) -> Any:
    picture = draw(value)
    if not hasattr(picture, "savefig") and not hasattr(picture, "shape"):
        raise TypeError(
            f"draw must return a matplotlib figure or an image array, got {type(picture).__name__} "
            f"for value {value!r}"
        )
    return picture


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _alt(alt: str | Callable[[Any], str], value: Any) -> str:
    text = alt.replace("{value}", _text(value)) if isinstance(alt, str) else alt
    text = text(value) if callable(text) else text
    check_alt(text)
    return text


def _has_values_between(values: Sequence[Any]) -> bool:
    if len(values) < 2 or not all(isinstance(v, int | float | np.number) for v in values):
        return False
    steps = np.diff(np.asarray(values, dtype=float))
    whole = all(isinstance(v, int | np.integer) for v in values)
    return bool(np.allclose(steps, steps[0]) and steps[0] > (1 if whole else 0))


def _live_view(
    widgets: Any,
    draw: Callable[[Any], Any],
    values: Sequence[Any],
    label: str,
    alt: str | Callable[[Any], str],
    caption: str | None,
    answer: str | None,
    start: int,
) -> Any:
    whole = all(isinstance(v, int | np.integer) for v in values)
    kind, step = (
        (widgets.IntSlider, 1) if whole else (widgets.FloatSlider, (values[1] - values[0]) / 10)
    )
    slider = kind(
        value=values[start],
        min=values[0],
        max=values[-1],
        step=step,
        description=label,
        style={"description_width": "initial"},
        layout={"width": "min(100%, 36em)"},
    )
    picture = widgets.HTML()

    def redraw(change: dict[str, Any]) -> None:
        value = change["new"]
        picture.value = show(_drawn(draw, value), alt=_alt(alt, value), caption=caption).html

    slider.observe(redraw, names="value")
    redraw({"new": slider.value})
    below = [widgets.HTML(folded(answer))] if answer else []
    return widgets.VBox([slider, picture, *below])


def _widgets() -> Any:
    """The module ipywidgets, if it is there and so is a reader; a page being built has none."""
    if not notebook_reader():
        return None
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets
