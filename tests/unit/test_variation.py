"""One preset at several values of one of its numbers: runs, tuning, tables, and what is kept."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eqreg.experiments import artifacts, campaign, comparison, variation
from eqreg.experiments.cli import main
from eqreg.experiments.pretrained import load_pretrained
from eqreg.experiments.runs import Run, Stopped, train
from eqreg.experiments.tuning import tune
from eqreg.tasks import Preset, get_task
from eqreg.tasks.mar import Mar, _cases
from eqreg.tasks.rain import Rain
from eqreg.training.checkpoint import load_weights, save_weights

ROOT = Path(__file__).resolve().parents[2]
TINY = Preset(
    steps=6, images=4, methods=("plain", "eqreg"), seeds=(0, 1), rates=(1e-3, 4e-3),
    tuning_steps=3, tuning_seeds=(100,), watch=3, expects="a second",
    sizes={"patches": 2, "patch": 32, "crop": 16, "size": 24, "spread": 20.0, "width": 4, "depth": 3},
)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})


def test_a_varied_preset_is_the_preset_but_for_one_number(tiny):
    task = get_task("rain")
    assert task.preset("tiny,patches=16").sizes == {**TINY.sizes, "patches": 16}
    assert task.preset("tiny,patches=16,spread=90").sizes == {
        **TINY.sizes, "patches": 16, "spread": 90.0,
    }  # fmt: skip
    assert task.preset("tiny,rate=2e-3").rates == (2e-3,)
    assert task.preset("tiny").sizes == TINY.sizes and not task.preset("tiny").study
    assert task.preset("tiny,patches=16").study


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tiny,colour=3",
            "cannot vary 'colour'; expected one of patches, patch, crop, size, spread",
        ),
        ("tiny,patches=many", "patches=many: expected a value like 2 (int)"),
        ("tiny,patches", "patches=: expected a value like 2 (int)"),
        ("tiny,patches=4.5", "patches=4.5: expected a value like 2 (int)"),
        ("huge,patches=4", "unknown preset 'huge' of rain"),
    ],
)
def test_what_cannot_be_varied_is_said(tiny, name, message):
    with pytest.raises(ValueError) as error:
        get_task("rain").preset(name)
    assert message in str(error.value)


@pytest.mark.parametrize("vary", ["patches", "=4", "patches=", "patches=4,,5", "patches=4,4"])
def test_a_list_of_values_has_one_form(vary):
    with pytest.raises(ValueError, match="expected AXIS=VALUE,VALUE"):
        variation.presets("cpu", vary)


def test_the_configuration_of_a_run_names_the_value(tiny, tmp_path):
    made = [Run("rain", name, "plain", 0, 1e-3) for name in ("tiny", "tiny,patches=4")]
    assert made[1].folder(tmp_path) == tmp_path / "rain" / "tiny,patches=4" / "plain" / "seed-0"
    first, second = (run.configuration() for run in made)
    assert second["sizes"]["patches"] == 4 and first["hash"] != second["hash"]


def test_the_spread_of_rain_reaches_training_and_evaluation(tiny):
    task, x = get_task("rain"), []
    for spread in ("20", "180"):
        preset = task.preset(f"tiny,spread={spread}")
        sample = task.batches(preset, 0, 2, None, torch.device("cpu"))
        x.append(sample(torch.Generator().manual_seed(0)))
    assert torch.equal(x[0][1], x[1][1]) and not torch.equal(x[0][0], x[1][0])
    model = torch.nn.Identity()
    model.register_parameter("p", torch.nn.Parameter(torch.zeros(1)))
    seen = [
        task.evaluate(model, task.preset(f"tiny,spread={s}"), "test", None)["psnr_input"]
        for s in ("20", "180")
    ]
    assert seen[0] != seen[1]


def test_a_varied_rate_is_the_only_one_that_tuning_tries(tiny, tmp_path):
    found = tune("rain", "tiny,rate=2e-3", "plain", tmp_path)
    assert found["lr"] == 2e-3 and [t["lr"] for t in found["tried"]] == [2e-3]


class Here:
    """In place of a process of its own, which would import torch anew."""

    def __init__(self, job):
        self.status = main(list(job.arguments))

    def poll(self):
        return self.status


def test_a_varied_strength_is_that_of_every_method_that_has_one(tiny, tmp_path):
    found = tune("rain", "tiny,rate=2e-3,strength=5", "decay", tmp_path)
    assert [(t["lr"], t["strength"]) for t in found["tried"]] == [(2e-3, 5.0)]
    found = tune("rain", "tiny,rate=2e-3,strength=5", "plain", tmp_path)
    assert found["strength"] == 0


def test_a_study_is_stopped_called_again_compared_and_kept(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(campaign, "_start", Here)
    monkeypatch.setattr(campaign, "_POLL", 0)
    whole, cut, kept = (tmp_path / name for name in ("whole", "cut", "kept"))
    words = ["rain", "--preset", "tiny", "--vary", "patches=2,4"]
    all_of_it = ["run", *words, "--methods", "plain", "--device", "cpu", "--out"]
    assert main([*all_of_it, str(whole)]) == 0

    found, steps = tune("rain", "tiny,patches=4", "plain", cut), []
    run = Run("rain", "tiny,patches=4", "plain", 0, found["lr"], found["strength"])
    with pytest.raises(Stopped, match="stopped after 3 of 6 steps"):
        train(run, cut, stop=lambda: steps.append(0) or len(steps) == 3)
    assert main([*all_of_it, str(cut)]) == 0
    results = sorted(p.relative_to(whole) for p in whole.rglob("seed-[01]/result.json"))
    assert [p.parts[1] for p in results] == ["tiny,patches=2"] * 2 + ["tiny,patches=4"] * 2
    for path in results:
        first, again = (
            load_weights(f / path.with_name("weights.safetensors")) for f in (whole, cut)
        )
        assert all(torch.equal(t, again[0][name]) for name, t in first[0].items())
    capsys.readouterr()

    assert main(["compare", *words, "--out", str(cut), "--keep", str(kept)]) == 0
    out = capsys.readouterr().out
    assert out.index("patches = 2\nmethod") < out.index("patches = 4\nmethod")
    assert "kept ['rain-tiny-patches.json']" in out and len(list(kept.iterdir())) == 1
    monkeypatch.setattr(artifacts, "_PLACES", (kept,))
    content = artifacts.load_artifact("rain-tiny-patches")
    assert content["settings"] == {"task": "rain", "preset": "tiny", "axis": "patches"}
    assert content["stamp"]["seeds"] == [0, 1]
    for value, table in content["values"].items():
        assert table == comparison.collect(cut, "rain", f"tiny,patches={value}")
        assert table["settings"]["sizes"]["patches"] == int(value)
    model = load_pretrained(run.folder(cut) / "weights.safetensors")
    assert vars(model)["about"]["run"]["sizes"]["patches"] == 4


def test_values_without_runs_are_left_out(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="expected finished runs in .*patches=2"):
        variation.collect(tmp_path, "rain", "tiny", "patches=2,4")
    train(Run("rain", "tiny,patches=4", "plain", 1, 1e-3), tmp_path)
    assert list(variation.collect(tmp_path, "rain", "tiny", "patches=2,4")["values"]) == ["4"]


def test_weights_from_before_an_axis_was_there_are_still_evaluated(tiny, tmp_path):
    """Stored weights know the sizes of their day; what they do not name is the preset's."""
    run = Run("rain", "tiny", "plain", 0, 1e-3)
    before = {k: v for k, v in TINY.sizes.items() if k != "spread"}
    train(run, tmp_path)
    weights = run.folder(tmp_path) / "weights.safetensors"
    tensors, about = load_weights(weights)
    about["run"]["sizes"] = before
    save_weights(tmp_path / "old.safetensors", tensors, about)
    assert main(["evaluate", str(tmp_path / "old.safetensors"), "--device", "cpu"]) == 0


# ---- the studies of this repository


def test_few_shots_of_metal_are_run_compared_and_kept(tmp_path, monkeypatch, capsys):
    """``eqreg run mar --preset claim --vary slices=...``, on patients that are drawn, small and few."""
    small = {**Mar.presets["quick"].sizes, "size": 48, "slices": 2, "crop": 16}
    few = replace(Mar.presets["claim"], steps=2, tuning_steps=1, seeds=(0,), tuning_seeds=(100,), watch=1,
                  rates=(1e-3,), sizes=small)  # fmt: skip
    monkeypatch.setattr(Mar, "presets", {**Mar.presets, "claim": few})
    monkeypatch.setattr(campaign, "_start", Here)
    monkeypatch.setattr(campaign, "_POLL", 0)
    monkeypatch.setenv("EQREG_CACHE", str(tmp_path / "cache"))
    words = ["mar", "--preset", "claim", "--vary", "slices=1,2"]
    out = ["--out", str(tmp_path / "runs")]
    assert main(["run", *words, "--methods", "plain", "eqreg", "--device", "cpu", *out]) == 0
    assert main(["compare", *words, *out, "--keep", str(tmp_path / "kept")]) == 0
    assert "kept ['mar-claim-slices.json']" in capsys.readouterr().out
    monkeypatch.setattr(artifacts, "_PLACES", (tmp_path / "kept",))
    values = artifacts.load_artifact("mar-claim-slices")["values"]
    assert list(values) == ["1", "2"]
    for value, table in values.items():
        assert set(table["rows"]) == {"plain", "eqreg"}
        preset = get_task("mar").preset(f"claim,slices={value}")
        assert len(_cases("train", preset, None).gt) == int(value) * small["implants"]


def test_the_curve_of_few_shots_of_metal():
    preset = get_task("mar").preset("claim,slices=4")
    assert {"plain", "augmentation", "strict-equal", "eqreg"} <= set(preset.methods)
    pairs = [n * preset.sizes["implants"] for n in (4, 8, 16, 32)]
    assert pairs == [16, 32, 64, 128] and preset.study and preset.sizes["data"] == "ct100"


def test_the_lines_of_make_artifacts_name_presets_that_exist():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = re.findall(r"study (\w+) --preset (\S+?)(?: --vary ([^\s;]+))?;? ?(?:\\|done|\n)", text)
    assert len(lines) == text.count("study ") == 17
    for task, preset, vary in lines:
        for name in variation.presets(preset.replace("$$case", "spread=90"), vary or None).values():
            assert get_task(task).preset(name).study, name


def test_every_stored_table_says_what_wrote_it():
    about = (ROOT / "artifacts" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "artifacts").glob("*.json"):
        settings = json.loads(path.read_text(encoding="utf-8")).get("settings", {})
        assert path.name in about or {"task", "preset"} <= set(settings), path.name
