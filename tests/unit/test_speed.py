"""benchmarks/speed.py: the interval, the count of bytes, the history, and that figures name their cases."""

import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def speed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import speed

    yield speed
    for name in ("speed", "speed_cases", "common"):
        sys.modules.pop(name, None)


def test_the_interval_holds_the_median_nineteen_times_in_twenty(speed):
    g = torch.Generator().manual_seed(0)
    for rounds in (6, 15, 40):
        inside = 0
        for _ in range(2000):
            median, low, high = speed.median_of(torch.randn(rounds, generator=g).tolist())
            assert low <= median <= high
            inside += low <= 0 <= high
        assert 0.93 < inside / 2000 <= 0.985


def test_bytes_are_those_of_each_storage_once(speed):
    x = torch.rand(10, 10, requires_grad=True)
    assert speed.bytes_kept(lambda: (x * x).sum()) == 400
    assert speed.bytes_kept(lambda: x.sum()) == 0


def test_a_run_is_added_to_the_history(speed, tmp_path, monkeypatch):
    def cases():
        x = torch.rand(8, 8, requires_grad=True)
        return {"once": lambda: x.exp().sum(), "nothing": lambda: None}

    from speed_cases import Figure

    figures = (Figure("once", "nothing", 2.0), Figure("once", "once", 1.0, 1.0))
    monkeypatch.setattr(speed, "GROUPS", {"toy": speed.Group("toy", cases, figures)})
    out = tmp_path / "speed.json"
    for _ in range(2):
        argv = ["speed.py", "--minutes", "0.0001", "--threads", "1", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", argv)
        speed.main()
    stored = json.loads(out.read_text())
    assert len(stored["history"]) == 2 and stored["stamp"] == stored["history"][-1]["stamp"]
    rows = stored["history"][0]["rows"]
    assert [(r["figure"], r["what"]) for r in rows] == [
        ("once", "time"), ("once", "time"), ("once", "memory kept for backward"),
    ]  # fmt: skip
    assert rows[1]["ratio"] == rows[2]["ratio"] == 1.0 and rows[0]["rounds"] >= 3
    assert rows[0]["low"] <= rows[0]["ratio"] <= rows[0]["high"]


@pytest.mark.parametrize("name", ["narrow", "decay", "released"])
def test_figures_are_of_cases_that_there_are(speed, name):
    group = speed.GROUPS[name]
    cases = group.cases()
    assert {f.case for f in group.figures} | {f.against for f in group.figures} <= set(cases)


def test_the_released_form_has_the_penalty_of_the_reference_norm(speed, monkeypatch):
    """Else the two would not be compared at the same work."""
    import speed_cases

    found = {}
    for lam in (0.0, 1.0):
        monkeypatch.setattr(speed_cases, "LAMBDA", lam)
        torch.manual_seed(0)
        cases = speed_cases.released()
        with torch.no_grad():
            found[lam] = [cases[n]().item() for n in ("as released", "EQ-Reg, reference norm")]
    theirs, ours = (found[1.0][i] - found[0.0][i] for i in (0, 1))
    assert theirs > 1 and ours == pytest.approx(theirs, rel=1e-4)
