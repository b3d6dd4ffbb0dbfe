"""Runs, tuning, comparisons and campaigns, on a preset small enough to train here."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from sound import TEXT

from eqreg import (
    C2,
    C4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    measure,
)
from eqreg.experiments import artifacts, campaign, comparison
from eqreg.experiments.cli import main
from eqreg.experiments.records import tensorboard
from eqreg.experiments.runs import Run, Stopped, train
from eqreg.experiments.tuning import settings, tune
from eqreg.extras import require
from eqreg.models import ResidualNet
from eqreg.tasks import NAMES, Preset, get_task
from eqreg.tasks.rain import Rain
from eqreg.training.checkpoint import CheckpointError
from eqreg.training.methods import METHODS, Method, Row, prepare
from eqreg.training.settings import PLAIN, Symmetry, rewired

TINY = Preset(
    steps=6, images=4, methods=("plain", "eqreg", "decay"), seeds=(0, 1), rates=(1e-3, 4e-3),
    tuning_steps=3, tuning_seeds=(100,), watch=3, expects="a second",
    sizes={"patches": 2, "patch": 32, "crop": 16, "size": 24, "spread": 20.0, "width": 4, "depth": 3},
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})


def run(method="eqreg", seed=0, lr=1e-3, strength=1e-3, **more):
    return Run("rain", "tiny", method, seed, lr, strength, **more)


# ---- tasks and methods


@pytest.mark.parametrize("name", list(NAMES))
def test_every_task_keeps_its_promises(name):
    task = get_task(name)
    assert task.name == name and task.title
    assert {"quick", "full", "paper"} & set(task.presets)
    for preset in task.presets.values():
        for method in preset.methods:
            Row.parse(method, task.right, task.full, task.methods)
        assert preset.expects and not set(preset.seeds) & set(preset.tuning_seeds)


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown task 'snow'; expected one of rain"):
        get_task("snow")
    with pytest.raises(ValueError, match="unknown preset 'huge' of rain; expected one of quick"):
        get_task("rain").preset("huge")
    for wrong in ("eqregg", "eqreg-C3", "eqreg-", "-C4", "plain-C4-C4"):
        with pytest.raises(ValueError, match="unknown method"):
            Row.parse(wrong, C2, C4)
    with pytest.raises(ValueError, match="method 'plain' has no group, got 'plain-C4'"):
        Row.parse("plain-C4", C2, C4)
    with pytest.raises(ValueError, match=r"share the seeds \[1\]"):
        Preset(1, 1, (), (0, 1), (1.0,), 1, "", tuning_seeds=(1,))


def test_rows_take_the_right_group_and_the_decay_the_full_one():
    def groups(name):
        row = Row.parse(name, C2, C4)
        return row.group, row.decay_group

    assert groups("plain") == (None, None)
    assert groups("augmentation") == groups("strict-equal") == (C2, None)
    assert groups("eqreg-C4") == (C4, None)
    assert groups("decay") == (None, C4)
    assert groups("augmentation-decay") == (C2, C4)
    assert groups("decay-C2") == (None, C2)


def test_prepared_methods_are_what_they_say():
    def made(name, strength=0.5):
        return prepare(Row.parse(name, C2, C4), ResidualNet(width=8, depth=3), strength)

    count = sum(p.numel() for p in ResidualNet(width=8, depth=3).parameters())
    assert made("plain").symmetry == PLAIN
    assert made("augmentation").symmetry == Symmetry(augment=C2)
    sizes = {
        m: sum(p.numel() for p in made(m).model.parameters()) for m in ("strict", "strict-equal")
    }
    assert sizes["strict"] < 0.6 * count < 0.8 * count < sizes["strict-equal"]
    eqreg = made("eqreg").symmetry
    assert isinstance(eqreg.regularizer, EquivarianceRegularizer) and eqreg.lam == 0.5
    assert made("pairs", 0.0).symmetry.lam == 0
    decay = made("augmentation-decay", 40.0).symmetry
    assert isinstance(decay.decay, EquivarianceDecay) and set(decay.decay.strengths.values()) == {
        40
    }
    assert decay.augment == C2
    assert set(METHODS) >= {
        "plain",
        "augmentation",
        "strict",
        "strict-equal",
        "pairs",
        "eqreg",
        "decay",
    }


def test_methods_of_the_studies_are_what_they_say():
    def made(name, strength=0.5, method=None):
        row = Row.parse(name, C2, C4, METHODS if method is None else {name: method})
        return prepare(row, ResidualNet(width=8, depth=4), strength).symmetry

    assert made("eqreg-scale-free-C4").regularizer.norm == "scale-free"
    assert not made("penalty").label_pairs and made("eqreg").label_pairs
    penalty = made("projection-penalty")
    assert isinstance(penalty.regularizer, ProjectionPenalty) and penalty.lam == 0.5
    assert penalty.regularizer.group == C4 and made("projection-penalty-C2").regularizer.group == C2
    automatic = made("automatic", 40.0)
    assert automatic.automatic.decay is automatic.decay
    assert made("decay").automatic is None
    assert (automatic.automatic.rate, made("automatic-short").automatic.rate) == (0.05, 0.1)
    few = made("augmentation-sparing")
    assert (few.regularizer.fraction, few.regularizer.every, few.augment) == (0.25, 4, C2)
    some = made("some", method=Method("", decay=True, layers="body.0")).decay
    assert list(some.strengths) == ["body.0"]


def test_a_wrapped_model_keeps_what_its_regularizer_was_given():
    model = ResidualNet(width=8, depth=4)
    old = EquivarianceRegularizer(
        model, C4, layers="body.2", norm="scale-free", generator=torch.Generator(),
        fraction=0.5, every=3,
    )  # fmt: skip
    new = rewired(Symmetry(regularizer=old), model).regularizer
    assert new is not old and new.plan.fields == old.plan.fields
    assert (new.norm, new.generator) == ("scale-free", old.generator)
    assert (new.fraction, new.every) == (0.5, 3)


# ---- a run


def test_a_run_leaves_what_is_needed_to_trust_it(tiny, tmp_path):
    result = train(run(), tmp_path)
    folder = tmp_path / "rain" / "tiny" / "eqreg" / "seed-0"
    assert sorted(p.name for p in folder.iterdir()) == [
        "log.jsonl", "result.json", "result.lock", "weights.safetensors",
    ]  # fmt: skip
    assert json.loads((folder / "result.json").read_text()) == result
    assert set(result["stamp"]) >= {"device", "date", "version", "seeds", "hours"}
    assert result["run"]["sizes"] == TINY.sizes and len(result["run"]["hash"]) == 16
    assert len(result["data"]) == 16
    assert len(result["curves"]["loss"]) == len(result["curves"]["penalty"]) == 6
    assert [line["step"] for line in result["curves"]["val"]] == [2, 4, 6]
    assert result["cost"]["images"] == 6 * 4
    assert len(result["per_image"]["psnr"]) == 6
    mean = sum(result["per_image"]["psnr"]) / 6
    assert result["metrics"]["psnr"] == pytest.approx(mean, abs=1e-3)


def test_seeds_pair_the_methods(tiny, tmp_path):
    """The same seed gives all methods the same data; the penalty at lambda 0 is the pairs method."""
    a, b = (train(run(m, strength=0.0), tmp_path) for m in ("pairs", "eqreg"))
    assert a["data"] == b["data"]
    assert a["metrics"] == b["metrics"]
    other = train(run("pairs", seed=1, strength=0.0), tmp_path)
    assert other["data"] != a["data"]


def test_looking_at_validation_images_changes_nothing(tiny, tmp_path, monkeypatch):
    first = train(run(), tmp_path / "a")
    blind = {**Rain.presets, "tiny": Preset(**{**TINY.__dict__, "watch": 1})}
    monkeypatch.setattr(Rain, "presets", blind)
    again = train(run(), tmp_path / "b")
    assert again["metrics"] == first["metrics"] and len(again["curves"]["val"]) == 1


def test_a_stopped_run_goes_on(tiny, tmp_path):
    whole = train(run(), tmp_path / "a")
    calls = []
    with pytest.raises(Stopped, match="stopped after 3 of 6 steps; call again to go on"):
        train(run(), tmp_path / "b", stop=lambda: calls.append(0) or len(calls) == 3)
    resumed = train(run(), tmp_path / "b")
    assert (
        resumed["metrics"] == whole["metrics"]
        and resumed["curves"]["val"] == whole["curves"]["val"]
    )
    names = [p.name for p in run().folder(tmp_path / "b").iterdir()]
    assert not any("checkpoint" in name for name in names)


def test_a_finished_run_is_read_and_another_one_refused(tiny, tmp_path):
    first = train(run(), tmp_path)
    assert train(run(), tmp_path) == first
    with pytest.raises(
        ValueError, match=r"seed-0 holds another run: lr was 0.001 and is now 0.002\. Give"
    ):
        train(run(lr=2e-3), tmp_path)


def cut(out, **more):
    """A run that was stopped after three steps."""
    calls = []
    with pytest.raises(Stopped):
        train(run(**more), out, stop=lambda: calls.append(0) or len(calls) == 3)
    return run(**more).folder(out)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"method": "decay", "strength": 2.0},
            r"strengths was \[40.0\] and is now \[2.0\], strength was 40",
        ),
        (
            {"method": "decay", "seed": 1},
            "another run: seed was 0 and is now 1, data was '.*' and is now",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tiny, tmp_path, other, message):
    """Neither another strength nor a file moved into another seed's folder is trained on unnoticed."""
    first = cut(tmp_path, method="decay", strength=40.0)
    wanted = run(**{"strength": 40.0, **other})
    if wanted.folder(tmp_path) != first:
        shutil.copytree(first, wanted.folder(tmp_path))
    with pytest.raises(CheckpointError, match=message):
        train(wanted, tmp_path)


def test_a_validation_point_is_never_lost(tiny, tmp_path):
    whole = train(run(), tmp_path / "a")["curves"]["val"]
    for i, damage in enumerate((b"", b'{"step": 2, "lo', b"null\n[]\n{}\n\xff\n")):
        log = cut(tmp_path / str(i)) / "log.jsonl"
        log.write_bytes(damage)
        assert train(run(), tmp_path / str(i))["curves"]["val"] == whole
        assert json.loads(log.read_bytes().splitlines()[-1]) == whole[-1], (
            "the cut line swallowed it"
        )


# ---- tuning, comparison


@pytest.mark.filterwarnings("ignore:.*weights have no effect")  # at the rates of the widened grid
def test_tuning_takes_the_best_on_validation_images(tiny, tmp_path):
    assert settings("rain", "tiny", "eqreg", tmp_path) == (1e-3, 1e-3, False)
    found = tune("rain", "tiny", "eqreg", tmp_path)
    best = max(found["tried"], key=lambda t: t["score"])
    assert (found["lr"], found["strength"]) == (best["lr"], best["strength"])
    assert min(t["share"] for t in found["tried"]) < 1e-3
    assert settings("rain", "tiny", "eqreg", tmp_path) == (best["lr"], best["strength"], True)
    results = list(tmp_path.rglob("result.json"))
    assert len(results) == len(found["tried"]) >= 2 + 2  # two rates, then two more strengths
    assert {len(json.loads(p.read_text())["per_image"]["psnr"]) for p in results} == {2}, (
        "val has two"
    )


@pytest.mark.filterwarnings("ignore:.*weights have no effect")
def test_diverging_rates_lose(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Rain, "presets", {"tiny": Preset(**{**TINY.__dict__, "rates": (1e-3, 1e30)})}
    )
    found = tune("rain", "tiny", "plain", tmp_path)
    assert found["lr"] <= 1e-3 and found["tried"][1]["score"] is None
    monkeypatch.setattr(Rain, "presets", {"tiny": Preset(**{**TINY.__dict__, "rates": (1e30,)})})
    with pytest.raises(FloatingPointError, match="plain has no live run at any rate"):
        tune("rain", "tiny", "plain", tmp_path / "b")


def test_half_widths_are_students():
    assert measure.half_width([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1.963, abs=1e-3)
    assert math.isnan(measure.half_width([1.0]))


def test_a_comparison_pairs_seeds_and_is_kept(tiny, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="expected finished runs in"):
        comparison.collect(tmp_path, "rain", "tiny")
    for method in ("plain", "eqreg"):
        for seed in (0, 1):
            train(run(method, seed, strength=1e-3 if method == "eqreg" else 0.0), tmp_path)
    content = comparison.collect(tmp_path, "rain", "tiny")
    assert list(content["rows"]) == ["plain", "eqreg"] and content["stamp"]["seeds"] == [0, 1]
    rows = content["rows"]
    want = [b - a for a, b in zip(*(rows[m]["metrics"]["psnr"] for m in rows), strict=True)]
    assert comparison.paired(rows, "eqreg", "psnr") == want
    text = comparison.table(content, "psnr")
    assert f"{sum(want) / 2:+.3f} ± {measure.half_width(want):.3f}" in text
    del rows["eqreg"]["metrics"]["layers_C4"]  # as a strict network of another group
    lines = comparison.table(content, "layers_C4").splitlines()
    assert [line.split()[0] for line in lines] == ["method", "plain"]
    content = comparison.collect(tmp_path, "rain", "tiny")
    rows = content["rows"]
    content["stamp"]["device"] = "a name with [1,  2] in it"
    kept = artifacts.keep(content, tmp_path, tmp_path / "artifacts")
    assert kept == [
        "rain-tiny.json",
        "weights/rain/plain.safetensors",
        "weights/rain/eqreg.safetensors",
    ]
    index = json.loads((tmp_path / "artifacts" / "weights" / "index.json").read_text())
    assert set(index) == {"rain/plain.safetensors", "rain/eqreg.safetensors"}
    monkeypatch.setattr(artifacts, "_PLACES", (tmp_path / "artifacts",))
    assert artifacts.load_artifact("rain-tiny") == json.loads(json.dumps(content))
    assert artifacts.load_artifact("rain-tiny")["rows"] == rows
    lines = (tmp_path / "artifacts" / "rain-tiny.json").read_text().splitlines()
    assert '  "seeds": [ 0, 1 ]' in lines  # a list of numbers is a line


def test_the_strengths_that_a_decay_ended_with_are_told(tiny, tmp_path):
    moved = train(run("automatic-short", 0, strength=40.0), tmp_path)
    assert len(moved["strengths"]) == 3 and all(v != 40 for v in moved["strengths"].values())
    assert set(train(run("decay", 0, strength=7.0), tmp_path)["strengths"].values()) == {7}
    assert train(run("plain", 0, strength=0.0), tmp_path)["strengths"] == {}


# ---- campaigns


def test_a_plan_tunes_first_and_trains_seed_by_seed(tiny, tmp_path):
    jobs = campaign.plan(
        "rain", "tiny", tmp_path, methods=("plain", "decay"), options=("--device", "cpu")
    )
    assert [j.name for j in jobs] == [
        "tune plain", "tune decay", "train plain 0", "train decay 0", "train plain 1", "train decay 1",
    ]  # fmt: skip
    assert jobs[2].needs == jobs[0].leaves
    assert jobs[2].arguments == (
        "train", "rain", "--method", "plain", "--seed", "0", "--preset", "tiny", "--out", str(tmp_path),
        "--device", "cpu",
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"has no \['strict'\]; expected some of plain, eqreg, decay"
    ):
        campaign.plan("rain", "tiny", tmp_path, methods=("strict",))


def scripted(monkeypatch, scripts):
    def start(job):
        return subprocess.Popen([sys.executable, "-c", scripts[job.name]])

    monkeypatch.setattr(campaign, "_start", start)


def test_jobs_wait_for_what_they_need_and_failures_are_told(monkeypatch, tmp_path):
    a, b, c = (tmp_path / n for n in "abc")
    jobs = [
        campaign.Job("b", (), b, needs=a),
        campaign.Job("a", (), a),
        campaign.Job("bad", (), c),
        campaign.Job("waits in vain", (), tmp_path / "d", needs=c),
    ]
    monkeypatch.setattr(campaign, "_POLL", 0.01)
    scripted(
        monkeypatch,
        {
            "a": f"open({str(a)!r}, 'w').write({TEXT!r})",
            "b": f"open({str(a)!r}); open({str(b)!r}, 'w').write({TEXT!r})",
            "bad": "raise SystemExit(3)",
        },
    )
    lines = []
    left, failed = campaign.work(jobs, parallel=2, report=lines.append)
    assert [j.name for j in left] == ["bad", "waits in vain"] and failed == {"bad": 3}
    assert lines[0] == "0 of 4 jobs are done" and "b: done" in lines
    left, _ = campaign.work(jobs[:2], report=lines.append)
    assert left == [] and lines[-1] == "2 of 2 jobs are done"


def test_when_the_time_is_up_jobs_are_asked_to_stop(monkeypatch, tmp_path):
    mark = tmp_path / "asked"
    script = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open({str(mark)!r}, 'w'), sys.exit(75)))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w')\n"
        "time.sleep(60)"
    )
    scripted(monkeypatch, {"long": script})
    start = time.monotonic()
    left, failed = campaign.work(
        [campaign.Job("long", (), tmp_path / "never")], minutes=2 / 60, report=lambda _: None
    )
    assert (tmp_path / "ready").exists() and mark.exists()
    assert time.monotonic() - start < 30 and len(left) == 1 and failed == {}


def test_gpu_md_lists_runs_that_exist():
    text = (Path(__file__).parents[2] / "GPU.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```runs\n(.*?)```", text, re.DOTALL)
    for line in block.split("\n")[:-1]:
        task, preset, *methods = line.split()
        known = get_task(task).preset(preset)
        rows = methods or known.methods
        assert set(rows) <= set(known.methods) and "counted" not in known.expects
        count = f"{len(rows)} tunings, {len(rows) * len(known.seeds)} trainings"
        assert f"| {line} | {count} |" in text


# ---- the command


def test_the_command_trains_tunes_compares_and_evaluates(tiny, tmp_path, capsys):
    common = ["rain", "--preset", "tiny", "--out", str(tmp_path)]
    assert main(["tune", *common, "--method", "plain", "--device", "cpu"]) == 0
    assert main(["train", *common, "--method", "plain", "--device", "cpu"]) == 0
    assert main(["train", *common, "--method", "decay", "--device", "cpu"]) == 0
    assert "not tuned; taking lr 0.001, strength 40" in capsys.readouterr().err
    kept = tmp_path / "artifacts"
    assert main(["compare", *common, "--keep", str(kept)]) == 0
    out = capsys.readouterr().out
    assert "decay" in out and "to plain" in out and "kept ['rain-tiny.json'" in out
    weights = kept / "weights" / "rain" / "decay.safetensors"
    assert main(["evaluate", str(weights), "--device", "cpu"]) == 0
    evaluated = capsys.readouterr().out
    result = json.loads((tmp_path / "rain/tiny/decay/seed-0/result.json").read_text())
    assert f"psnr            {result['metrics']['psnr']:10.4f}" in evaluated
    assert main(["list"]) == 0
    assert "rain: rain removal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "snow"], "unknown task 'snow'"),
        (["train", "rain", "--preset", "huge"], "unknown preset 'huge' of rain"),
        (["train", "rain", "--method", "magic"], "unknown method 'magic'"),
        (["train", "rain", "--device", "quantum"], "--device quantum: "),
        (["train", "rain", "--precision", "8"], "--precision: expected one of 32, bf16-mixed"),
        (["compare", "rain"], "expected finished runs in"),
        (["evaluate", "snow/eqreg"], "found no snow/eqreg.safetensors"),
        (["run", "rain", "--methods", "magic"], r"has no ['magic']"),
        (
            ["train", "rain", "--device", "meta"],
            "--device meta: expected cpu, cuda, cuda:N or auto",
        ),
        (
            ["train", "rain", "--steps", "0"],
            "--steps: expected a whole number from 1 to 1000000000, got 0",
        ),
        (
            ["train", "rain", "--strength", "nan"],
            "--strength: expected a finite number of at least 0, got nan",
        ),
        (["train", "rain", "--strength", "1"], "method 'plain' has no strength, got 1"),
        (["train", "rain", "--lr", "0"], "--lr: expected a finite number above 0, got 0"),
        (["train", "rain", "--lr", "inf"], "--lr: expected a finite number above 0, got inf"),
        (["train", "rain", "--seed", "-1"], "--seed: expected a whole number from 0 to"),
        (
            ["tune", "rain", "--checkpoint-every", "0"],
            "--checkpoint-every: expected a whole number from 1 to",
        ),
        (
            ["train", "rain", "--threads", "0"],
            "--threads: expected a whole number from 1 to 256, got 0",
        ),
        (
            ["run", "rain", "--threads", "100000"],
            "--threads: expected a whole number from 1 to 256, got 100000",
        ),
        (["run", "rain", "--jobs", "0"], "--jobs: expected a whole number from 1 to 1024, got 0"),
        (
            ["run", "rain", "--jobs", "two"],
            "--jobs: expected a whole number from 1 to 1024, got two",
        ),
        (
            ["run", "rain", "--minutes", "nan"],
            "--minutes: expected a finite number above 0, got nan",
        ),
        (["run", "rain", "--minutes", "-1"], "--minutes: expected a finite number above 0, got -1"),
        (["train", "rain", "--magic"], "unrecognized arguments: --magic"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, capsys, arguments, message):
    out = [] if arguments[0] == "evaluate" else ["--out", str(tmp_path)]
    assert main([*arguments, *out]) == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("eqreg: ") and err.count("\n") <= 2
    assert list(tmp_path.iterdir()) == []


def test_a_signal_stops_the_command_and_the_next_call_goes_on(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        Rain, "presets", {"tiny": Preset(**{**TINY.__dict__, "steps": 400, "watch": 200})}
    )
    whole = tmp_path / "whole"
    arguments = ["train", "rain", "--preset", "tiny", "--lr", "1e-3", "--device", "cpu"]
    assert main([*arguments, "--out", str(whole)]) == 0
    before = signal.getsignal(signal.SIGTERM)
    log = Path(tmp_path / "cut/rain/tiny/plain/seed-0/log.jsonl")

    def kill_when_it_runs():
        while not log.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=kill_when_it_runs)
    thread.start()
    assert main([*arguments, "--out", str(tmp_path / "cut")]) == campaign.STOPPED
    thread.join()
    assert "of 400 steps; call again to go on" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before
    assert main([*arguments, "--out", str(tmp_path / "cut")]) == 0
    results = [
        json.loads((base / "rain/tiny/plain/seed-0/result.json").read_text())["metrics"]
        for base in (whole, tmp_path / "cut")
    ]
    assert results[0] == results[1]


def test_event_files_for_tensorboard(tiny, tmp_path):
    arguments = ["train", "rain", "--preset", "tiny", "--out", str(tmp_path), "--device", "cpu"]
    assert main([*arguments, "--tensorboard"]) == 0
    (events,) = (tmp_path / "rain/tiny/plain/seed-0/events").iterdir()
    assert b"val_psnr" in events.read_bytes()
    with pytest.raises(OSError, match=r"could not write .*events: "):
        tensorboard(tmp_path / "rain/tiny/plain/seed-0/result.json/events")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_under_event_files_is_one_line(tmp_path, monkeypatch):
    """The thread of SummaryWriter died of it, which left the run waiting or a traceback at its end."""
    writer = require("tensorboardX.record_writer", extra="scale")
    monkeypatch.setattr(writer, "open_file", lambda path: open("/dev/full", "wb"))
    threads = threading.active_count()
    write = tensorboard(tmp_path / "events")
    assert threading.active_count() == threads
    with pytest.raises(OSError, match=r"could not write .*events: No space left on device"):
        write(1, {"val_psnr": 30.0})


def test_a_folder_that_cannot_be_written(tiny, tmp_path):
    (tmp_path / "rain").write_text("in the way")
    with pytest.raises((CheckpointError, OSError), match="rain"):
        train(run(), tmp_path)


def test_threads_are_set_for_bitwise_results(tiny, tmp_path):
    before = torch.get_num_threads()
    try:
        main(
            [
                "train",
                "rain",
                "--preset",
                "tiny",
                "--out",
                str(tmp_path),
                "--threads",
                "1",
                "--device",
                "cpu",
            ]
        )
        assert torch.get_num_threads() == 1
        result = json.loads((tmp_path / "rain/tiny/plain/seed-0/result.json").read_text())
        assert result["stamp"]["device"].startswith("CPU, 1 thread, ")
    finally:
        torch.set_num_threads(before)
