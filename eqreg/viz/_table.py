"""Tables of results: sortable, scrolling inside their frame, and plain text without a browser."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any

_LONG = 8  # rows; a longer table can be sorted by a click on a column's name
_MISSING = "–"
# The hyphen before a number, as formats write it; not that of a date, a name or an exponent.
_SIGN = re.compile(r"(?<![\w.)-])-(?=\d)")
# A text that begins with a number and goes on with its interval is sorted, and stands, as a number.
_LEADING = re.compile(r"[+−-]?\d+(\.\d+)?(?=$| [(±])")

# All there is to run, in the button itself, as in `explore`: it survives where scripts are moved.
# Rows carry the numbers to sort by, so that "27.3 ± 0.1" is sorted as 27.3; missing values go last.
_SORT = (
    "const h=this.closest('th'),t=h.closest('table'),b=t.tBodies[0],i=h.cellIndex,"
    "up=h.ariaSort!=='ascending';"
    "t.querySelectorAll('thead th').forEach(o=>o.ariaSort='none');"
    "h.ariaSort=up?'ascending':'descending';"
    "const k=r=>r.cells[i].dataset.key,n=h.dataset.kind==='number',"
    "c=(x,y)=>n?x-y:x.localeCompare(y);"
    "[...b.rows].sort((r,s)=>(k(r)==='')-(k(s)==='')||(up?1:-1)*c(k(r),k(s)))"
    ".forEach(r=>b.append(r))"
)


@dataclass(frozen=True)
class Table:
    """A displayable table; what :func:`table` returns."""

    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    html: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        lines = [self.columns, *self.cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        padded = (
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            for line in lines
        )
        return "\n".join("  ".join(cells).rstrip() for cells in padded)


def table(
    rows: Sequence[Mapping[str, Any]],
    *,
    formats: Mapping[str, str] | None = None,
    caption: str | None = None,
) -> Table:
    """Results as a table that a phone can show: it scrolls inside its frame, the first column stays.

    Longer than eight rows, it is sorted by a click on a column's name. The table needs no kernel, and
    where there is no browser it is plain text in aligned columns.

    Args:
        rows: one mapping a row, from a column's name to its value: a text, a number, a pair
            ``(mean, half_width)``, which is written "mean ± half width", or None. The first row gives
            the columns, in order, with units where there are any; the first column names the rows.
        formats: how numbers of a column are written, for example ``{"PSNR in dB": ".2f"}``; three
            significant digits where nothing is said.
        caption: what the table shows, in a sentence; plain text.

    Raises:
        ValueError: if there are no rows, a row has other columns than the first, or ``formats`` names
            a column that is not there.
        TypeError: if a value is none of the kinds above.

    Example:
        >>> table([{"method": "plain", "PSNR in dB": (27.311, 0.052), "passes": 1},
        ...        {"method": "EQ-Reg", "PSNR in dB": (27.46, 0.048), "passes": 1}],
        ...       formats={"PSNR in dB": ".2f"})
        method    PSNR in dB  passes
        plain   27.31 ± 0.05       1
        EQ-Reg  27.46 ± 0.05       1
    """
    rows = [dict(row) for row in rows]
    if not rows or not rows[0]:
        raise ValueError("a table needs at least one row with at least one column, got none")
    columns = tuple(rows[0])
    for number, row in enumerate(rows):
        if set(row) != set(columns):
            raise ValueError(
                f"row {number} has the columns {list(row)}, expected those of the first: {list(columns)}"
            )
    formats = dict(formats or {})
    if unknown := sorted(set(formats) - set(columns)):
        raise ValueError(f"formats names {unknown}, expected some of the columns {list(columns)}")
    cells = tuple(
        tuple(_text(row[name], formats.get(name, ""), name) for name in columns) for row in rows
    )
    keys = [[_key(row[name]) for name in columns] for row in rows]
    kinds = [
        "text" if any(isinstance(line[i], str) and line[i] for line in keys) else "number"
        for i in range(len(columns))
    ]
    return Table(columns, cells, _html(columns, kinds, cells, keys, caption))


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, Real) and math.isnan(float(value)))


def _pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, Real) for v in value)


def _text(value: Any, spec: str, column: str) -> str:
    if _missing(value):
        return _MISSING
    if isinstance(value, str | bool):
        return _SIGN.sub("−", str(value))
    if isinstance(value, Real):
        return _number(value, spec)
    if _pair(value):
        mean, half = value
        if _missing(mean):
            return _MISSING
        return _number(mean, spec) + (
            "" if _missing(half) else f" ± {_number(half, spec.lstrip('+'))}"
        )
    raise TypeError(
        f"column {column!r}: expected a text, a number, a pair (mean, half_width) or None, got {value!r}"
    )


def _number(value: Any, spec: str) -> str:
    whole = isinstance(value, int) or hasattr(value, "bit_length")
    text = format(value, spec or ("d" if whole else ".3g"))
    return text.replace("-", "−") if spec[-1:] != "e" and "e" not in text else text


def _key(value: Any) -> str | float:
    """What a cell is sorted by: a number (of "27.3 (+0.1)" the first), a text, or "" if it has no value."""
    if _missing(value) or (_pair(value) and _missing(value[0])):
        return ""
    if _pair(value):
        return float(value[0])
    if isinstance(value, str) and (number := _LEADING.match(value)):
        return float(number[0].replace("−", "-"))
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else str(value)


def _html(
    columns: Sequence[str],
    kinds: Sequence[str],
    cells: Sequence[Sequence[str]],
    keys: Sequence[Sequence[str | float]],
    caption: str | None,
) -> str:
    sortable = len(cells) > _LONG
    # A frame that scrolls is reached by keyboard, and then it has to have a name.
    name = escape(caption or f"Table: {', '.join(columns)}")
    frame = "overflow-x:auto;max-width:100%;margin:1em 0"
    # "dataframe": notebooks and the book's theme have light and dark styles for tables of this class.
    look = "border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9em;margin:0"
    head = "".join(
        _cell(
            _button(column) if sortable else escape(column),
            kind,
            first=i == 0,
            tag="th",
            scope="col",
            data_kind=kind,
        )
        for i, (column, kind) in enumerate(zip(columns, kinds, strict=True))
    )
    body = "".join(
        "<tr>" + _row(line, values, kinds) + "</tr>"
        for line, values in zip(cells, keys, strict=True)
    )
    title = f'<p style="margin:0 0 .4em;text-align:left">{escape(caption)}</p>' if caption else ""
    return (
        f'<div class="eqreg-table" role="region" tabindex="0" aria-label="{name}" style="{frame}">'
        f'{title}<table class="dataframe" style="{look}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[str], keys: Sequence[str | float], kinds: Sequence[str]) -> str:
    name, *others = zip(cells, keys, kinds, strict=True)
    first = _cell(
        escape(name[0]), name[2], first=True, tag="th", scope="row", data_key=str(name[1])
    )
    return first + "".join(
        _cell(escape(text), kind, data_key=str(key)) for text, key, kind in others
    )


def _cell(
    content: str, kind: str, *, first: bool = False, tag: str = "td", **attributes: str
) -> str:
    # Numbers stay on one line; texts may break, but not to a column of single words.
    style = "text-align:right;white-space:nowrap" if kind == "number" else "text-align:left"
    if first:
        style += (
            ";position:sticky;left:0;min-width:6em;max-width:14em;"  # in sight while others scroll
            "background:var(--pst-color-background,var(--jp-layout-color0,Canvas))"
        )
    extra = "".join(
        f' {name.replace("_", "-")}="{escape(value)}"' for name, value in attributes.items()
    )
    return f'<{tag}{extra} style="{style};padding:.3em .7em;vertical-align:top">{content}</{tag}>'


def _button(column: str) -> str:
    style = "all:unset;cursor:pointer;font:inherit;text-decoration:underline dotted"
    return (
        f'<button type="button" title="sort by this column" style="{style}" onclick="{_SORT}">'
        f"{escape(column)}</button>"
    )
