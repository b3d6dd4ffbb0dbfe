"""Sphinx directive ``{speed-history}``: what symmetry costs, as ``benchmarks/speed.py`` measured it.

A drawing of every figure's ratio in every stored run, and a table of the last run beside the targets. All of it is
read from artifacts/speed.json when the page is built; without that file the page says that nothing is stored.
"""

import json
from collections import Counter
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

ABSENT = "No run of benchmarks/speed.py is stored in this copy."
GROUPS = {
    "wide": "Eight convolutions, 32 channels, 16 images of 48²",
    "narrow": "Eight convolutions, 16 channels, 4 images of 24²",
    "decay": "300 convolutions, 16 channels",
    "decay-bf16": "The same in bfloat16, with what rounding takes kept in float32",
    "released": "Sizes of RCDNet's image net, beside the released form",
    "escnn-C4": "Three strict layers of C4, beside escnn",
    "escnn-D4": "Three strict layers of D4, beside escnn",
    "run": "Twenty steps of the task rain",
}
LEAST = 0.4  # the drawing begins here
HEAD = ("figure", "compared with", "ratio", "95 % interval", "target", "reached")


def key(row):
    return tuple(row[k] for k in ("group", "figure", "against", "what"))


def name(group):
    return GROUPS.get(group, f"Training steps of the task {group}")


def label(row):
    memory = "" if row["what"] == "time" else ", memory"
    return f"{row['figure']} / {row['against']}{memory}"


def verdict(row):
    """Whether the target is reached: as far as the interval tells."""
    if row["target"] is None:
        return "–"
    if row["high"] <= row["target"]:
        return "yes"
    return "no" if row["low"] > row["target"] else "not told apart"


def lines(entry):
    """Cells of the table: a group's name alone, then its figures."""
    group = None
    for row in entry["rows"]:
        if row["group"] != group:
            group = row["group"]
            yield (name(group),)
        one = row["low"] == row["high"]
        yield (
            row["figure"] + ("" if row["what"] == "time" else " (memory)"),
            row["against"],
            f"{row['ratio']:.3f}",
            "–"
            if one
            else f"{row['low']:.3f}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{row['high']:.3f}",
            "–" if row["target"] is None else f"{row['target']:g}",
            verdict(row),
        )


def said(entry):
    """Where a run's numbers come from, in a sentence."""
    stamp = entry["stamp"]
    left = "".join(f" Left out: {n} ({why})." for n, why in entry["missing"].items())
    return (
        f"{stamp['device']}, {entry['cores']} cores, {entry['threads']} thread; {stamp['date']}, version "
        f"{stamp['version']}; load at the start {entry['load']:g}.{left}"
    )


def plotted(history):
    """A line for each figure of the last run, one place for each run."""
    from eqreg import viz

    rows = history[-1]["rows"]
    sizes = Counter(row["group"] for row in rows)
    names, places, y = {}, [], 0  # a group of several figures has a line for its own name
    for row in rows:
        alone = sizes[row["group"]] == 1
        if not alone and name(row["group"]) not in names.values():
            names[y] = name(row["group"])
            y += 1
        names[y] = (f"{row['group']}: " if alone else "") + label(row)
        places.append(y)
        y += 1
    figure, ax = viz.subplots(size=(8, 0.6 + 0.3 * y))
    for age, entry in enumerate(reversed(history)):
        found = {key(row): row for row in entry["rows"]}
        for y, last in zip(places, rows, strict=True):
            if (row := found.get(key(last))) is None:
                continue
            last_run = age == 0
            color = viz.COLORS["blue"] if last_run else "0.6"
            ends = [max(LEAST, row["low"]), max(LEAST, row["high"])]
            ax.plot(ends, [y, y], "-", color=color, lw=1.5 if last_run else 0.7)
            place, marker = max(LEAST, row["ratio"]), "o" if row["ratio"] > LEAST else "<"
            size = 5 if last_run else 3
            ax.plot(place, y, marker, color=color, ms=size, zorder=2 + last_run, clip_on=False)
    for y, row in zip(places, rows, strict=True):
        if row["target"] is not None and row["target"] >= LEAST:
            mark = {"color": viz.COLORS["orange"], "ms": 11, "mew": 2.5, "zorder": 4}
            ax.plot(row["target"], y, "|", **mark)
    ax.axvline(1, color="0.8", lw=0.8, zorder=0)
    ax.set_yticks(list(names), list(names.values()), fontsize=9)
    for at, tick in zip(names, ax.get_yticklabels(), strict=True):
        tick.set_weight("normal" if at in places else "bold")
    ax.set(xscale="log", xlabel="ratio")
    ax.set_xlim(left=LEAST)
    ticks = [t for t in (0.4, 0.6, 0.8, 1, 1.2, 1.5, 2, 3, 4) if t <= ax.get_xlim()[1]]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([], minor=True)
    ax.set_ylim(max(names) + 0.6, -0.6)
    return figure


def drawn(history):
    """The history as HTML: a picture with its caption."""
    from eqreg import viz

    rows = history[-1]["rows"]
    runs = "run" if len(history) == 1 else "runs"
    alt = f"Ratios of {len(rows)} figures in {len(history)} {runs}; the table below has the last."
    caption = f"Blue: the last run, with its interval. Grey: earlier ones. Orange: the target. Triangle: below {LEAST}."
    return viz.show(plotted(history), alt=alt, caption=caption).html


def cells(texts, columns):
    row = nodes.row()
    for i, text in enumerate(texts):
        more = {"morecols": columns - 1} if len(texts) == 1 and i == 0 else {}
        inner = nodes.strong(text=text) if len(texts) == 1 else nodes.Text(text)
        row += nodes.entry("", nodes.paragraph("", "", inner), **more)
    return row


class SpeedHistory(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir, "artifacts", "speed.json")
        self.env.note_dependency(str(path))
        if not path.is_file():
            return [nodes.paragraph(text=ABSENT)]
        history = json.loads(path.read_text(encoding="utf-8"))["history"]
        head, body = nodes.thead("", cells(HEAD, len(HEAD))), nodes.tbody()
        for texts in lines(history[-1]):
            body += cells(texts, len(HEAD))
        widths = (nodes.colspec(colwidth=1) for _ in HEAD)
        group = nodes.tgroup("", *widths, head, body, cols=len(HEAD))
        return [
            nodes.raw("", drawn(history), format="html"),
            nodes.paragraph(text=said(history[-1])),
            nodes.table("", group, classes=["colwidths-auto"]),
        ]


def setup(app):
    app.add_directive("speed-history", SpeedHistory)
    return {"parallel_read_safe": True}
