"""``eqreg ct repair|score|train`` on folders that are damaged, foreign or half written: one line, and exit 2."""

import json
import shutil

import numpy as np
import pytest
import torch

from eqreg.data.metal import make as making
from eqreg.data.metal.protocol import Metal, Recipe
from eqreg.experiments.cli import main
from eqreg.experiments.pretrained import _PLACES
from eqreg.extras import require
from eqreg.physics.ct import small_fan

RECIPE = Recipe(small_fan(48, views=40), metal=Metal(("clips",)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "set"
    plan = making.Plan(("phantoms:3",), test=0.34)
    making.make(plan, root, RECIPE, report=lambda line: None, progress=False)
    return root


@pytest.fixture
def data(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "set")
    return tmp_path / "set"


def manifest(root, change):
    path = root / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def of_test(root):
    """The h5 file of the only test case."""
    cases = json.loads((root / "manifest.json").read_text())["cases"]
    (path,) = (root / c["file"] for c in cases if c["split"] == "test")
    return path


def h5(root, change):
    path = of_test(root)
    with require("h5py", extra="tasks").File(path, "r+") as file:
        change(file)


def replaced(file, name, value):
    del file[name]
    file[name] = value


def each(key, value):
    def change(content):
        for case in content["cases"]:
            case[key] = value

    return change


DAMAGE = {
    "half a manifest": (
        lambda d: (d / "manifest.json").write_text('{"format": "eqreg ct data set 1", "cases": [{'),
        "manifest.json: could not be read",
    ),
    "a manifest of something else": (
        lambda d: (d / "manifest.json").write_text("[]"),
        "expected the format 'eqreg ct data set 1', found None",
    ),
    "no cases": (
        lambda d: manifest(d, lambda c: c.pop("cases")),
        "expected a list of cases, found NoneType",
    ),
    "a case that is a number": (
        lambda d: manifest(d, lambda c: c["cases"].append(3)),
        "expected split (str) of case 3, found None",
    ),
    "a case without its file": (
        lambda d: manifest(d, lambda c: c["cases"][0].pop("file")),
        "expected file (str) of case 0, found None",
    ),
    "a case outside": (
        lambda d: manifest(d, each("file", "../secret.h5")),
        "expected file of case 0 inside the folder, found '../secret.h5'",
    ),
    "a case at the root": (
        lambda d: manifest(d, each("clean", "/etc/gt.h5")),
        "expected clean of case 0 inside the folder, found '/etc/gt.h5'",
    ),
    "a lost file": (lambda d: of_test(d).unlink(), "expected a file of the data set, found none"),
    "a file cut short": (
        lambda d: of_test(d).write_bytes(of_test(d).read_bytes()[:200]),
        ".h5: could not be read",
    ),
    "a foreign file": (
        lambda d: h5(d, lambda f: f.__delitem__("ma_CT")),
        ".h5: expected ma_CT, found LI_CT",
    ),
    "words": (
        lambda d: h5(d, lambda f: replaced(f, "ma_CT", np.full((48, 48), b"x"))),
        "expected numbers in ma_CT, found |S1",
    ),
    "NaN": (
        lambda d: h5(d, lambda f: f["ma_CT"].__setitem__((3, 4), np.nan)),
        "expected ma_CT of shape (48, 48), (H, W) or (views, bins), without NaN or Inf; found (48, 48), 1 of",
    ),
    "another size": (
        lambda d: h5(d, lambda f: replaced(f, "ma_CT", np.zeros((20, 30), np.float32))),
        "found (20, 30)",
    ),
    "another sinogram": (
        lambda d: h5(d, lambda f: replaced(f, "ma_sinogram", np.zeros((20, 30), np.float32))),
        "expected ma_sinogram of shape (40, 75)",
    ),
    "no masks": (lambda d: (d / "testmask.npy").unlink(), "expected mask, found"),
    "too few masks": (
        lambda d: np.save(d / "testmask.npy", np.zeros((48, 48, 0), np.uint8)),
        "expected mask 0, found 0 masks",
    ),
    "no protocol": (
        lambda d: (d / "protocol.yaml").unlink(),
        "expected the data set's protocol, found no",
    ),
    "another protocol": (
        lambda d: (d / "protocol.yaml").write_text("geometry: {views: 40}"),
        "protocol.yaml: expected the protocol that made the data set, found another one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_folder_is_one_line(data, capsys, kind):
    damage, message = DAMAGE[kind]
    damage(data)
    for command in (["repair", str(data), "--with", "nmar"], ["score", str(data)]):
        assert main(["ct", *command]) == 2
        error = capsys.readouterr().err
        assert message in error and str(data) in error, error
        assert error.count("\n") == 1 and error.startswith("eqreg: ")
    assert not (data / "score.json").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: shutil.rmtree(d), "expected a data set of `eqreg ct simulate`, found no"),
        (DAMAGE["no cases"][0], DAMAGE["no cases"][1]),
        (lambda d: (d / "trainmask.npy").write_bytes(b"x"), "trainmask.npy: could not be read"),
        (
            lambda d: manifest(d, lambda c: [r.update(split="test") for r in c["cases"]]),
            "expected training cases, found none",
        ),
    ],
)
def test_training_on_what_is_no_data_set(data, capsys, damage, message):
    damage(data)
    out = data.parent / "w.safetensors"
    assert main(["ct", "train", str(data), "--out", str(out), "--preset", "quick"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps: expected a whole number from 1 to"),
        (["--lr", "nan"], "--lr: expected a finite number above 0, got nan"),
        (["--seed", str(2**70)], "--seed: expected a whole number from 0 to 9223372036854775807"),
        (["--preset", "none"], "none"),
    ],
)
def test_training_says_what_it_expects(sound, tmp_path, capsys, arguments, message):
    out = tmp_path / "w.safetensors"
    assert main(["ct", "train", str(sound), "--out", str(out), *arguments]) == 2
    assert message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preview", "--jobs", "0"], "--jobs: expected a whole number from 1 to"),
        (["--spacing", "-3"], "--spacing: expected a finite number above 0, got -3"),
        (["--spacing", "0.0008"], "--spacing: expected 0.05 to 6 mm, got 0.0008"),
        (["--seed", str(2**70)], "--seed: expected a whole number from 0 to 9223372036854775807"),
        (["--offset", "-1"], "--offset: expected a whole number from 0 to 65535, got -1"),
        (["--per-slice", "0"], "--per-slice: expected a whole number from 1 to 10000, got 0"),
    ],
)
def test_numbers_are_refused_even_where_nothing_needs_them(tmp_path, capsys, arguments, message):
    assert main(["ct", "simulate", "phantoms:1", "--out", str(tmp_path / "d"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "d").exists()


def test_a_preview_of_nothing_builds_no_scanner(tmp_path, monkeypatch, capsys):
    np.save(tmp_path / "nan.npy", np.full((64, 64), np.nan, np.float32))
    monkeypatch.setattr(Recipe, "scanner", lambda self: pytest.fail("built"))
    command = ["ct", "simulate", str(tmp_path / "nan.npy"), "--out", str(tmp_path / "d")]
    assert main([*command, "--preview"]) == 2
    error = capsys.readouterr().err
    assert "nan.npy: expected finite CT numbers" in error and not (tmp_path / "d").exists()


def test_weights_of_something_else(sound, tmp_path, capsys):
    rain = next(p for place in _PLACES for p in place.glob("rain/*.safetensors"))
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(bytes(range(256)) * 4)
    for weights, message in (
        (rain, "expected weights of the task mar, found rain"),
        (noise, "noise.safetensors"),
        (tmp_path / "nowhere.safetensors", "nowhere.safetensors"),
        ("mar/none", "mar/none.safetensors"),
    ):
        assert main(["ct", "repair", str(sound), "--with", str(weights)]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["ct", "repair", str(sound), "--with", "li", "--split", "val"]) == 2
    assert "expected cases of the split 'val', found test, train" in capsys.readouterr().err


def test_images_of_other_weights_are_made_anew(data, tmp_path, capsys):
    """A network trained again under its old name must not be scored by its old images."""
    weights = tmp_path / "net.safetensors"
    train = ["ct", "train", str(data), "--out", str(weights), "--preset", "quick", "--steps", "1"]
    repaired = data / "repaired" / "net"

    def image():
        assert main(["ct", "repair", str(data), "--with", str(weights)]) == 0
        (path,) = repaired.rglob("*.npy")
        return path.stat().st_mtime_ns, np.load(path)

    assert main(train) == 0
    time, first = image()
    assert image()[0] == time, "the same weights: nothing is done again"
    assert main([*train, "--seed", "1"]) == 0
    again, second = image()
    assert again != time and not np.array_equal(first, second)
    (repaired / "made_by.txt").unlink()
    assert main(["ct", "repair", str(data), "--with", str(weights)]) == 2
    assert "net holds something that `eqreg ct repair` did not make" in capsys.readouterr().err
    assert list(repaired.rglob("*.npy"))
    weights.rename(tmp_path / "nmar.safetensors")
    assert main(["ct", "repair", str(data), "--with", str(tmp_path / "nmar.safetensors")]) == 2
    assert "nmar is a method of its own; rename the file" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["size", "nan", "cut"])
def test_repaired_images_that_are_none(data, capsys, wrong):
    assert main(["ct", "repair", str(data), "--with", "nmar"]) == 0
    path = next((data / "repaired" / "nmar").rglob("*.npy"))
    image = np.load(path)
    if wrong == "cut":
        path.write_bytes(path.read_bytes()[:40])
    else:
        np.save(path, image[:5] if wrong == "size" else image * np.nan)
    capsys.readouterr()
    assert main(["ct", "score", str(data)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1


def test_the_readers_refuse_numbers_that_torch_would_wrap():
    with pytest.raises(ValueError, match="--seed: expected a number of 64 bits, got 1180"):
        making.Plan(("phantoms:1",), seed=2**70)
    assert torch.Generator().manual_seed(making.Plan(("phantoms:1",), seed=2**64 - 1).seed)
