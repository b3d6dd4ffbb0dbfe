"""How long a chapter takes to read: its words, its displayed formulas and the code that its page shows open."""

from __future__ import annotations

import re

WORDS, LINES = 200, 15  # a minute, read to understand
FORMULA = 0.3  # minutes
FOLDED = {"setup", "hide-input", "hide-cell"}
STATED = re.compile(r"Reading: about \d+ min")


def minutes(cells: list[dict]) -> int:
    """Minutes of a notebook's cells, to the next five."""
    text = " ".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    words = len(re.findall(r"\w+", re.sub(r"\$\$?[^$]*\$\$?|\]\([^)]*\)", " ", text)))
    lines = sum(
        len("".join(c["source"]).splitlines())
        for c in cells
        if c["cell_type"] == "code" and not FOLDED & set(c["metadata"].get("tags", ()))
    )
    found = words / WORDS + FORMULA * (text.count("$$") // 2) + lines / LINES
    return max(5, 5 * round(found / 5))


def rewrite(head: str, cells: list[dict]) -> str:
    """A chapter's first cell with the minutes that its text takes."""
    return STATED.sub(f"Reading: about {minutes(cells)} min", head)
