"""Our simulator against the published SynDeepLesion data. Set EQREG_DATA to run it."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from eqreg import C4
from eqreg.data.ct import CTFolder
from eqreg.data.syndeeplesion import SynDeepLesion, read_masks
from eqreg.extras import require
from eqreg.physics.ct import (
    MU_WATER,
    Scanner,
    correct,
    interpolate_trace,
    mar_psnr,
    open_beam,
    polychromatic,
    rmse_hu,
    tabulated_beam,
    turn_sinogram,
    water_correction,
)
from eqreg.physics.ct.metal import PUBLISHED_AREAS

DATA = Path(os.environ.get("EQREG_DATA", "/nowhere")).resolve()
MASKS = DATA / "SynDeepLesion" / "testmask.npz"
pytestmark = pytest.mark.skipif(
    not (DATA / "SynDeepLesion_full_h5").is_dir(),
    reason="set EQREG_DATA to a folder that holds SynDeepLesion_full_h5",
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def tables():
    return tabulated_beam(DATA / "ct_spectra")


@pytest.fixture(scope="module")
def scanner(tables):
    return Scanner.preset("syndeeplesion", beam=tables, cache=False)


@pytest.fixture(scope="module")
def full():
    """The three cases with sinograms; the published masks 0 serve both splits."""
    return [*SynDeepLesion(masks=MASKS), *SynDeepLesion(split="train")]


def clean_scan(case):
    split = "test" if case.name.startswith("000376") else "train"
    folder = DATA / "SynDeepLesion_full_h5" / split / f"{split}_640geo"
    with require("h5py", extra="tasks").File(
        folder / case.name.rpartition("/")[0] / "gt.h5"
    ) as file:
        return torch.from_numpy(file["poly_sinogram"][:]), torch.from_numpy(file["poly_CT"][:])


# ---- files


def test_published_masks_have_the_published_areas():
    assert sorted(read_masks(MASKS).sum((1, 2)).tolist()) == sorted(PUBLISHED_AREAS)


def test_both_published_layouts_load(full):
    assert [case.name for case in full] == [
        "000376_02_01/040/0",
        "000129_03_01/115/80",
        "000195_02_02/202/0",
    ]
    assert all(case.ma_sinogram is not None for case in full)
    small = SynDeepLesion(split="train", name="SynDeepLesion")
    assert len(small) == 10 and small[3].ma_sinogram is None
    for case in (*full, small[3]):
        # A metal pixel is a metal trace, whatever the projector.
        assert case.mask.any() and case.trace.any(-1).all()


def test_published_hu_slices_load():
    slices = CTFolder(DATA / "CT100")
    assert len(slices) == 60
    for hu in (slices[0], slices[59]):
        assert hu.shape == (512, 512) and hu.min() == -1000 and 500 < hu.max() < 3072
        assert abs(float(hu[(hu > -50) & (hu < 120)].mean()) - 35) < 40  # soft tissue
    others = CTFolder(DATA / "ct_slices_256")
    assert len(others) == 12 and all(hu.shape == (256, 256) for hu in others)


# ---- inputs


def test_our_attenuation_is_that_of_the_tables(tables):
    ours = open_beam()
    for material in ("water", "bone", "titanium", "iron", "copper", "gold"):
        assert np.allclose(ours.relative(material), tables.relative(material), rtol=1e-3)
        assert ours.at_reference[material] == pytest.approx(tables.at_reference[material], rel=5e-4)


def test_our_spectrum_hardens_like_the_tables(tables):
    # What counts is what each beam's water correction leaves: the line integrals of implants in patients.
    t = torch.linspace(0, 4.5, 50, dtype=torch.float64)
    for water in (0.3, 1.0, 2.5):
        paths = {"water": torch.full_like(t, water), "titanium": t}
        ours, theirs = (
            correct(polychromatic(paths, beam), water_correction(beam))
            for beam in (open_beam(), tables)
        )
        assert (theirs - t).abs().max() > 0.3 and (ours - theirs).abs().max() < 0.03


def test_the_correction_is_the_published_cubic(tables):
    assert np.allclose(water_correction(tables), [0.80370341, 0.02301414, -0.0008444], atol=1e-7)


# ---- reconstruction, repair, scans


def test_interpolation_of_the_published_sinograms(full):
    for case in full:
        ours = interpolate_trace(case.ma_sinogram, case.trace)
        assert (ours - case.li_sinogram).abs().max() < 1e-6


@pytest.mark.slow
def test_reconstruction_of_the_published_sinograms(scanner, full):
    for case in full:
        assert relative(scanner.fbp(case.ma_sinogram), case.ma) < 2e-4
        assert relative(scanner.fbp(case.li_sinogram), case.li) < 2e-4
        y, image = clean_scan(case)
        assert relative(scanner.fbp(y), image) < 2e-4


@pytest.mark.slow
def test_only_photons_tell_our_clean_scan_from_the_published_one(scanner, full):
    case = full[0]
    published, _ = clean_scan(case)
    _, first = scanner.scan(case.gt, generator=seeded(0))
    _, second = scanner.scan(case.gt, generator=seeded(1))
    assert relative(first, published) == pytest.approx(relative(first, second), rel=0.01)


@pytest.mark.slow
def test_scans_are_the_published_ones_but_for_photons(scanner, full):
    masks = read_masks(MASKS)
    train = SynDeepLesion(split="train", name="SynDeepLesion")
    # Train masks are not published; 0 and 1 have the traces of the test masks.
    cases = [full[0], full[1], full[2]._replace(mask=masks[0]), train[1]._replace(mask=masks[1])]
    for case in cases:
        both = scanner(case.gt, case.mask.expand(2, -1, -1), generator=seeded())
        assert torch.equal(both.trace[0], case.trace)
        beside = ~case.mask
        artifact, published = ((x - case.gt)[beside] for x in (both.ma[0], case.ma))
        assert np.corrcoef(artifact, published)[0, 1] > 0.998
        noise = float(rmse_hu(both.ma[0], both.ma[1], case.mask))
        assert float(rmse_hu(both.ma[0], case.ma, case.mask)) < 1.1 * noise
        for ours, theirs in ((both.ma[0], case.ma), (both.li[0], case.li)):
            psnr = [float(mar_psnr(x, case.gt, case.mask)) for x in (ours, theirs)]
            assert abs(psnr[0] - psnr[1]) < 0.02


@pytest.mark.slow
def test_open_inputs_cost_a_tenth_of_a_decibel(scanner, full):
    case = full[0]
    scan = scanner.variant(beam=open_beam())(case.gt, case.mask[None], generator=seeded())
    psnr = [float(mar_psnr(x, case.gt, case.mask)) for x in (scan.ma[0], case.ma)]
    assert abs(psnr[0] - psnr[1]) < 0.15


@pytest.mark.slow
def test_the_published_scanner_is_exactly_symmetric(scanner):
    a = scanner.projector
    x = MU_WATER * torch.rand(416, 416, generator=seeded())
    y = a.project(x)
    assert torch.equal(a.project(torch.rot90(x, 1, (-2, -1))), turn_sinogram(y, 1, C4))
    assert torch.equal(y.roll(160, -2), turn_sinogram(y, 1, C4))
    v = torch.randn(y.shape, generator=seeded())
    left, right = (y.double() * v).sum(), (x.double() * a.backproject(v)).sum()
    assert abs(left - right) / (y.double().norm() * v.double().norm()) < 1e-6
