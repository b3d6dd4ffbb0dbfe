"""``eqreg ct``: data sets with metal from slices of one's own, from files to the score."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from eqreg.data.metal import make as making
from eqreg.data.metal.field import body_mask, on_field
from eqreg.data.metal.judge import classical, repair, score
from eqreg.data.metal.layout import read_case
from eqreg.data.metal.manifest import cases, read_manifest, read_split_masks
from eqreg.data.metal.place import SITES, check_masks, labels, place
from eqreg.data.metal.protocol import Metal, Recipe, read_recipe
from eqreg.data.metal.sheet import Tiles, sheet
from eqreg.data.phantoms import REGIONS, phantom
from eqreg.data.syndeeplesion import SynDeepLesion
from eqreg.experiments.artifacts import load_artifact
from eqreg.experiments.cli import main
from eqreg.extras import require
from eqreg.physics.ct import ParallelBeam, Protocol, hu_to_mu, mar_psnr, small_fan

SMALL = Recipe(small_fan(96, views=80), metal=Metal(per_slice=2))
PLAN = making.Plan(("pydicom", "phantoms:3"), test=0.4)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def quiet(line):
    """Report nothing."""


def content(root):
    """Every file of a data set but what is made of it."""
    return {
        p.relative_to(root).as_posix(): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and not p.relative_to(root).as_posix().startswith(("repaired", "score"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small data set in the published layout."""
    root = tmp_path_factory.mktemp("set") / "data"
    making.make(PLAN, root, SMALL, report=quiet, progress=False)
    return root


@pytest.fixture
def protocol(tmp_path):
    path = tmp_path / "protocol.yaml"
    path.write_text(SMALL.to_yaml())
    return path


# ---- the field


def test_slices_lie_on_the_field_by_their_spacing():
    hu = torch.full((100, 60), -1000.0)
    hu[40:60, 20:40] = 50.0
    # 20 x 20 pixels of 2 x 1 mm are 40 x 20 mm: 20 x 10 pixels of 2 mm.
    image, told = on_field(hu, (2.0, 1.0), 120, 240.0)
    rows, columns = ((image > -475).any(d).nonzero() for d in (1, 0))
    assert (len(rows), len(columns)) == (20, 10) and not told
    assert abs(float(rows.float().mean()) - 59.5) <= 0.5
    _, told = on_field(hu, (2.0, 1.0), 480, 240.0)
    assert told == ["enlarged 4 times: finer than the slice was measured"]
    _, told = on_field(hu, None, 50, 240.0)
    assert "does not say how large its pixels are" in told[0] and len(told) == 1
    cut, told = on_field(hu, (2.0, 1.0), 10, 20.0)
    assert cut.shape == (10, 10) and "reaches beyond the field of 20 mm" in told[0]
    whole, told = on_field(hu, (2.0, 1.0), 100, None)
    assert whole.shape == (100, 100) and not told
    with pytest.raises(
        ValueError, match=r"pixels of 0.05 to 6 mm, got 0.0008 x 0.0008; .* in mm\?"
    ):
        on_field(hu, (0.0008, 0.0008), 100, 240.0)
    with pytest.raises(ValueError, match="expected a body, got nothing but air"):
        on_field(torch.full((8, 8), -1000.0), (1.0, 1.0), 8, 8.0)


def test_the_body_is_found_without_the_table():
    hu = torch.full((100, 100), -1000.0)
    hu[30:60, 20:80] = 40.0
    hu[40:50, 40:60] = -900.0  # a lung
    hu[70:73, 5:95] = 300.0  # the table
    body = torch.zeros(100, 100, dtype=torch.bool)
    body[30:60, 20:80] = True
    found = body_mask(hu)
    assert (found ^ body).sum() < 20 and not found[65:].any() and found[45, 50]
    assert not body_mask(torch.full((20, 20), -1000.0)).any()


# ---- implants


@pytest.mark.parametrize("region", REGIONS)
def test_implants_lie_where_they_are_found(region):
    hu = phantom(region, 208, generator=seeded(1))
    body = body_mask(hu)
    expected = {
        "thorax": {"spine", "clips"}, "abdomen": {"hip", "spine", "clips"},
        "pelvis": {"hip", "spine", "clips"}, "head": {"dental", "clips"},
    }[region]  # fmt: skip
    for kind in SITES:
        implants = place(kind, hu, 400.0, generator=seeded(2))
        assert bool(implants) <= (kind in expected), kind
        if (region, kind) in (("pelvis", "hip"), ("head", "dental")):
            assert implants
        for i in implants:
            assert (i.mask <= body).all() and i.material in SITES[kind].metals
        if len(implants) > 1:
            assert torch.stack([i.mask for i in implants]).sum(0).max() == 1
    again = place("clips", hu, 400.0, generator=seeded(2))
    assert all(
        torch.equal(a.mask, b.mask)
        for a, b in zip(again, place("clips", hu, 400.0, generator=seeded(2)), strict=True)
    )


def test_several_materials_in_one_slice():
    hu = phantom("head", 208, generator=seeded(0))
    seen = set()
    for seed in range(6):
        implants = place("dental", hu, 400.0, materials=("gold", "amalgam"), generator=seeded(seed))
        masks, metal = labels(implants)
        assert torch.equal(torch.stack(list(masks.values())).sum(0), metal.long())
        seen.add(tuple(sorted(masks)))
    assert ("amalgam", "gold") in seen
    only = place("dental", hu, 400.0, materials=("copper",), generator=seeded(0))
    assert {i.material for i in only} == {"copper"}
    with pytest.raises(ValueError, match="among hip, spine, dental, clips, got 'knee'"):
        place("knee", hu, 400.0)


def test_masks_that_are_no_implants_are_refused():
    hu = phantom("pelvis", 96, generator=seeded())
    good = torch.zeros(1, 96, 96, dtype=torch.bool)
    good[0, 40:44, 40:44] = True
    check_masks(good, hu, "m.npy")
    border, large, beside = good.clone(), ~torch.zeros_like(good), torch.zeros_like(good)
    border[0, 0, 3] = True
    large[0, 0], large[0, -1], large[0, :, 0], large[0, :, -1] = False, False, False, False
    beside[0, 2:4, 2:4] = True
    for mask, message in (
        (border, "m.npy: mask 0 touches the border; expected metal inside the field"),
        (large, r"m.npy: mask 0 has 8836 pixels, the body \d+; expected an implant"),
        (beside, "m.npy: mask 0 lies beside the body"),
        (torch.zeros_like(good), "m.npy: mask 0 is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            check_masks(mask, hu, "m.npy")


# ---- the protocol


def test_a_protocol_survives_its_file(tmp_path):
    recipe = Recipe(
        ParallelBeam(64, 70, 91, pixel=0.5), None, scan=Protocol(photons=1e5, electronic=3.0),
        metal=Metal(("hip",), ("Nitinol", "Ti"), 3), materials={"Nitinol": ({"Ni": 0.55, "Ti": 0.45}, 6.45)},
    )  # fmt: skip
    path = tmp_path / "p.yaml"
    for kept in (recipe, Recipe(), SMALL):
        path.write_text(kept.to_yaml())
        assert read_recipe(path) == kept
    assert recipe.metals == ("Nitinol", "titanium")
    assert read_recipe("syndeeplesion") == Recipe()
    # YAML takes 2e5 for text; people do not.
    path.write_text("scan: {photons: 2e5}\ngeometry: {curved: true, views: 100}\ntube: {kvp: 80}")
    read = read_recipe(path)
    assert read.scan.photons == 2e5 and read.geometry.curved and read.geometry.bins == 641
    assert read.scan.fbp == "textbook" and read.tube.kvp == 80


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scan: {photon: 3}", "scan.photon: unknown; expected among photons, scatter"),
        ("scan: {photons: many}", "scan.photons: expected a number, got 'many'"),
        ("scan: {photons: 0}", r"photons must be finite, in \[1, .*\], got 0"),
        ("geometry: {views: 3}", "expected at least 4 views, got 3"),
        ("geometry: {views: 7.5}", "geometry.views: expected a whole number, got 7.5"),
        ("geometry: {curved: 1}", "geometry.curved: expected true or false, got 1"),
        ("geometry: {beam: cone}", "geometry.beam: expected fan or parallel, got 'cone'"),
        ("tube: {kvp: 60}", "tube.kvp: expected 80 to 140 kV, got 60"),
        ("metal: {materials: [unobtainium]}", "one of your own protocol, got 'unobtainium'"),
        ("metal: {materials: [water]}", "expected a metal, got 'water'"),
        ("metal: {implants: knee}", "metal.implants: expected a list, got 'knee'"),
        ("metal: {implants: [knee]}", "among hip, spine, dental, clips, got 'knee'"),
        ("metal: {per_slice: 0}", "at least one kind of implant and one scan"),
        ("materials: {x: {density: 1}}", "materials.x: expected density and parts, got density"),
        ("materials: {x: {density: 90, parts: {Fe: 1}}}", r"a density in \(0, 23\]"),
        (
            "materials: {x: {density: 9, parts: {Xq: 1}}}",
            r"elements such as Ti or Cr, got \['Xq'\]",
        ),
        ("field_mm: 3", "field_mm: expected 10 to 2000 mm, or null, got 3"),
        ("fields: 3", "fields: unknown; expected among field_mm, geometry"),
        ("format: eqreg ct protocol 9", "format: expected 'eqreg ct protocol 1'"),
        ("- a", "a protocol: expected keys with values, got list"),
        ("a: [", "while parsing"),
    ],
)
def test_a_protocol_says_what_is_wrong(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_the_protocols_of_the_page(tmp_path):
    page = (Path(__file__).parents[2] / "book" / "ct_tool.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        (tmp_path / "p.yaml").write_text(block)
        recipe = read_recipe(tmp_path / "p.yaml")
        assert recipe != Recipe()
    assert recipe.geometry.curved and recipe.scan.current == 0.5


def test_the_second_simulator_agrees_as_the_page_says():
    errors = load_artifact("ct_judge")["errors"].values()
    lines = [v for e in errors for name, v in e.items() if name.startswith("line integrals of")]
    seen = [v for e in errors for name, v in e.items() if name == "all energies, their tables"]
    assert max(lines + seen) < 0.01
    page = (Path(__file__).parents[2] / "book" / "ct_tool.md").read_text(encoding="utf-8")
    assert f"differ by {100 * min(lines):.2f} to {100 * max(lines):.1f} %" in page
    assert f"by {100 * min(seen):.2f} to {100 * max(seen):.2f} %" in " ".join(page.split())


# ---- the data set


def test_the_published_layout(made):
    manifest = read_manifest(made)
    h5py = require("h5py", extra="tasks")
    assert {c["split"] for c in manifest["cases"]} == {"train", "test"}
    patients = {
        s: {c["slice"][:6] for c in manifest["cases"] if c["split"] == s} for s in ("train", "test")
    }
    assert not patients["train"] & patients["test"]
    for split in ("train", "test"):
        folder = made / split / f"{split}_640geo"
        masks = np.load(made / f"{split}mask.npy")
        assert masks.dtype == np.uint8 and masks.shape[:2] == (96, 96)
        lines = (made / split / f"{split}_640geo_dir.txt").read_text().splitlines()
        assert sorted(lines) == sorted(
            p.relative_to(folder).as_posix() for p in folder.rglob("gt.h5")
        )
        for line in lines:
            with h5py.File(folder / line) as file:
                shapes = {name: (file[name].shape, file[name].dtype.str) for name in file}
            assert shapes == {
                "image": ((96, 96), "<f4"), "poly_CT": ((96, 96), "<f4"), "poly_sinogram": ((80, 149), "<f4"),
            }  # fmt: skip
    for record in manifest["cases"]:
        with h5py.File(made / record["file"]) as file:
            shapes = {name: (file[name].shape, file[name].dtype.str) for name in file}
            trace, ma = file["metal_trace"][:], file["ma_sinogram"][:]
        assert shapes == {
            "ma_CT": ((96, 96), "<f4"), "LI_CT": ((96, 96), "<f4"), "ma_sinogram": ((80, 149), "<f4"),
            "LI_sinogram": ((80, 149), "<f4"), "metal_trace": ((80, 149), "|u1"),
        }  # fmt: skip
        assert set(np.unique(trace)) == {0, 1} and np.isfinite(ma).all()
        mask = read_split_masks(made, record["split"])[..., record["number"]]
        assert mask.sum() == record["area"] == sum(i["area"] for i in record["implants"])
    for name in ("README.md", "protocol.yaml", "contact_sheet.png"):
        assert (made / name).stat().st_size > 300
    assert not (made / ".work").exists() and read_recipe(made / "protocol.yaml") == SMALL


def test_the_existing_loader_reads_it(tmp_path):
    """At full size: the loader of the published data knows one geometry."""
    root = tmp_path / "full"
    manifest = making.make(
        making.Plan(("phantoms:1",), test=0.0), root, Recipe(), report=quiet, progress=False
    )
    (case,) = SynDeepLesion(root, "train")
    (record,) = manifest["cases"]
    ours = read_case(root, record, read_split_masks(root, "train"))
    for name in ("gt", "ma", "li", "mask", "trace", "ma_sinogram", "li_sinogram"):
        assert torch.equal(getattr(case, name), getattr(ours, name)), name
    assert case.name == ours.name and float(case.ma[case.mask].mean()) > 1
    assert torch.equal(case.gt, hu_to_mu(phantom("thorax", 416, generator=seeded(0))))


def test_the_plain_layout_holds_the_same(made, tmp_path):
    plan = making.Plan(PLAN.places, test=PLAN.test, layout="npz")
    making.make(plan, tmp_path / "npz", SMALL, report=quiet, progress=False)
    ones, others = (
        {
            (record["slice"], record["number"], split): case
            for split in ("train", "test")
            for record, case in cases(root, read_manifest(root), split)
        }
        for root in (made, tmp_path / "npz")
    )
    assert ones.keys() == others.keys()
    for name, case in ones.items():
        assert all(torch.equal(a, b) for a, b in zip(case[:7], others[name][:7], strict=True))
    record = read_manifest(tmp_path / "npz")["cases"][0]
    with np.load(tmp_path / "npz" / record["file"]) as file:
        assert np.array_equal(file["labels"] > 0, file["mask"] > 0)
        assert file["labels"].max() == len(record["materials"])


def test_the_same_command_gives_the_same_bytes_with_any_number_of_jobs(made, tmp_path):
    making.make(PLAN, tmp_path / "again", SMALL, jobs=2, report=quiet, progress=False)
    assert content(tmp_path / "again") == content(made)


def test_a_finished_or_foreign_folder_is_left_alone(made, tmp_path):
    before, told = content(made), []
    making.make(PLAN, made, SMALL, report=told.append, progress=False)
    assert content(made) == before and "is finished" in told[0]
    other = making.Plan(PLAN.places, test=PLAN.test, seed=1)
    (tmp_path / "mine").write_text("x")
    for root in (made, tmp_path):
        with pytest.raises(
            ValueError, match=r"holds something else: .* expected a new or empty folder"
        ):
            making.make(other, root, SMALL, report=quiet, progress=False)
    assert content(made) == before


def test_a_kill_leaves_whole_files_and_the_rest_is_done_later(made, protocol, tmp_path):
    root = tmp_path / "data"
    command = [
        sys.executable, "-m", "eqreg", "ct", "simulate", *PLAN.places, "--out", str(root),
        "--geometry", str(protocol), "--split", "60/40",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(root.glob(".work/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p: p.read_bytes() for p in root.rglob("*.h5")}
    records = list((root / ".work").glob("*.json"))
    assert records and not (root / "manifest.json").exists()
    with pytest.raises(FileNotFoundError, match="that is finished, found no"):
        read_manifest(root)
    making.make(PLAN, root, SMALL, report=quiet, progress=False)
    left = {k: v for k, v in content(root).items() if ".part-" not in k}
    assert left == content(made)
    assert all(path.read_bytes() == before for path, before in done.items())


def test_a_full_disk_is_one_line_and_the_finished_slices_stay(
    tmp_path, protocol, monkeypatch, capsys
):
    real, written = os.fsync, []

    def full(handle):
        written.append(handle)
        if len(written) > 8:
            raise OSError(28, "No space left on device")
        real(handle)

    root = tmp_path / "data"
    command = [
        "ct",
        "simulate",
        "phantoms:3",
        "--out",
        str(root),
        "--geometry",
        str(protocol),
        "--split",
        "1/0",
    ]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert main(command) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eqreg:")]
    assert len(error) == 1
    assert "No space left on device" in error[0] and str(root) in error[0]
    assert "what was finished stays, the same command goes on" in error[0]
    kept = {p: p.read_bytes() for p in root.rglob("*.h5")}
    assert kept and not list(root.rglob("*.part-*"))
    assert main(command) == 0
    assert all(p.read_bytes() == before for p, before in kept.items())


def test_masks_of_ones_own(tmp_path):
    masks = np.zeros((96, 96, 3), np.uint8)
    masks[40:50, 45:50, 0] = masks[44:48, 40:43, 1] = masks[50:52, 45:51, 2] = 1
    np.save(tmp_path / "m.npy", masks)
    plan = making.Plan(("phantoms:2",), masks=tmp_path / "m.npy", test=0.0)
    recipe = Recipe(SMALL.geometry, metal=Metal(materials=("steel",), per_slice=3))
    manifest = making.make(plan, tmp_path / "data", recipe, report=quiet, progress=False)
    assert np.array_equal(np.load(tmp_path / "data" / "trainmask.npy"), masks)
    assert [c["number"] for c in manifest["cases"]] == [0, 1, 2] * 2
    assert {m for c in manifest["cases"] for m in c["materials"]} == {"steel"}
    # As public code finds a case: the line without "gt.h5" and its end, and a mask's number.
    folder = tmp_path / "data" / "train"
    with (folder / "train_640geo_dir.txt").open() as lines:
        for line in lines:
            assert all((folder / "train_640geo" / f"{line[:-6]}{k}.h5").is_file() for k in range(3))
    assert "all slices share the masks" in (tmp_path / "data" / "README.md").read_text()
    with pytest.raises(FileNotFoundError, match="expected masks at .*nowhere.npy, found no file"):
        making.make(
            making.Plan(("phantoms:1",), masks=tmp_path / "nowhere.npy"),
            tmp_path / "x",
            recipe,
            report=quiet,
        )


# ---- repair and score


def test_repair_and_score(made, monkeypatch):
    li = classical(made, "li")
    for _, case in cases(made, read_manifest(made), "test"):
        assert torch.equal(li(case), case.li)
    calls = []

    def perfect(case):
        calls.append(case.name)
        return case.gt

    count = repair(made, "perfect", perfect)
    assert count == len(calls) == len(set(calls))
    assert repair(made, "perfect", perfect) == count == len(calls), "what is done is not done again"
    found = score(made)
    assert list(found["methods"]) == ["input", "li", "nmar", "perfect"]
    assert (
        found["methods"]["perfect"]["rmse"] == 0 and found["methods"]["perfect"]["psnr"] == np.inf
    )
    assert found["methods"]["nmar"]["rmse"] < found["methods"]["input"]["rmse"]
    (record, case), *_ = cases(made, read_manifest(made), "test")
    row = next(r for r in found["cases"] if r["method"] == "li")
    assert row["case"] == case.name
    assert row["psnr"] == pytest.approx(float(mar_psnr(case.li, case.gt, case.mask)))
    body = body_mask(case.gt / 0.192 * 1000 - 1000)
    both = body & ~case.mask
    errors = ((case.li - case.gt)[both] * 1000 / 0.192).double()
    assert row["rmse_body"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-5)
    text = (made / "score.md").read_text()
    assert text.count("| nmar |") == 2 and "inside the body" in text
    assert (made / "score.png").stat().st_size > 1000
    (made / "repaired" / "perfect" / "test" / record["slice"] / f"{record['number']}.npy").unlink()
    with pytest.raises(ValueError, match=r"expected the image, found none; `eqreg ct repair"):
        score(made)
    repair(made, "perfect", perfect)
    with pytest.raises(ValueError, match="bad: expected a finite image"):
        repair(made, "bad", lambda case: case.gt * float("nan"))
    with pytest.raises(ValueError, match="expected cases of the split 'val', found test, train"):
        repair(made, "bad", perfect, "val")


def test_from_slices_to_the_score_on_the_command_line(tmp_path, protocol, capsys):
    data, weights = tmp_path / "data", tmp_path / "net.safetensors"
    assert main(["ct", "simulate", "phantoms:4", "--out", str(data), "--geometry", str(protocol),
                 "--materials", "Ti,steel", "--split", "75/25", "--per-slice", "1"]) == 0  # fmt: skip
    assert "3 training and 1 test cases" in capsys.readouterr().out
    assert (
        main(["ct", "train", str(data), "--out", str(weights), "--preset", "quick", "--steps", "3"])
        == 0
    )
    assert main(["ct", "repair", str(data), "--with", str(weights)]) == 0
    assert main(["ct", "score", str(data)]) == 0
    out = capsys.readouterr().out
    assert "| net |" in out and "| nmar |" in out
    stored = json.loads((data / "score.json").read_text())
    assert set(stored["methods"]) == {"input", "li", "nmar", "net"}
    assert (
        main(
            [
                "ct",
                "simulate",
                "phantoms:2",
                "--out",
                str(tmp_path / "p"),
                "--geometry",
                str(protocol),
                "--preview",
            ]
        )
        == 0
    )
    assert [p.name for p in (tmp_path / "p").iterdir()] == ["preview.png"]


def test_other_scanners_and_lost_turns_are_told(tmp_path):
    told = []
    recipe = Recipe(ParallelBeam(64, 50, 91, pixel=0.24), scan=Protocol())
    making.make(
        making.Plan(("phantoms:1",), test=0.0),
        tmp_path / "d",
        recipe,
        report=told.append,
        progress=False,
    )
    assert told == ["50 views: this scanner is not exactly equivariant under quarter turns"]
    assert "not exactly" in (tmp_path / "d" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--split", "9"], "--split: expected two whole numbers such as 90/10, got '9'"),
        (["--materials", "cheese"], "one of your own protocol, got 'cheese'"),
        (["--implants", "knee"], "metal.implants: expected among hip"),
        (["--field", "wide"], "--field: expected mm or slice, got 'wide'"),
        (
            ["--geometry", "nowhere.yaml"],
            "expected syndeeplesion or a YAML file, found no file nowhere",
        ),
        (["--layout", "zip"], "--layout: expected one of published, npz, got 'zip'"),
        (["--jobs", "0"], "--jobs: expected a whole number from 1 to"),
        (["--every", "0"], "--every: expected a whole number from 1 to"),
    ],
)
def test_the_command_says_what_it_expects(tmp_path, capsys, arguments, message):
    command = ["ct", "simulate", "phantoms:1", "--out", str(tmp_path / "d"), *arguments]
    assert main(command) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "d").exists()
    assert main(["ct", "score", str(tmp_path)]) == 2
    assert "expected a data set of `eqreg ct simulate`, found no" in capsys.readouterr().err


def test_a_contact_sheet_has_the_letters_of_its_titles():
    tile = np.zeros((8, 8, 3), np.uint8)
    made = {t: sheet(("clean",), [Tiles(t, (tile,))]) for t in ("λ", "Ж", "?", "")}
    assert len({*made.values()}) == 4  # no two alike: a letter that the font lacks would be a box
    with require("PIL.Image", extra="tasks").open(io.BytesIO(made[""])) as page:
        # Black between the pictures, as they are.
        assert page.getpixel((page.width - 1, 0)) == (0, 0, 0)
