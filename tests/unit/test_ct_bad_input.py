"""What is no CT slice, no implant or no scanner is refused with a message that says so.

Files that are no slices are in test_ct_data, impossible geometries in test_ct_projector.
"""

import math

import numpy as np
import pytest
import torch

from eqreg.data.ct import read_ct
from eqreg.physics.ct import (
    MU_WATER,
    Beam,
    Scanner,
    interpolate_trace,
    mar_psnr,
    monochromatic,
    nmar,
    nmar_image,
    open_beam,
    prior_image,
    rmse_hu,
    small_fan,
)

SIZE = 32


def disc(radius):
    c = torch.arange(SIZE) - (SIZE - 1) / 2
    return c[:, None] ** 2 + c**2 < radius**2


@pytest.fixture(scope="module")
def scanner():
    return Scanner(small_fan(SIZE, 40), monochromatic())


@pytest.fixture(scope="module")
def patient():
    return MU_WATER * disc(12).float()


# ---- no metal


def test_without_metal_everything_passes_unchanged(scanner, patient):
    y = scanner.projector.project(patient)
    nowhere = torch.zeros_like(y, dtype=torch.bool)
    assert torch.equal(interpolate_trace(y, nowhere), y)
    assert torch.equal(nmar(y, nowhere, torch.rand_like(y)), y)
    none = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    image, repaired = nmar_image(y, nowhere, scanner.projector.project, scanner.fbp, none)
    assert torch.equal(repaired, y) and torch.equal(image, scanner.fbp(y))


def test_a_scan_without_metal_is_that_of_an_implant_of_nothing(scanner, patient):
    # Metal that is as transparent as air: the scan with its mask must be the scan without.
    beam = monochromatic()
    clear = {**beam.attenuation, "titanium": np.zeros(1)}
    nothing = Beam(
        beam.energies, beam.weights, clear, {**beam.at_reference, "titanium": np.float64(1e-30)}
    )
    quiet = scanner.variant(beam=nothing, noise=False)
    image, y = quiet.scan(patient)
    scans = quiet(patient, disc(3)[None])
    assert torch.allclose(scans.ma_sinogram[0], y, atol=1e-6)
    assert torch.allclose(scans.ma[0], image, atol=1e-6)


def test_no_masks_are_not_an_empty_answer(scanner, patient):
    masks = disc(3)[None]
    with pytest.raises(ValueError, match=r"one or more masks \(M, 32, 32\).* got \(0, 32, 32\)"):
        scanner(patient, masks[:0])
    with pytest.raises(TypeError, match="expected masks of type Tensor, got ndarray"):
        scanner(patient, masks.numpy())


# ---- values


@pytest.mark.parametrize(("value", "message"), [(math.nan, "1 pixels with NaN"), (-0.2, "-0.2")])
def test_every_scan_refuses_impossible_attenuation(scanner, patient, value, message):
    broken = patient.clone()
    broken[16, 16] = value
    for scan in (scanner.scan, lambda x: scanner(x, disc(3)[None])):
        with pytest.raises(ValueError, match=message):
            scan(broken)


def test_a_metal_as_wide_as_the_view_still_has_neighbours(scanner, patient):
    # The detector is wider than the circle that every view sees, so LI finds cells on both sides.
    scans = scanner(patient, disc(15.4)[None])
    assert torch.isfinite(scans.li).all() and not scans.trace.all(-1).any()


# ---- repair


def test_priors_that_are_none(scanner, patient):
    y = scanner.projector.project(patient)
    trace = torch.zeros_like(y, dtype=torch.bool)
    trace[:, 20:25] = True
    for prior in (y * math.nan, -1 - y):
        with pytest.raises(ValueError, match="finite prior that is not negative"):
            nmar(y, trace, prior)
    with pytest.raises(ValueError, match=r"a prior of shape \(3, 51\) does not fit sinograms"):
        nmar(y, trace, y[:3])
    with pytest.raises(TypeError, match="bool mask of the metal, got torch.float32"):
        prior_image(patient, patient)
    with pytest.raises(ValueError, match=r"a mask of shape \(5, 32\) does not fit images"):
        prior_image(patient, disc(3)[:5])


def test_a_prior_of_air_leaves_linear_interpolation():
    y = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0))
    trace = torch.zeros(4, 9, dtype=torch.bool)
    trace[:, 3:6] = True
    assert torch.allclose(nmar(y, trace, torch.zeros_like(y)), interpolate_trace(y, trace))


def test_images_of_other_sizes_are_not_compared(patient):
    for measure in (mar_psnr, rmse_hu):
        with pytest.raises(ValueError, match=r"true image of shape \(5, 32\) does not fit images"):
            measure(patient, patient[:5], disc(3))


# ---- tubes and beams


def test_tubes_that_do_not_exist():
    for kvp in (10.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"above 21 and at most 800 kV, got {kvp}"):
            open_beam(kvp)
    e, one = np.array([70.0]), np.ones(1)
    with pytest.raises(ValueError, match="attenuation of water at the reference energy, got None"):
        Beam(e, one, {"water": one}, {})


def test_a_scanner_needs_the_materials_of_its_beam(scanner):
    one = np.ones(1)
    known = ("water", "bone", "titanium")
    beam = Beam(np.array([70.0]), one, dict.fromkeys(known, one), dict.fromkeys(known, 1.0))
    with pytest.raises(ValueError, match="expected one of .*'titanium'.* got 'gold'"):
        scanner.variant(beam=beam, metal="gold")


# ---- files cut short


def test_slices_cut_short_are_named(tmp_path):
    image = pytest.importorskip("PIL.Image")
    hu = np.full((64, 64), 40)
    image.fromarray((hu + 32768).astype(np.uint16)).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", hu)
    for name in ("a.png", "a.npy"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(ValueError, match=f"could not read .*{name}"):
            read_ct(path)
