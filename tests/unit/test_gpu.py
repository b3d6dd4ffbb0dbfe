"""`make gpu`: the order of what it runs, and what it says to fit, on the CPU and with a preset of seconds."""

import json
import sys
from pathlib import Path

import pytest

from eqreg.experiments import campaign, timing
from eqreg.tasks import Preset
from eqreg.tasks.rain import Rain

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu  # noqa: E402

TINY = Preset(
    steps=600, images=4, methods=("plain", "eqreg", "decay-C2"), seeds=(0, 1), rates=(1e-3, 2e-3), tuning_steps=60,
    tuning_seeds=(100, 101), expects="a second",
    sizes={"patches": 2, "patch": 32, "crop": 16, "size": 24, "spread": 20.0, "width": 4, "depth": 3},
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})


@pytest.fixture
def listed(tiny, tmp_path):
    path = tmp_path / "GPU.md"
    path.write_text("```runs\nrain tiny eqreg plain\nrain tiny\n```\n")
    return path


def test_first_lines_come_first_and_every_job_once(listed, tmp_path):
    runs = gpu.pending(listed.read_text())
    assert runs == [("rain", "tiny", ["eqreg", "plain"]), ("rain", "tiny", [])]
    jobs = gpu.ordered(runs, tmp_path, ())
    assert [job.name for job in jobs] == [
        "tune plain", "tune eqreg", "train plain 0", "train eqreg 0", "train plain 1", "train eqreg 1",
        "tune decay-C2", "train decay-C2 0", "train decay-C2 1",
    ]  # fmt: skip
    with pytest.raises(SystemExit, match=r"expected lines of task, preset and methods, got 'rain'"):
        gpu.pending("```runs\nrain\n```")


def test_what_chapter_17_needs_most_stands_first():
    runs = gpu.pending((ROOT / "GPU.md").read_text(encoding="utf-8"))
    five = ["plain", "augmentation", "strict-equal", "pairs", "eqreg"]
    assert runs[:2] == [("deraining", "full", five), ("mar", "full", five)]
    jobs = gpu.ordered(runs, Path("runs"), ())
    assert len(jobs) == len({job.leaves for job in jobs})
    first = [job.name for job in jobs[:20]]
    assert set(first[:5]) == {f"tune {m}" for m in five}
    assert len([name for name in first if name.startswith("train")]) == 15


def test_minutes_are_steps_times_seconds_until_the_budget_is_used_up(listed, tmp_path):
    jobs = gpu.ordered(gpu.pending(listed.read_text()), tmp_path / "runs", ())
    seen = []

    def clock(*row):
        seen.append(row)
        return {"plain": 0.5, "eqreg": 1.0}.get(row[2], 100.0)

    times = tmp_path / "runs/gpu-times.json"
    found = timing.estimates(jobs, 20.0, clock, times)
    # Two rates and two seeds of 60 steps; eqreg has two strengths more; 600 steps a run.
    assert [e.minutes for e in found] == pytest.approx([2.0, 8.0, 5.0, 10.0])
    assert seen == [("rain", "tiny", "plain"), ("rain", "tiny", "eqreg")]
    text = timing.told(found, 20.0, len(jobs))
    assert "in 20 minutes 3 of 9 jobs fit" in text and "25.00 min in all" in text
    timing.estimates(jobs, 20.0, lambda *_: pytest.fail("timed again"), times)
    every = timing.estimates(jobs, None, clock, times)
    assert len(every) == len(jobs) and "without a budget 9 of 9 jobs" in timing.told(every, None, 9)
    kept = json.loads(times.read_text())
    assert set(kept["seconds"]) == {f"rain tiny {m}" for m in TINY.methods}
    kept["stamp"]["device"] = "another card"
    times.write_text(json.dumps(kept))
    seen.clear()
    timing.estimates(jobs, 1.0, clock, times)
    assert seen == [("rain", "tiny", "plain")]
    assert timing.told([], 1.0, 0) == "nothing is left to run"


def test_a_dry_run_times_the_rows_and_starts_nothing(listed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(campaign, "work", pytest.fail)
    out = tmp_path / "runs"
    arguments = [
        "--device",
        "cpu",
        "--list",
        str(listed),
        "--out",
        str(out),
        "--dry",
        "--steps",
        "2",
    ]
    assert gpu.main([*arguments, "--minutes", "10000"]) == 0
    told = capsys.readouterr().out
    for method in TINY.methods:
        assert f"rain tiny {method}: 0." in told
    assert "9 of 9 jobs fit" in told and sorted(p.name for p in out.iterdir()) == ["gpu-times.json"]
    assert gpu.main(["--minutes", "1"]) == 2 if not gpu.torch.cuda.is_available() else True


def test_the_budget_that_timing_leaves_goes_to_the_runs(listed, tmp_path, monkeypatch, capsys):
    asked = {}

    def work(jobs, *, parallel, minutes, report):
        asked.update(jobs=len(jobs), parallel=parallel, minutes=minutes)
        return list(jobs), {}

    monkeypatch.setattr(campaign, "work", work)
    monkeypatch.setattr(timing, "seconds_a_step", lambda *_, **__: 0.01)
    arguments = ["--device", "cpu", "--list", str(listed), "--out", str(tmp_path / "runs")]
    assert gpu.main([*arguments, "--minutes", "5", "--jobs", "3"]) == campaign.STOPPED
    assert asked["jobs"] == 9 and asked["parallel"] == 3 and 4 < asked["minutes"] < 5
    assert "rain tiny: 9 jobs left" in capsys.readouterr().out


def test_ratios_are_to_the_first_row_of_the_same_round(tiny, monkeypatch):
    def clock(task, preset, method, root, device):
        load = iter(
            [9.0, 1.0, 5.0, 2.0]
        )  # warming up, then three rounds; in the second the machine is busy
        return lambda steps: steps * {"plain": 1.0, "eqreg": 1.5}[method] * next(load)

    with monkeypatch.context() as m:
        m.setattr(timing, "_clock", clock)
        found = timing.ratios("rain", "tiny", ("plain", "eqreg"), steps=4, rounds=3)
    assert found == {"plain": (1.0, 1.0, 1.0), "eqreg": (1.5, 1.5, 1.5)}
    found = timing.ratios("rain", "tiny", ("plain", "eqreg"), steps=2, rounds=3)
    middle, low, high = found["eqreg"]
    assert 0 < low <= middle <= high
    with pytest.raises(ValueError, match="expected methods and rounds"):
        timing.ratios("rain", "tiny", (), rounds=3)


def test_seconds_are_those_of_the_steps(tiny):
    found = timing.seconds_a_step("rain", "tiny", "decay-C2", steps=3)
    assert 0 < found < 60
    with pytest.raises(ValueError, match="unknown method"):
        timing.seconds_a_step("rain", "tiny", "magic")
