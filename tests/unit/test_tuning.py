"""Grids that go on until the best is inside, dead runs that never win, and what a ledger says."""

import json
import math
from pathlib import Path

import pytest
import torch
from sound import RESULT
from torch import nn

from eqreg.experiments import campaign, comparison, ledger, tuning
from eqreg.experiments.cli import main
from eqreg.experiments.runs import Run, train
from eqreg.experiments.silent import is_mute
from eqreg.experiments.tuning import best_inside, tune
from eqreg.models import ResidualNet
from eqreg.tasks import NAMES, Preset, get_task
from eqreg.tasks.rain import Rain

ROOT = Path(__file__).resolve().parents[2]
TINY = Preset(
    steps=12, images=4, methods=("plain", "pairs", "eqreg", "eqreg-at-pairs-rate", "released"),
    seeds=(0, 1), rates=(1e-3, 2e-3), tuning_steps=4, tuning_seeds=(100, 101), watch=3, expects="a second",
    sizes={"patches": 2, "patch": 32, "crop": 16, "size": 24, "spread": 20.0, "width": 4, "depth": 3},
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})


@pytest.mark.parametrize(
    ("top", "expected"),
    [(1.0, (1.0, True)), (16.0, (16.0, False)), (1 / 8, (1 / 8, False)), (1e6, (32.0, True))],
)
def test_a_grid_goes_on_until_the_best_is_inside(top, expected):
    values = (top,) if top == 1.0 else (1.0, 2.0)
    found = best_inside(values, lambda v: -abs(math.log(v / top)), most=4)
    assert found == (expected if top != 1.0 else (1.0, False))


STAMP = {"hours": 0.0, "device": "a card", "date": "2026-01-01", "version": "eqreg 1"}


def fake(score, mute=lambda lr, strength: False, share=lambda strength: 0.0, seen=None):
    """A `train` that returns a score at once."""

    def train(run, out, **how):
        if seen is not None:
            seen.append(run)
        value = score(run.lr, run.strength)
        if value is None:
            raise FloatingPointError("diverged")
        return {
            "metrics": {"psnr": value}, "stamp": STAMP, "share": share(run.strength),
            "mute": mute(run.lr, run.strength),
        }  # fmt: skip

    return train


def test_rates_double_and_the_ledger_tells_of_the_edge(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "train", fake(lambda lr, s: -abs(math.log(lr / 8e-3))))
    found = tune("rain", "tiny", "plain", tmp_path)
    assert found["lr"] == pytest.approx(8e-3) and found["edge"] == {"lr": False, "strength": False}
    assert [t["lr"] for t in found["tried"]] == pytest.approx([1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2])
    monkeypatch.setattr(tuning, "train", fake(lambda lr, s: lr))
    found = tune("rain", "tiny", "plain", tmp_path / "b")
    assert found["edge"]["lr"] and found["lr"] == pytest.approx(2e-3 * 2**4)


def test_a_ledger_says_where_it_ran_and_an_older_one_that_it_does_not(tiny, tmp_path, monkeypatch):
    later = iter(["2026-01-01", "2026-01-03", "2026-01-02", *["2026-01-01"] * 30])
    scored = fake(lambda lr, s: lr)

    def dated(run, out, **how):
        return {**(r := scored(run, out)), "stamp": {**r["stamp"], "date": next(later)}}

    monkeypatch.setattr(tuning, "train", dated)
    found = tune("rain", "tiny", "plain", tmp_path)
    assert found["stamp"] == {"device": "a card", "date": "2026-01-03", "version": "eqreg 1"}
    monkeypatch.undo()
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})
    train(Run("rain", "tiny", "plain", 0, 1e-3), tmp_path)
    train(Run("rain", "tiny", "pairs", 0, 1e-3), tmp_path)
    older = {"lr": 1e-3, "strength": 0.0, "tried": [], "hours": 0.0}
    path = tmp_path / "rain/tiny/pairs/tuning.json"
    path.write_text(json.dumps(older))
    content = comparison.collect(tmp_path, "rain", "tiny")
    assert content["tuning"]["plain"]["stamp"]["device"] == "a card"
    assert content["tuning"]["pairs"]["stamp"] == "not stamped"
    told = comparison.choices(content).splitlines()
    assert told[1].endswith("[1]") and told[2].endswith("[2]")
    assert told[3:] == ["[1] a card, 2026-01-03, eqreg 1", "[2] not stamped"]
    content["tuning"]["decay"] = content["tuning"]["plain"]
    assert comparison.choices(content).count("a card") == 1
    assert max(map(len, comparison.choices(content).splitlines())) <= 100  # as wide as a page
    assert " lr " in told[1] and " no " in told[2]
    ledger.publish(tmp_path, tmp_path / "kept", "rain", "tiny")
    assert json.loads((tmp_path / "kept/rain/tiny/pairs/tuning.json").read_text()) == older


def test_a_row_that_dies_takes_no_seed_from_the_claim():
    def row(values, mute=None, seeds=(0, 1, 2)):
        images = [[v, v + 0.01] for v in values]
        found = {"metrics": {"psnr": values}, "per_image": {"psnr": images}, "seeds": list(seeds)}
        return found if mute is None else {**found, "mute": mute}

    rows = {
        "plain": row([30.0, 30.1, 30.2], [False] * 3),
        "eqreg": row([31.0, 31.1, 31.3], [None, False, False]),
        "pairs": row([30.0, 30.2, 30.2]),
        "decay": row([30.5, 9.0, 30.6], [False, True, False]),
        "automatic": row([30.5, 30.6], [False] * 2, (0, 2)),
        "eqreg-at-pairs-rate": row([31.0, 31.0, 31.2]),
    }
    content = {"rows": rows, "settings": {"task": "rain"}}
    assert comparison.judged(rows) == (
        [0, 1, 2],
        ["plain", "eqreg", "pairs", "eqreg-at-pairs-rate"],
    )
    pairs = {(c.a, c.b) for c in comparison.decided(content)}
    assert ("eqreg", "pairs") in pairs and not any("decay" in p for p in pairs)
    told = comparison.verdicts(content)
    assert told.startswith("3 seeds") and "decay: 3 runs, 1 say nothing, not judged" in told
    assert "automatic: 2 runs, 0 say nothing, not judged" in told
    rows["pairs"]["mute"] = [
        True,
        False,
        False,
    ]  # one of the claim's: its seed goes, and the decay's other stays out
    assert comparison.judged(rows)[0] == [1, 2]
    assert "pairs: 3 runs, 1 say nothing" in comparison.verdicts(content)
    rows["decay"]["mute"] = [True, False, False]
    assert "decay" in comparison.judged(rows)[1]
    alone = {m: rows[m] for m in ("decay", "automatic")}
    assert comparison.judged(alone) == ([2], ["decay", "automatic"])


def test_cost_is_told_at_equal_images_and_at_equal_time():
    def row(seconds, *looks, images=96):
        return {
            "seconds_per_step": seconds,
            "looks": [list(at) for at in looks],
            "images": [images] * 2,
        }

    content = {
        "rows": {
            "plain": row([0.02, 0.01], (50, 20.0), (100, 30.0)),
            "slow": row([0.02, 0.0125], (50, 20.0), (100, 30.0)),  # 100 / 1.25 = 80 steps
            "quick": row([0.005, 0.01], (50, 10.0), (100, 12.0)),
            "late": row([0.04, 0.03], (50, 10.0), (100, 12.0), images=192),  # 33 steps: no look yet
        }
    }
    told = {line.split()[0]: line.split()[1:] for line in comparison.costs(content).splitlines()}
    assert (
        comparison.costs(content)
        .splitlines()[-1]
        .startswith("time: of a step, to be compared only")
    )
    assert told["plain"] == ["96", "1.00", "30.0000", ">=", "30.0000"]
    assert told["slow"] == ["96", "1.25", "30.0000", ">=", "26.0000"]
    assert told["quick"] == ["96", "0.50", "12.0000", ">=", "12.0000"]
    assert told["late"] == ["192", "3.00", "12.0000", "-"]
    content["rows"]["slow"]["looks"] = []
    assert "are missing" in comparison.costs(content)
    assert comparison._looks(
        [[{"step": 1, "v": 1.0}, {"step": 2, "v": 2.0}], [{"step": 2, "v": 4.0}, {"step": 3, "v": 0.0}]], "v"
    ) == [[2, 3.0]]  # fmt: skip


def test_a_run_of_published_pairs_is_a_small_file(tmp_path):
    """Committed one a run. Of the larger tasks: all numbers of a stored run, with 100 pairs and 40 photographs."""
    for task, pairs in (("deraining", 50), ("mar", 0)):
        stored = json.loads((ROOT / f"artifacts/{task}-cpu.json").read_text())
        row = stored["rows"]["plain"]
        images = {k: v[0] * (2 if len(v[0]) == pairs else 1) for k, v in row["per_image"].items()}
        images |= {f"psnr_kept_back_{i}": [29.123] * 40 for i in range(3)}
        metrics = {k: 29.123456789012345 for k in images}
        result = RESULT | {
            "run": RESULT["run"] | {"hash": "0" * 16, **stored["settings"]},
                "stamp": stored["stamp"], "metrics": metrics,
            "per_image": images, "curves": stored["curves"]["plain"], "cost": {"seconds_per_step": 0.1},
            "strengths": {f"background_nets.{i}.blocks.0.0": 40.0 for i in range(12)},
        }  # fmt: skip
        path = tmp_path / task / "evidence/plain/seed-0/result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(result))
        assert ledger.publish(tmp_path, tmp_path / "kept", task, "evidence") == 1
        assert (tmp_path / "kept" / task / "evidence/plain/seed-0.json").stat().st_size <= 20_000
    for path in (ROOT / "artifacts/runs").rglob("*.json"):
        assert path.stat().st_size <= 20_000, path


def test_what_is_dead_is_never_chosen(tiny, tmp_path, monkeypatch):
    """The largest scores are those of a network that says nothing, of nan, and of a diverged run."""
    scores = {1e-3: 1.0, 2e-3: 9.0, 5e-4: math.nan, 4e-3: None}
    monkeypatch.setattr(
        tuning, "train",
        fake(lambda lr, s: scores.get(lr, 0.0), mute=lambda lr, s: lr == 2e-3),
    )  # fmt: skip
    found = tune("rain", "tiny", "plain", tmp_path)
    assert found["lr"] == 1e-3 and found["dead"] >= 4
    assert {t["lr"] for t in found["tried"] if t["score"] is None} >= {2e-3, 5e-4}
    stored = (tmp_path / "rain/tiny/plain/tuning.json").read_text()
    assert json.loads(stored, parse_constant=pytest.fail) == found


def test_strengths_go_down_until_the_penalty_hardly_counts(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(
        tuning, "train",
        fake(lambda lr, s: -abs(math.log10(s / 1e-3)), share=lambda s: min(1.0, 1e3 * s)),
    )  # fmt: skip
    found = tune("rain", "tiny", "eqreg", tmp_path)
    smallest = min(found["tried"], key=lambda t: t["strength"])
    assert smallest["share"] < 1e-3 and smallest["strength"] == pytest.approx(1e-7)
    assert found["strength"] == 1e-3 and found["score"] == 0


def test_a_method_takes_the_rate_of_another(tiny, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        tuning, "train", fake(lambda lr, s: -abs(math.log(lr / 4e-3)) - s, seen=seen)
    )
    found = tune("rain", "tiny", "eqreg-at-pairs-rate-C4", tmp_path)
    assert found["lr"] == pytest.approx(4e-3)
    assert {run.method for run in seen} == {"pairs-C4", "eqreg-at-pairs-rate-C4"}
    assert {run.lr for run in seen if run.method != "pairs-C4"} == {found["lr"]}


def test_the_released_form_passes_the_whole_batch_and_its_copies(tiny, tmp_path):
    released, control, pairs = (
        train(Run("rain", "tiny", name, 0, 1e-3, strength, steps=2), tmp_path)
        for name, strength in (("released", 1e-8), ("released-control", 0.0), ("pairs", 0.0))
    )
    assert released["cost"]["images"] == control["cost"]["images"] == 2 * pairs["cost"]["images"]
    assert 0 < released["share"] < 0.5 and control["share"] == pairs["share"] == 0.0


def test_the_last_look_at_validation_is_kept(tiny, tmp_path):
    result = train(Run("rain", "tiny", "plain", 0, 1e-3), tmp_path)
    assert [entry["step"] for entry in result["curves"]["val"]] == [4, 8, 12]


class Shut(nn.Module):
    """Adds a constant, or gives one."""

    def __init__(self, keep):
        super().__init__()
        self.keep, self.bias = keep, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.keep * x + self.bias


def test_a_network_that_says_nothing_is_known():
    x = torch.rand(4, 1, 8, 8)
    assert is_mute(Shut(1), lambda g: (x, x)) and is_mute(Shut(0), lambda g: (x, x))
    assert not is_mute(Shut(0.9), lambda g: (x, x))
    model = ResidualNet(width=4, depth=3)
    assert not is_mute(model, lambda g: (x, x)) and model.training
    nn.init.zeros_(model.body[-1].weight)
    assert is_mute(model, lambda g: (x, x))


@pytest.mark.parametrize("task", NAMES)
def test_the_networks_of_all_tasks_say_something(task):
    chosen = get_task(task)
    preset = chosen.preset("quick")
    torch.manual_seed(0)
    model = chosen.model(preset)
    sampler = chosen.batches(preset, 0, 4, None, torch.device("cpu"))
    assert not is_mute(model, sampler, generator=torch.Generator().manual_seed(0))


def test_a_campaign_goes_on_from_the_committed_runs(tiny, tmp_path, capsys, monkeypatch):
    few = Preset(**{**TINY.__dict__, "methods": ("plain", "pairs"), "rates": (1e-3,)})
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": few})
    for method in few.methods:
        tune("rain", "tiny", method, tmp_path / "a")
        for seed in few.seeds:
            train(Run("rain", "tiny", method, seed, 1e-3), tmp_path / "a")
    assert ledger.publish(tmp_path / "a", tmp_path / "runs", "rain", "tiny") == 2 * 3
    assert ledger.publish(tmp_path / "a", tmp_path / "runs", "rain", "tiny") == 0
    sizes = [p.stat().st_size for p in (tmp_path / "runs").rglob("seed-*.json")]
    assert len(sizes) == 4 and max(sizes) < 20_000
    (tmp_path / "runs/rain/tiny/pairs/seed-1.json").unlink()
    arguments = ["--preset", "tiny", "--out", str(tmp_path / "b")]
    assert ledger.restore(tmp_path / "runs", tmp_path / "b", "rain", "tiny") == 2 * 3 - 1
    jobs = campaign.plan("rain", "tiny", tmp_path / "b")
    assert [job.name for job in jobs if not job.leaves.is_file()] == ["train pairs 1"]
    monkeypatch.setattr(tuning, "train", pytest.fail)
    again = train(Run("rain", "tiny", "plain", 0, 1e-3), tmp_path / "b", stop=pytest.fail)
    assert again["metrics"]["psnr"] > 0
    assert main(["compare", "rain", *arguments]) == 0
    assert "no contrast yet" in capsys.readouterr().out
    train(Run("rain", "tiny", "pairs", 1, 1e-3), tmp_path / "b")
    assert main(["compare", "rain", *arguments]) == 0
    told = capsys.readouterr().out
    assert "pairs - plain" in told and "margin 0.15" in told


@pytest.mark.parametrize("task", [n for n in NAMES if n != "textures"])
def test_evidence_presets_are_what_was_fixed_beforehand(task):
    preset = get_task(task).preset("evidence")
    assert {
        "plain",
        "augmentation",
        "strict-equal",
        "pairs",
        "eqreg",
        "eqreg-at-pairs-rate",
    } <= set(preset.methods)
    assert 3 * preset.tuning_steps >= preset.steps and len(preset.seeds) >= 10
    assert preset.study  # `compare --keep` leaves the networks that chapters show alone
    assert len(preset.tuning_seeds) >= 2 and len(preset.rates) >= 2
    strengths = {m: get_task(task).methods[m].strengths for m in preset.methods}
    assert all(strengths[m] == (1e-8,) for m in preset.methods if m == "released")
