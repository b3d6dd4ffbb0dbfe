"""The page of costs: what its directive makes of artifacts/speed.json."""

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
from sphinx.testing.util import SphinxTestApp

EXTENSIONS = str(Path(__file__).resolve().parents[2] / "book" / "scripts" / "ext")
sys.path.insert(0, EXTENSIONS)
import speed_history  # noqa: E402


def measured(ratio, version):
    rows = [
        {
            "group": "wide", "figure": "decay", "against": "plain", "what": "time",
            "ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "target": 1.03,
        },
        {
            "group": "wide", "figure": "EQ-Reg", "against": "plain", "what": "memory kept for backward",
            "ratio": 1.5, "low": 1.5, "high": 1.5, "target": None,
        },
    ]  # fmt: skip
    stamp = {"device": "a processor", "date": "2026-01-02", "version": version}
    missing = {"mar": "no slices"}
    return {"stamp": stamp, "load": 0.1, "cores": 2, "threads": 1, "missing": missing, "rows": rows}


@pytest.mark.parametrize(
    ("ratio", "reached"), [(1.0, "yes"), (1.03, "not told apart"), (1.1, "no")]
)
def test_a_target_is_reached_as_far_as_the_interval_tells(ratio, reached):
    assert speed_history.verdict(measured(ratio, "v")["rows"][0]) == reached


def test_the_page_of_costs_is_made_of_the_stored_history(tmp_path):
    source = tmp_path / "source"
    (source / "artifacts").mkdir(parents=True)
    (source / "conf.py").write_text(f"import sys; sys.path.insert(0, {EXTENSIONS!r})\n")
    (source / "index.rst").write_text("Costs\n=====\n\n.. speed-history::\n")
    overrides = {"extensions": ["speed_history"], "exclude_patterns": ["artifacts"]}
    pages = []
    for history in (None, [measured(1.2, "first"), measured(1.01, "second")]):
        if history:
            stored = json.dumps({"history": history})
            (source / "artifacts" / "speed.json").write_text(stored)
        app = SphinxTestApp(srcdir=source, builddir=tmp_path / "built", confoverrides=overrides)
        app.build()
        assert not app.warning.getvalue()
        pages.append((tmp_path / "built" / "html" / "index.html").read_text())
        app.cleanup()
    absent, page = pages
    assert speed_history.ABSENT in absent and "Ratios of" not in absent
    assert "second" in page and "first" not in page and "Left out: mar (no slices)." in page
    text = re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page))
    assert "decay plain 1.010 1.000 to 1.020 1.03 yes" in text
    assert "EQ-Reg (memory) plain 1.500 – –" in text
    assert page.count("Ratios of 2 figures in 2 runs") == 1


def test_every_figure_lies_within_the_drawing():
    one = measured(1.2, "v")
    # A group of one figure has no line of its own.
    one["rows"].append({**one["rows"][0], "group": "mar"})
    ax = speed_history.plotted([one]).axes[0]
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == [
        speed_history.GROUPS["wide"],
        "decay / plain",
        "EQ-Reg / plain, memory",
        "mar: decay / plain",
    ]
    low, high = sorted(ax.get_ylim())
    drawn = [y for line in ax.lines for y in line.get_ydata() if line.get_xdata()[0] != 1]
    assert {1, 2, 3} <= {*drawn} and low < 0 and high > 3
