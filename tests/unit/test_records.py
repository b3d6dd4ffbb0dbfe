"""What runs leave behind: files that are something else are named, whoever reads them."""

import copy
import dataclasses
import errno
import json
import math
import os
import shutil
from pathlib import Path

import pytest
import torch

from eqreg import files
from eqreg.experiments import artifacts, campaign, comparison
from eqreg.experiments.cli import main
from eqreg.experiments.records import Log, is_done
from eqreg.experiments.runs import Run, train
from eqreg.experiments.tuning import tune
from eqreg.tasks import Preset
from eqreg.tasks.rain import Rain
from eqreg.training.checkpoint import CheckpointError, load_weights, save_weights

TINY = Preset(
    steps=2, images=2, methods=("plain", "decay"), seeds=(0,), rates=(1e-3, 2e-3), tuning_steps=1,
    expects="", sizes={"patches": 1, "patch": 20, "crop": 8, "size": 24, "spread": 20.0, "width": 4, "depth": 2},
)  # fmt: skip
COMMON = ["rain", "--preset", "tiny", "--device", "cpu"]
WRONG = ["null", "[]", "{}", "7", "{", "", '{"run": 1}', '{"stamp": null}', "[" * 9999, "\x00\xff"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})


def one_line(capsys, status, *words):
    err = capsys.readouterr().err.removeprefix("eqreg: not tuned; taking lr 0.001, strength 0\n")
    assert status == 2 and err.startswith("eqreg: ") and err.count("\n") == 1, err
    assert all(str(word) in err for word in words), err


@pytest.mark.parametrize("content", WRONG)
@pytest.mark.parametrize("name", ["seed-0/result.json", "tuning.json"])
def test_files_of_another_form_are_one_line(tmp_path, capsys, content, name):
    path = tmp_path / "rain" / "tiny" / "plain" / name
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="latin-1")
    arguments = [*COMMON, "--out", str(tmp_path)]
    one_line(capsys, main(["train", *arguments]), path, "expected the result of a ")
    assert not is_done(path)
    if "seed" in name:
        status = main(["compare", "rain", "--preset", "tiny", "--out", str(tmp_path)])
        one_line(capsys, status, path, "expected the result of a run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Two runs of a row and its tuning."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Rain, "presets", {**Rain.presets, "tiny": dataclasses.replace(TINY, seeds=(0, 1))}
        )
        root = tmp_path_factory.mktemp("finished")
        row = root / "rain" / "tiny" / "plain"
        result = train(Run("rain", "tiny", "plain", 0, 1e-3), root)
    result["run"]["seed"] = 1
    (row / "seed-1").mkdir()
    (row / "seed-1" / "result.json").write_text(json.dumps(result))
    tuning = {
        "lr": 1e-3, "strength": 0.0, "score": 20.0, "edge": {"lr": False, "strength": False}, "dead": 0, "hours": 0.1,
        "tried": [{"lr": 1e-3, "strength": 0.0, "score": 20.0, "share": 0.0, "dead": 0}],
        "stamp": {key: result["stamp"][key] for key in ("device", "date", "version")},
    }  # fmt: skip
    (row / "tuning.json").write_text(json.dumps(tuning))
    return root


def parts(value, path=()):
    """The places inside a JSON value; of a list, of its first entry."""
    yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value[:1])
        if isinstance(value, list)
        else ()
    )
    for key, v in inner:
        yield from parts(v, (*path, key))


def damaged(value, path, new):
    value = copy.deepcopy(value)
    at = value
    for key in path[:-1]:
        at = at[key]
    if new is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = new
    return value


@pytest.mark.parametrize("name", ["seed-0/result.json", "tuning.json"])
def test_any_part_of_a_record_that_is_something_else_is_one_line(
    finished, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.setattr(
        Rain, "presets", {**Rain.presets, "tiny": dataclasses.replace(TINY, seeds=(0, 1))}
    )
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    row = tmp_path / "rain" / "tiny" / "plain"
    for seed in (0, 1):  # two metrics say as much as eleven
        content = json.loads((row / f"seed-{seed}" / "result.json").read_text())
        for key in ("metrics", "per_image"):
            content[key] = {k: content[key][k] for k in ("psnr", "ssim")}
        (row / f"seed-{seed}" / "result.json").write_text(json.dumps(content))
    good = json.loads((row / name).read_text())
    for at in list(parts(good))[1:]:
        for new in (None, [], "x", math.nan, 10**400, ...):
            (row / name).write_text(json.dumps(damaged(good, at, new)))
            status = main(["compare", "rain", "--preset", "tiny", "--out", str(tmp_path)])
            err = capsys.readouterr().err
            # One that does not fit the seed beside it may be told of that one.
            named = str(row / name) in err or ("seed-1/" in err and "seed 0 lies beside it" in err)
            assert not status or (status < 3 and err.count("\n") == 1 and named), (at, new, err)


@pytest.mark.parametrize(
    "key, value", [("method", "decay"), ("seed", 7), ("preset", "cpu"), ("task", "mar")]
)
def test_a_result_in_the_folder_of_another_run_is_not_compared(
    finished, tmp_path, capsys, monkeypatch, key, value
):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "rain" / "tiny" / "plain" / "seed-0" / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(damaged(content, ("run", key), value)))
    status = main(["compare", "rain", "--preset", "tiny", "--out", str(tmp_path)])
    one_line(
        capsys, status, path, f"expected a run with {key} {content['run'][key]!r}, got {value!r}"
    )


@pytest.mark.parametrize("key, value", [("lr", 0.5), ("steps", 7), ("sizes", {})])
def test_seeds_of_different_settings_are_no_row(
    finished, tmp_path, capsys, monkeypatch, key, value
):
    monkeypatch.setattr(
        Rain, "presets", {**Rain.presets, "tiny": dataclasses.replace(TINY, seeds=(0, 1))}
    )
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "rain" / "tiny" / "plain" / "seed-1" / "result.json"
    path.write_text(json.dumps(damaged(json.loads(path.read_text()), ("run", key), value)))
    status = main(["compare", "rain", "--preset", "tiny", "--out", str(tmp_path)])
    one_line(capsys, status, path, f"expected a run with {key} ", "seed 0 lies beside it")


def test_a_published_run_that_is_damaged_is_named(finished, tmp_path, capsys):
    path = tmp_path / "runs" / "rain" / "tiny" / "plain" / "seed-0.json"
    path.parent.mkdir(parents=True)
    path.write_text("null")
    arguments = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    one_line(capsys, main(["run", *COMMON, *arguments]), path, "expected the result of a run")


def test_what_is_finished_is_published_as_jobs_end(finished, tmp_path, monkeypatch):
    """Not when all are done: a machine can be lost before."""
    shutil.copytree(finished, tmp_path / "out")

    def work(jobs, *, report, **how):
        report("plain, seed 0: done")
        raise KeyboardInterrupt

    monkeypatch.setattr(campaign, "work", work)
    arguments = ["--out", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]
    assert main(["run", *COMMON, *arguments]) != 0
    assert (tmp_path / "runs" / "rain" / "tiny" / "plain" / "seed-0.json").is_file()


def test_a_tuning_that_chose_no_number(tmp_path, capsys):
    path = tmp_path / "rain" / "tiny" / "plain" / "tuning.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"lr": NaN, "strength": 0, "tried": [], "hours": 0}')
    status = main(["train", *COMMON, "--out", str(tmp_path)])
    one_line(capsys, status, path, "expected a finite lr and strength, got nan and 0")


@pytest.mark.parametrize(
    "about",
    [{}, {"run": []}, {"run": None, "stamp": 3}, {"run": {"task": []}}, {"run": {"sizes": 3}},
     {"run": {"task": "rain", "preset": "tiny", "method": "plain", "seed": 0, "lr": 1e-3, "sizes": {}}},
     {"run": {"task": "rain", "preset": "tiny", "method": "plain", "seed": "0", "lr": 1e-3}}],
)  # fmt: skip
def test_weights_whose_header_says_something_else(tmp_path, capsys, about):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"w": torch.ones(2)}, about)
    one_line(capsys, main(["evaluate", str(path)]), path, "was written by None and does not fit")


@pytest.mark.parametrize("content", WRONG)
def test_artifacts_of_another_form_are_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(artifacts, "_PLACES", (tmp_path,))
    (tmp_path / "a.json").write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"a\.json: expected load_artifact: stored results"):
        artifacts.load_artifact("a")


def test_what_was_found_is_shown(tmp_path):
    (tmp_path / "a").write_text(json.dumps({"n": list(range(99))}))
    with pytest.raises(
        ValueError, match=r"a: expected a thing with int or float 'n', got \[0, 1, .*\.\.\.$"
    ):
        files.read_json(tmp_path / "a", "a thing", {"n": (int, float)})


@pytest.mark.parametrize("command", ["train", "tune", "run"])
def test_a_file_in_the_place_of_the_folder(tmp_path, capsys, command):
    (tmp_path / "out").write_text("")
    status = main([command, *COMMON, "--out", str(tmp_path / "out")])
    if command != "run":  # whose children say it
        one_line(capsys, status, tmp_path / "out", "expected a folder to write in")
    else:
        assert status == 1


def test_a_folder_that_is_read_only(tmp_path, capsys, monkeypatch):
    def refuse(*args, **more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    status = main(["train", *COMMON, "--out", str(tmp_path / "out")])
    one_line(capsys, status, tmp_path / "out", "expected a folder to write in: Permission denied")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    log = Log(Path("/dev/full"))
    with pytest.raises(OSError, match="could not write /dev/full: No space left on device"):
        log.write(1, {"a": 1.0})

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    status = main(["train", *COMMON, "--out", str(tmp_path)])
    one_line(capsys, status, "checkpoint.safetensors", "No space left on device")


# ---- results that are not finite


def test_a_result_that_is_not_finite_is_not_done(tmp_path, capsys, monkeypatch):
    """The loss of the last step is still finite, and so are the weights that its update makes."""
    run = Run("rain", "tiny", "plain", 0, 1e30, steps=1)
    with pytest.raises(FloatingPointError, match="the metrics became|NaN or Inf in the features"):
        train(run, tmp_path)
    assert not (run.folder(tmp_path) / "result.json").exists()
    assert main(["train", *COMMON, "--lr", "1e30", "--steps", "1", "--out", str(tmp_path)]) == 1
    # One that an earlier version stored:
    good = train(Run("rain", "tiny", "plain", 0, 1e-3), tmp_path / "b")
    path = run.folder(tmp_path / "b") / "result.json"
    path.write_text(json.dumps({**good, "metrics": {"psnr": math.nan}}))
    assert not is_done(path)
    for read in (
        lambda: train(Run("rain", "tiny", "plain", 0, 1e-3), tmp_path / "b"),
        lambda: comparison.collect(tmp_path / "b", "rain", "tiny"),
    ):
        with pytest.raises(
            FloatingPointError, match="result.json: expected finite metrics, got psnr nan"
        ):
            read()


def test_tuning_never_prefers_nan(tmp_path, monkeypatch):
    """NaN is neither larger nor smaller: ``max`` keeps it if it comes first."""
    monkeypatch.setattr(
        Rain, "presets", {"tiny": Preset(**{**TINY.__dict__, "rates": (1e30, 1e-3)})}
    )
    found = tune("rain", "tiny", "plain", tmp_path)
    assert found["lr"] == 1e-3
    assert [t["dead"] for t in found["tried"] if t["lr"] == 1e30] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "expected steps at least 1, or None, got 0"),
        ({"lr": math.nan}, "expected lr positive and finite, got nan"),
        ({"strength": math.nan}, "expected strength at least 0 and finite, got nan"),
        ({"strength": -1.0}, "expected strength at least 0 and finite, got -1.0"),
        ({"seed": -1}, "expected seed at least 0, got -1"),
        ({"strength": 1.0}, "method 'plain' has no strength, got 1"),
    ],
)
def test_runs_that_cannot_be(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        train(
            Run(
                **{
                    "task": "rain",
                    "preset": "tiny",
                    "method": "plain",
                    "seed": 0,
                    "lr": 1e-3,
                    **change,
                }
            ),
            tmp_path,
        )
    assert not list(tmp_path.iterdir())


# ---- the log, and what is kept


def test_a_cut_line_swallows_no_other(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write(1, {"a": 1.0})
    log.path.write_bytes(log.path.read_bytes() + b'{"step": 2, "a"')
    log.write(3, {"a": 3.0})
    assert list(log.read()) == [1, 3]
    log.path.write_bytes(b'null\n[]\n{}\n{"step": null}\n\xff\n' + log.path.read_bytes())
    assert list(log.read()) == [1, 3]


@pytest.mark.parametrize("damage", ["cut", "other", "none"])
def test_keep_stores_only_whole_networks_of_these_runs(tmp_path, damage):
    for method, strength in (("plain", 0.0), ("decay", 1.0)):
        train(Run("rain", "tiny", method, 0, 1e-3, strength), tmp_path)
    content = comparison.collect(tmp_path, "rain", "tiny")
    path = tmp_path / "rain" / "tiny" / "decay" / "seed-0" / "weights.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "other":
        tensors, about = load_weights(path)
        save_weights(path, tensors, {**about, "run": {**about["run"], "strength": 2.0}})
    else:
        path.unlink()
    with pytest.raises((CheckpointError, FileNotFoundError), match="weights.safetensors"):
        artifacts.keep(content, tmp_path, tmp_path / "artifacts")
    assert not (tmp_path / "artifacts").exists()


def test_equal_networks_are_equal_files(tmp_path):
    paths = []
    for name in "ab":
        run = Run("rain", "tiny", "plain", 0, 1e-3)
        train(run, tmp_path / name)
        paths.append(run.folder(tmp_path / name) / "weights.safetensors")
    a, b = map(load_weights, paths)
    assert all(torch.equal(a[0][k], b[0][k]) for k in a[0])
    for path, (tensors, _) in zip(paths, (a, b), strict=True):
        save_weights(path, tensors, {})  # without the hours, which differ
    assert paths[0].read_bytes() == paths[1].read_bytes()
