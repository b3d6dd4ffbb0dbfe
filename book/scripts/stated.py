"""Numbers in prose that come from `artifacts/`: written once there, kept equal here by sync.py.

In a markdown cell a number stands between two comments, which neither the page nor Colab shows:

    strict <!--n delta rain13 'strict C2' plain psnr-->+0.26 ± 0.26<!--/n--> dB

The first says how it is found: a name below, its arguments in order, then options as key=value.

    mean FILE ROW METRIC            mean over the seeds
    delta FILE ROW TO METRIC        paired difference ± half width of its 95 % interval
    gap FILE ROW TO METRIC          the difference of the means alone
    gain FILE ROW METRIC OTHER      mean over the seeds of METRIC minus OTHER in one row
    within FILE ROW METRIC OTHER    the same, paired by seed, ± half width of its 95 % interval
    span FILE METRIC [OTHER]        smallest to largest mean over rows (of METRIC minus OTHER)
    deltas FILE METRIC TO           smallest to largest mean difference of the rows to TO
    halves FILE METRIC TO           smallest to largest half width of the differences to TO
    contrast FILE ROW TO            difference of two rows ± half width of its interval by the pooled error of all rows
    verdict FILE ROW TO             gain, loss, equivalent or undecided; of the contrasts fixed beforehand alone
    seeds FILE ROW                  how many seeds the row has
    mute FILE ROW                   how many of its runs say nothing
    times FILE ROW TO               seconds of a step, as a multiple of those of TO
    at FILE PATH                    one entry
    less FILE PATH PATH             the first entry minus the second
    ratio FILE PATH PATH            the first entry divided by the second
    quoted KEY                      somebody else's number: KEY is in book/references.bib
    page                            a number of this page's own run, which a cell prints

ROW is a path below "rows" (`mixed/100/eqreg`), or from the top if it starts with a slash; FILE:ROW takes another
file. In rows that are lists of seeds METRIC may be a path too (`angles/6`). Options: digits=2, scale=1, sign=yes or no,
and rows=a,b or without=a,b where rows are gone through.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

MARK = re.compile(r"<!--n (?P<how>.*?)-->(?P<text>.*?)<!--/n-->", re.DOTALL)
MINUS = "\N{MINUS SIGN}"


def rewrite(text: str, root: Path) -> str:
    """The text with every marked number as the artifact has it.

    Raises:
        ValueError: a mark that cannot be read, or that the artifact does not answer; it is quoted.
    """

    def fresh(mark: re.Match[str]) -> str:
        return f"<!--n {mark['how']}-->{_number(mark['how'], mark['text'], root)}<!--/n-->"

    bare = MARK.sub("", text)
    if "<!--n" in bare or "<!--/n" in bare:
        raise ValueError(f"a mark of a number is not closed or not opened near {bare[:80]!r}")
    if broken := re.search(r"(?<=\n)<!--n.*", text):  # Markdown reads it as a block of HTML
        raise ValueError(f"a line begins with a mark, which ends its paragraph: {broken[0][:80]!r}")
    return MARK.sub(fresh, text)


def unmarked(text: str) -> list[str]:
    """Measured numbers that stand outside marks: `0.2 ± 0.1`, `0.3 dB`, `0.3 points`."""
    bare = MARK.sub("", text)
    return re.findall(rf"[+{MINUS}]?[\d.]+ ± [\d.]+|[+{MINUS}]?\d+\.\d+ (?:dB|points)\b", bare)


def _number(how: str, text: str, root: Path) -> str:
    try:
        words = shlex.split(how)
        options = dict(w.split("=", 1) for w in words[1:] if re.match(r"[a-z]+=", w))
        given = [w for w in words[1:] if not re.match(r"[a-z]+=", w)]
        if words[0] in ("quoted", "page"):
            return _kept(words[0], given, text, root)
        return str(KINDS[words[0]](_Files(root, options), *given))
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"the number marked {how!r} cannot be found: {error!r}") from error


def _kept(kind: str, given: list[str], text: str, root: Path) -> str:
    if kind == "quoted":
        known = (root / "book/references.bib").read_text(encoding="utf8")
        if f"{{{given[0]}," not in known:
            raise ValueError(f"no entry {given[0]!r} in book/references.bib")
    return text


@lru_cache
def _read(path: Path, _changed: int) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf8")))


def _inside(found: Any, path: str) -> Any:
    for key in path.strip("/").split("/"):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


class _Files:
    """What the artifacts say, and how it is written."""

    def __init__(self, root: Path, options: dict[str, str]) -> None:
        if unknown := set(options) - {"digits", "scale", "sign", "rows", "without"}:
            raise ValueError(f"unknown option {sorted(unknown)[0]!r}")
        self.root, self.options = root, options
        self.digits, self.scale = int(options.get("digits", 2)), float(options.get("scale", 1))

    def file(self, name: str) -> dict[str, Any]:
        path = self.root / "artifacts" / f"{name}.json"
        return _read(path, path.stat().st_mtime_ns)

    def entry(self, name: str, path: str) -> Any:
        if ":" in path and not path.startswith("/"):
            name, path = path.split(":", 1)
        found: Any = self.file(name) if path.startswith("/") else self.file(name)["rows"]
        return _inside(found, path)

    def seeds(self, name: str, row: str, metric: str) -> dict[int, float]:
        found = self.entry(name, row)
        if isinstance(found, list):
            return {i: float(_inside(seed, metric)) for i, seed in enumerate(found)}
        values = found.get("metrics", found)[metric]
        return dict(zip(found.get("seeds", range(len(values))), map(float, values), strict=True))

    def mean(self, name: str, row: str, metric: str) -> float:
        values = self.seeds(name, row, metric).values()
        return sum(values) / len(values)

    def differences(self, name: str, row: str, to: str, metric: str) -> list[float]:
        ours, theirs = self.seeds(name, row, metric), self.seeds(name, to, metric)
        if not (shared := [s for s in ours if s in theirs]):
            raise ValueError("no seed in common")
        return [ours[s] - theirs[s] for s in shared]

    def rows(self, name: str) -> list[str]:
        known = list(self.file(name)["rows"])
        asked = self.options.get("rows", ",".join(known)).split(",")
        return [r for r in asked if r not in self.options.get("without", "").split(",")]

    def written(self, value: float, sign: str = "no") -> str:
        sign = self.options.get("sign", sign)
        shown = f"{abs(value) * self.scale:.{self.digits}f}"
        if sign == "no":
            return shown
        return ("+" if value >= 0 else MINUS) + shown

    def between(self, values: list[float], sign: str = "no") -> str:
        if self.options.get("sign", sign) == "no":
            values = [abs(v) for v in values]
        return f"{self.written(min(values), sign)} to {self.written(max(values), sign)}"

    def sure(self, values: list[float]) -> str:
        half = f"{_half(values) * self.scale:.{self.digits}f}"
        return f"{self.written(sum(values) / len(values), 'yes')} ± {half}"


def _half(values: list[float]) -> float:
    from eqreg.measure.intervals import half_width  # imports torch, which most calls do not need

    return float(half_width(values))


def _mean(f: _Files, name: str, row: str, metric: str) -> str:
    return f.written(f.mean(name, row, metric))


def _delta(f: _Files, name: str, row: str, to: str, metric: str) -> str:
    return f.sure(f.differences(name, row, to, metric))


def _gap(f: _Files, name: str, row: str, to: str, metric: str) -> str:
    found = f.differences(name, row, to, metric)
    return f.written(sum(found) / len(found))


def _gain(f: _Files, name: str, row: str, metric: str, other: str) -> str:
    return f.written(f.mean(name, row, metric) - f.mean(name, row, other), "yes")


def _within(f: _Files, name: str, row: str, metric: str, other: str) -> str:
    ours, theirs = f.seeds(name, row, metric), f.seeds(name, row, other)
    return f.sure([ours[s] - theirs[s] for s in ours])


def _span(f: _Files, name: str, metric: str, other: str | None = None) -> str:
    found = [f.mean(name, r, metric) for r in f.rows(name)]
    if other is not None:
        found = [v - f.mean(name, r, other) for r, v in zip(f.rows(name), found, strict=True)]
    return f.between(found, "yes" if min(found) < 0 else "no")


def _halves(f: _Files, name: str, metric: str, to: str) -> str:
    rows = [r for r in f.rows(name) if r != to]
    return f.between([_half(f.differences(name, r, to, metric)) for r in rows])


def _deltas(f: _Files, name: str, metric: str, to: str) -> str:
    rows = [r for r in f.rows(name) if r != to]
    found = [f.differences(name, r, to, metric) for r in rows]
    return f.between([sum(d) / len(d) for d in found], "yes")


@lru_cache
def _decided(path: Path, changed: int) -> dict[tuple[str, str], Any]:
    from eqreg.experiments.comparison import decided  # imports torch, which most calls do not need

    return {(c.a, c.b): c for c in decided(_read(path, changed))}


def _fixed(f: _Files, name: str, row: str, to: str) -> Any:
    path = f.root / "artifacts" / f"{name}.json"
    return _decided(path, path.stat().st_mtime_ns)[row, to]


def _contrast(f: _Files, name: str, row: str, to: str) -> str:
    path = f.root / "artifacts" / f"{name}.json"
    known = _decided(path, path.stat().st_mtime_ns)
    half = next(iter(known.values())).half  # the pooled error is one for all differences
    by_plain = {r: known[r, "plain"].mean if r != "plain" else 0.0 for r in (row, to)}
    return f"{f.written(by_plain[row] - by_plain[to], 'yes')} ± {f.written(half)}"


def _verdict(f: _Files, name: str, row: str, to: str) -> str:
    return str(_fixed(f, name, row, to).verdict)


def _count(f: _Files, name: str, row: str) -> str:
    return str(len(f.entry(name, row)["seeds"]))


def _mute(f: _Files, name: str, row: str) -> str:
    return str(sum(map(bool, f.entry(name, row)["mute"])))


def _times(f: _Files, name: str, row: str, to: str) -> str:
    ours, theirs = (min(f.entry(name, r)["seconds_per_step"]) for r in (row, to))
    return f.written(ours / theirs)


def _at(f: _Files, name: str, path: str) -> str:
    return f.written(float(f.entry(name, "/" + path.lstrip("/"))))


def _less(f: _Files, name: str, path: str, other: str) -> str:
    ours, theirs = (float(f.entry(name, "/" + p.lstrip("/"))) for p in (path, other))
    return f.written(ours - theirs)


def _ratio(f: _Files, name: str, path: str, other: str) -> str:
    ours, theirs = (float(f.entry(name, "/" + p.lstrip("/"))) for p in (path, other))
    return f.written(ours / theirs)


KINDS: dict[str, Callable[..., str]] = {
    "mean": _mean, "delta": _delta, "gap": _gap, "gain": _gain,
    "span": _span, "deltas": _deltas, "halves": _halves, "times": _times, "at": _at, "less": _less, "ratio": _ratio,
    "within": _within, "contrast": _contrast, "verdict": _verdict, "seeds": _count, "mute": _mute,
}  # fmt: skip
