"""The task of metal artifact reduction: its patients, its cache, its measures."""

import os

import numpy as np
import pytest
import torch

from eqreg import C4, C8, rotate
from eqreg.experiments.runs import Run, prepared, train
from eqreg.physics.ct import mar_psnr
from eqreg.tasks import _patients, get_task
from eqreg.tasks._metal import Cases, kept, together
from eqreg.tasks.mar import MetalCrops, RepairingUNet, restore

TASK = get_task("mar")
QUICK = TASK.preset("quick")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQREG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def some_cases(n=3, size=8, seed=0, **known):
    g = torch.Generator().manual_seed(seed)
    gt, ma, li = (torch.rand(n, size, size, generator=g) for _ in range(3))
    return Cases(gt, ma, li, torch.rand(n, size, size, generator=g) > 0.8, known)


class Copy(torch.nn.Module):
    """Answers with the LI image, at two stages."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, ma, li, metal):
        return torch.cat([ma, li], 1) + self.weight


def test_scaled_inputs_are_clamped_display_values():
    cases = some_cases()
    cases.ma[0, 0, 0], cases.ma[0, 0, 1] = -0.1, 0.25
    ma, li, metal, gt = cases.scaled()
    assert ma.shape == li.shape == metal.shape == gt.shape == (3, 1, 8, 8)
    assert ma[0, 0, 0, 0] == 0 and ma[0, 0, 0, 1] == 0.5 and ma.max() == 1
    assert set(metal.unique().tolist()) == {0.0, 1.0}


def test_together_keeps_only_numbers_that_all_have():
    both = together(
        [some_cases(2, a=torch.ones(2), b=torch.ones(2)), some_cases(1, a=torch.zeros(1))]
    )
    assert len(both.gt) == 3 and both.known.keys() == {"a"}
    assert both.known["a"].tolist() == [1, 1, 0]
    assert torch.equal(both.pick([2]).gt, some_cases(1).gt)


def test_loss_weighs_stages_and_leaves_the_metal_out():
    prediction = torch.tensor(
        [[[[3.0, 5.0]], [[1.0, 9.0]]]]
    )  # two stages of an image of two pixels
    clean, outside = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 0.0]]]])
    # Last stage: 1/2. First: 9/2, a tenth of it.
    assert TASK.loss(prediction, (clean, outside)).item() == pytest.approx(0.5 + 0.45)


def test_crops_come_from_one_place():
    cases = some_cases(size=16)
    cases = cases._replace(ma=cases.gt / 2, li=cases.gt / 4)
    x, y = MetalCrops(cases, crop=6, batch=5)(torch.Generator().manual_seed(0))
    (ma, li, metal), (clean, outside) = x, y
    assert all(t.shape == (5, 1, 6, 6) for t in (*x, *y))
    assert torch.allclose(ma, 2 * li) and torch.allclose(clean, (2 * ma).clamp(max=1))
    assert torch.equal(outside, 1 - metal)


def test_restore_turns_inputs_and_takes_the_last_stage():
    cases = some_cases()
    li = cases.li.clamp(0, 0.5)
    assert torch.allclose(restore(Copy(), cases), li)
    assert torch.allclose(restore(Copy(), cases, 1), rotate(li, 1))


def test_kept_cases_are_built_once():
    built = []

    def build():
        built.append(1)
        return some_cases(a=torch.arange(3.0))

    first, second = kept("once", build), kept("once", build)
    assert len(built) == 1
    assert all(torch.equal(a, b) for a, b in zip(first[:4], second[:4], strict=True))
    assert torch.equal(second.known["a"], first.known["a"])
    kept("another key", build)
    assert len(built) == 2


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damaged_cases_are_built_anew(damage, tmp_path, monkeypatch):
    monkeypatch.setenv("EQREG_CACHE", str(tmp_path))
    kept("damaged", some_cases)
    (path,) = tmp_path.glob("mar-*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-7]
    else:
        content[-1] ^= 1
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged and is built anew"):
        again = kept("damaged", some_cases)
    assert torch.equal(again.gt, some_cases().gt)
    kept("damaged", lambda: pytest.fail("the file was not replaced"))


def test_cache_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EQREG_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not keep the scans"):
        assert len(kept("nowhere", some_cases).gt) == 3


def make_chests(root, ages, highest=500):
    (root / "CT100").mkdir()
    for number, age in enumerate(ages):
        hu = np.full((16, 16), -1000.0, np.float32)
        hu[4:12, 4:12] = age  # so that a slice tells its patient
        hu[8, 8] = highest if number else 2600
        np.save(root / "CT100" / f"ID_{number:04d}_AGE_{age:04d}_CT.npy", hu)


def test_no_patient_is_in_two_splits(tmp_path):
    make_chests(tmp_path, [40, *range(40, 60), 58, 59, 59])
    found = {s: _patients.chests(tmp_path, 16, s) for s in ("train", "val", "test")}
    ages = {s: {float(hu[5, 5]) for hu in slices} for s, slices in found.items()}
    assert {s: len(slices) for s, slices in found.items()} == {"train": 11, "val": 4, "test": 8}
    assert not (ages["train"] & ages["val"] or ages["train"] & ages["test"])
    assert not ages["val"] & ages["test"] and {58.0, 59.0} <= ages["train"]
    # The first slice has 2600 HU in it.
    assert all(hu.max() < 2500 and hu.min() == -1000 for slices in found.values() for hu in slices)


def test_errors_of_the_chests(tmp_path):
    make_chests(tmp_path, range(40, 57))
    with pytest.raises(ValueError, match="more than 16 ages .* got 16"):
        _patients.chests(tmp_path, 16, "train")
    (tmp_path / "CT100" / "nameless.npy").write_bytes(
        (tmp_path / "CT100" / "ID_0001_AGE_0041_CT.npy").read_bytes()
    )
    with pytest.raises(ValueError, match=r"AGE_NNNN .* got nameless.npy"):
        _patients.chests(tmp_path, 16, "train")


def test_errors_without_data(tmp_path, monkeypatch):
    monkeypatch.delenv("EQREG_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="give --data, or set EQREG_DATA"):
        TASK.batches(TASK.preset("cpu"), 0, 4, None, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match="CT100"):
        TASK.batches(TASK.preset("cpu"), 0, 4, tmp_path, torch.device("cpu"))
    with pytest.raises(FileNotFoundError, match="expected SynDeepLesion in"):
        _patients.published(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"without_art/\*.npy"):
        _patients.others(tmp_path, 64)


def test_outline_holds_the_lungs_and_no_more():
    hu = torch.full((20, 20), -1000.0)
    hu[4:16, 5:15] = 50.0
    body = hu > 0
    hu[7:13, 7:12] = -850.0
    assert torch.equal(_patients.outline(hu), body)


def test_sets_of_the_quick_preset():
    n = QUICK.sizes["slices"] * QUICK.sizes["implants"]
    of = lambda name: _patients.cases(name, "phantoms", 64, 6, 2, None)  # noqa: E731
    train_set, test, iron = of("train"), of("test"), of("iron")
    assert train_set.gt.shape == (n, 64, 64) and not train_set.known
    assert test.known.keys() >= {"psnr_li", "ssim_nmar", "rmse_input"}
    assert torch.equal(test.gt, iron.gt) and torch.equal(test.metal, iron.metal)
    assert (iron.known["psnr_input"] < test.known["psnr_input"]).all()  # iron absorbs more
    expected = mar_psnr(test.li, test.gt, test.metal)
    assert torch.equal(test.known["psnr_li"], expected)


def test_strict_twin_is_exact_and_the_plain_network_is_not():
    torch.manual_seed(0)
    plain = TASK.model(QUICK).eval()
    seen = TASK.evaluate(plain, QUICK, "test", None)
    twin = TASK.evaluate(TASK.twin(plain, C4, match="width").eval(), QUICK, "test", None)
    assert min(seen["error_C4"]) > 1e-3 and seen["error_layers"][0] > 1
    assert max(twin["error_C4"]) < 1e-8 and twin["error_layers"][0] < 1e-8
    assert twin["psnr_turned"] == pytest.approx(twin["psnr_upright"], abs=1e-3)
    assert len(seen["psnr"]) == len(seen["psnr_li"]) == 6
    sizes = [k for k in seen if k.startswith("psnr_size")]
    assert sum(len(seen[k]) for k in sizes) == 6
    assert seen.keys() >= {"psnr_regions", "psnr_iron", "psnr_rotated45", "psnr_li_iron"}
    assert TASK.evaluate(plain, QUICK, "val", None).keys() == {"psnr"}


@pytest.mark.parametrize("method", ["eqreg", "augmentation-decay", "strict-equal"])
def test_a_run(method, tmp_path):
    strength = 0.0 if method == "strict-equal" else 1e-4
    result = train(Run("mar", "quick", method, 0, 1e-3, strength, steps=2, split="val"), tmp_path)
    assert np.isfinite(result["metrics"]["psnr"])


def test_rows_of_eight_angles_have_filters_that_hold_them():
    full = TASK.preset("full")
    for name in ("plain-5x5", "strict-5x5-C8", "strict-equal-5x5-C8"):
        _, _, net, _, row = prepared(Run("mar", "cpu", name, 0, 1e-3))
        assert name in full.methods and row.group == (None if name == "plain-5x5" else C8)
        assert net.options["kernel_size"] == 5 and net.strict == row.group
    _, _, net, settings, _ = prepared(Run("mar", "cpu", "eqreg-C8", 0, 1e-3, 1e-4))
    assert settings["symmetry"].regularizer.group == C8 and net.options["kernel_size"] == 3
    ma, li, metal, _ = some_cases().scaled()
    twin = prepared(Run("mar", "quick", "strict-5x5", 0, 1e-3))[2]
    with torch.no_grad():
        turned = twin(*(rotate(t, 1) for t in (ma, li, metal)))
        assert torch.allclose(turned, rotate(twin(ma, li, metal), 1), atol=1e-5)


def test_unet_starts_from_the_li_image():
    net = TASK.network("unet", QUICK)
    assert isinstance(net, RepairingUNet)
    ma, li, metal, _ = some_cases().scaled()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(net(ma, li, metal), li)


@pytest.mark.skipif(not os.environ.get("EQREG_DATA"), reason="needs EQREG_DATA")
def test_published_scans():
    cases = _patients.published(_patients.data_folder(None))
    assert cases.gt.shape == (13, 416, 416) and cases.known.keys() == {
        f"{m}_{i}" for m in ("psnr", "ssim", "rmse") for i in ("input", "li")
    }
    assert (cases.known["psnr_li"] > cases.known["psnr_input"]).all()


def test_more_slices_than_there_are_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(_patients, "chests", lambda folder, size, split: [torch.zeros(16, 16)] * 5)
    with pytest.raises(ValueError, match=r"asked for 6 training slices, .* has 5: set the size"):
        _patients.cases("train", "ct100", 16, 6, 1, str(tmp_path))
