"""Attenuation, beam hardening, photons, repair, and the scan that puts them together."""

import math

import numpy as np
import pytest
import torch

from eqreg import rotate
from eqreg.physics.ct import (
    MU_WATER,
    Beam,
    ParallelBeam,
    Projector,
    Protocol,
    Scanner,
    correct,
    decompose,
    hu_to_mu,
    implants,
    interpolate_trace,
    mar_psnr,
    mar_ssim,
    measure,
    monochromatic,
    mu_to_hu,
    nmar,
    nmar_image,
    open_beam,
    polychromatic,
    prior_image,
    rmse_hu,
    small_fan,
    tabulated_beam,
    water_correction,
)
from eqreg.physics.ct.materials import MATERIALS, mass_attenuation, named
from eqreg.physics.ct.polychromatic import transmission
from eqreg.physics.ct.simulate import in_view
from eqreg.physics.ct.spectra import tube_spectrum

SIZE = 64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def disc(n, radius, center=(0.0, 0.0)):
    c = torch.arange(n) - (n - 1) / 2
    return (c[:, None] - center[0]) ** 2 + (c - center[1]) ** 2 < radius**2


@pytest.fixture(scope="module")
def scanner():
    return Scanner(small_fan(SIZE, 80), open_beam())


@pytest.fixture(scope="module")
def patient():
    """Water with a bone: (H, W) in 1/cm."""
    mu = MU_WATER * disc(SIZE, 24).float()
    return torch.where(disc(SIZE, 5, (8, 3)), 0.45, mu)


# ---- units and tables


def test_hounsfield_units():
    hu = torch.tensor([-1000.0, 0.0, 1000.0])
    assert torch.allclose(hu_to_mu(hu), torch.tensor([0.0, 0.192, 0.384]))
    assert torch.allclose(mu_to_hu(hu_to_mu(hu)), hu, atol=1e-3)
    with pytest.raises(ValueError, match="got 1 pixels with NaN or Inf"):
        hu_to_mu(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match=r"at least -1000 HU \(air\), got -2000"):
        hu_to_mu(torch.tensor([-2000.0]))


def test_attenuation_of_the_tables():
    # NIST: water at 30, 60, 100 keV; titanium at 60 keV, cm^2/g.
    water = mass_attenuation("water", np.array([30.0, 60.0, 100.0]))
    assert np.allclose(water, [0.3756, 0.2059, 0.1707], rtol=3e-3)
    assert mass_attenuation("titanium", np.array([60.0])) == pytest.approx(0.7661, rel=3e-3)
    with pytest.raises(ValueError, match="one of .*'water'.*got 'wood'"):
        mass_attenuation("wood", np.array([70.0]))
    with pytest.raises(ValueError, match=r"in \[1, 800\] keV, got \[0.5, 70\]"):
        mass_attenuation("water", np.array([0.5, 70.0]))


def test_tube_spectrum_has_its_end_and_its_lines():
    energies = np.arange(20.0, 141.0)
    spectrum = tube_spectrum(energies, 120)
    assert spectrum.sum() == pytest.approx(1) and (spectrum >= 0).all()
    assert not spectrum[energies >= 120].any() and spectrum[energies == 119] > 0
    assert 54 < (energies * spectrum).sum() < 57
    assert spectrum[energies == 59] > 2 * spectrum[energies == 60]
    assert np.argmax(tube_spectrum(energies, 60)) != 39, "no lines below the K edge"
    with pytest.raises(ValueError, match="expected energies below 15 keV"):
        tube_spectrum(energies, 15)


def test_beams_say_what_they_expect(tmp_path):
    e, w = np.array([60.0, 70.0]), np.array([0.5, 0.5])
    with pytest.raises(ValueError, match=r"water must have one number per energy \(2,\)"):
        Beam(e, w, {"water": np.ones(3)}, {"water": 1.0})
    with pytest.raises(ValueError, match="weights must sum to 1, got 2"):
        Beam(e, 2 * w, {}, {})
    with pytest.raises(ValueError, match="water must be finite and not negative"):
        Beam(e, w, {"water": -np.ones(2)}, {"water": 1.0})
    with pytest.raises(ValueError, match="one of .*'titanium'.* got 'lead'"):
        open_beam().relative("lead")
    with pytest.raises(FileNotFoundError, match="a table at .*GE14Spectrum120KVP.mat"):
        tabulated_beam(tmp_path)
    (tmp_path / "GE14Spectrum120KVP.mat").write_bytes(b"not a table")
    with pytest.raises(ValueError, match="could not read .*GE14Spectrum120KVP.mat"):
        tabulated_beam(tmp_path)


# ---- beam hardening


def test_one_energy_obeys_beer_and_lambert():
    p = torch.linspace(0, 3, 50, dtype=torch.float64)
    assert torch.allclose(polychromatic({"water": p}, monochromatic()), p, atol=1e-12)


def test_beer_lambert_of_a_disc_in_closed_form():
    # A disc of water: the ray at distance s has the chord 2 sqrt(r^2 - s^2), and the detector sees
    # -ln sum_E w exp(-mu(E) chord).
    geometry = ParallelBeam(size=128, views=8, bins=129, pixel=0.1)
    fine = disc(1024, 8 * 50).float().reshape(128, 8, 128, 8).mean((1, 3))
    beam = open_beam()
    p = Projector(geometry, cache=False).project(fine * beam.at_reference["water"])
    seen = polychromatic({"water": p}, beam)
    chord = 0.1 * 2 * np.sqrt(np.clip(50**2 - geometry.cells**2, 0, None))
    mu = beam.attenuation["water"]
    closed = torch.from_numpy(-np.log(np.exp(-np.outer(chord, mu)) @ beam.weights)).float()
    inside = torch.from_numpy(np.abs(geometry.cells) < 48)
    assert (seen[:, inside] / closed[inside] - 1).abs().max() < 0.01


@pytest.mark.parametrize("material", ["water", "titanium"])
def test_hardening_is_a_cumulant_generating_function(material):
    # p(0) = 0, p'(0) = mean, p''(0) = -variance of the relative attenuation over the spectrum.
    beam = open_beam()
    mu, w = beam.relative(material), beam.weights
    t = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    p = polychromatic({material: t}, beam)
    (slope,) = torch.autograd.grad(p, t, create_graph=True)
    (curvature,) = torch.autograd.grad(slope, t)
    mean = (w * mu).sum()
    assert abs(p.item()) < 1e-12
    assert slope.item() == pytest.approx(mean)
    assert curvature.item() == pytest.approx(-(w * (mu - mean) ** 2).sum())


def test_paths_of_materials_share_the_photons():
    beam = open_beam()
    a, b = torch.tensor([0.3, 1.0]), torch.tensor([0.2, 0.0])
    both = transmission({"water": a, "titanium": b}, beam)
    by_hand = [
        sum(
            w * math.exp(-x * float(r) - y * float(s))
            for w, r, s in zip(
                beam.weights, beam.relative("water"), beam.relative("titanium"), strict=True
            )
        )
        for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert torch.allclose(both, torch.tensor(by_hand, dtype=torch.float32), rtol=1e-5)
    with pytest.raises(ValueError, match="at least one material, got none"):
        transmission({}, beam)


def test_water_correction_makes_water_linear():
    beam = open_beam()
    cm = torch.linspace(0, 40, 100, dtype=torch.float64)
    true = cm * beam.at_reference["water"]
    seen = polychromatic({"water": true}, beam)
    assert (seen - true).abs().max() > 0.05
    assert (correct(seen, water_correction(beam)) - true).abs().max() < 0.015
    flat = water_correction(monochromatic())
    assert np.allclose(flat, [1, 0, 0], atol=1e-8)


def test_water_and_bone_add_up():
    mu = hu_to_mu(torch.tensor([-1000.0, 0.0, 100.0, 800.0, 1500.0, 3000.0]))
    parts = decompose(mu)
    assert torch.allclose(parts["water"] + parts["bone"], mu)
    assert torch.allclose(parts["bone"], mu * torch.tensor([0, 0, 0, 0.5, 1, 1]), atol=1e-6)
    with pytest.raises(ValueError, match="water_hu < bone_hu, got 5 and 5"):
        decompose(mu, water_hu=5, bone_hu=5)


# ---- photons


def test_photons_have_the_mean_and_spread_of_poisson():
    p = torch.full((200_000,), 1.5)
    seen = measure(p, 1e5, 20, generator=seeded())
    n = 1e5 * math.exp(-1.5) + 20
    assert float(seen.double().mean()) == pytest.approx(-math.log(n / 1e5), abs=1e-4)
    assert float(seen.double().std()) == pytest.approx(1 / math.sqrt(n), rel=0.01)
    assert torch.equal(seen, measure(p, 1e5, 20, generator=seeded()))


def test_a_cell_that_counts_nothing_counts_one():
    dark = measure(torch.tensor([200.0]), 1e4)
    assert float(dark) == pytest.approx(math.log(1e4))
    with pytest.raises(ValueError, match="photons must lie in .0, 1e.15., got 0"):
        measure(torch.zeros(1), 0, 1)


# ---- repair


def test_interpolation_by_hand():
    y = torch.tensor([[9.0, 1.0, 9.0, 9.0, 4.0, 9.0]])
    trace = torch.tensor([[True, False, True, True, False, True]])
    assert interpolate_trace(y, trace).tolist() == [[1, 1, 2, 3, 4, 4]]


def test_interpolation_agrees_with_numpy():
    y = torch.rand(3, 20, 50, generator=seeded(), dtype=torch.float64)
    trace = torch.rand(20, 50, generator=seeded(1)) < 0.6
    repaired = interpolate_trace(y, trace)
    cell = np.arange(50)
    for b in range(3):
        for view in range(20):
            t = trace[view].numpy()
            expected = np.interp(cell, cell[~t], y[b, view].numpy()[~t])
            assert np.allclose(repaired[b, view], expected)


def test_repair_says_what_it_expects():
    y = torch.zeros(4, 6)
    with pytest.raises(TypeError, match="bool trace, got torch.uint8"):
        interpolate_trace(y, torch.zeros(4, 6, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"shape \(5, 6\) does not fit sinograms \(4, 6\)"):
        interpolate_trace(y, torch.zeros(5, 6, dtype=torch.bool))
    trace = torch.zeros(4, 6, dtype=torch.bool)
    trace[2] = True
    for repair in (interpolate_trace, lambda y, t: nmar(y, t, y + 1)):
        with pytest.raises(ValueError, match=r"1 views lie in the trace .* at index \[2\]"):
            repair(y, trace)


def test_interpolation_is_differentiable():
    y = torch.rand(2, 7, dtype=torch.float64, generator=seeded(), requires_grad=True)
    trace = torch.tensor([[0, 1, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1, 0]]).bool()
    assert torch.autograd.gradcheck(lambda y: interpolate_trace(y, trace), y)


def test_nmar_with_the_right_prior_is_exact():
    p = torch.rand(5, 30, generator=seeded(), dtype=torch.float64) + 0.5
    trace = torch.zeros(5, 30, dtype=torch.bool)
    trace[:, 10:15] = True
    broken = torch.where(trace, 7.0, p)
    assert torch.allclose(nmar(broken, trace, p), p)
    assert torch.allclose(nmar(broken, trace, 3 * p), p), "the prior's scale does not matter"


def test_prior_image_is_a_cartoon():
    mu = hu_to_mu(torch.full((20, 60), -900.0))
    mu[:, 20:40] = hu_to_mu(torch.tensor(60.0))
    mu[:, 40:] = hu_to_mu(torch.tensor(1000.0))
    prior = prior_image(mu)
    assert (prior[:, :15] == 0).all() and (prior[:, 25:35] == MU_WATER).all()
    assert torch.allclose(prior[:, 45:], mu[:, 45:], atol=1e-5)
    metal = torch.zeros(20, 60, dtype=torch.bool)
    metal[5, 50] = True
    assert float(prior_image(mu, metal)[5, 50]) == pytest.approx(MU_WATER)


# ---- scans


def test_scan_without_metal_shows_the_patient(scanner, patient):
    image, y = scanner.scan(patient, generator=seeded())
    assert image.shape == (SIZE, SIZE) and y.shape == (80, scanner.geometry.bins)
    inside = disc(SIZE, 20) & ~disc(SIZE, 9, (8, 3))
    assert abs(float(mu_to_hu(image[inside]).mean())) < 15


def test_metal_makes_artifacts_and_repair_removes_some(scanner, patient):
    masks = implants(3, SIZE, body=disc(SIZE, 20), generator=seeded(2), kinds=("hip", "screw"))
    scans = scanner(patient, masks, generator=seeded())
    assert scans.ma.shape == scans.li.shape == (3, SIZE, SIZE)
    assert scans.trace.dtype == torch.bool and scans.trace.any(-1).all()
    for i, mask in enumerate(masks):
        beside = disc(SIZE, 22) & ~mask
        clean, _ = scanner.scan(patient, generator=seeded())
        ma, li = (
            float((image - clean)[beside].square().mean()) for image in (scans.ma[i], scans.li[i])
        )
        assert ma > 5e-5, "beam hardening leaves streaks"
        assert float(scans.ma[i][mask].mean()) > 0.8, "and metal shines"
        assert li < ma or mask.sum() < 10
    outside = ~scans.trace
    assert torch.equal(scans.li_sinogram[outside], scans.ma_sinogram[outside])


def test_one_energy_no_noise_no_edge_is_a_linear_scan(patient):
    protocol = Protocol(noise=False, hardening=False, edge=1)
    scanner = Scanner(small_fan(SIZE, 80), monochromatic(), protocol)
    mask = disc(SIZE, 3, (-5, 6))
    scan = scanner(patient, mask[None])
    titanium = MATERIALS["titanium"][1] * monochromatic().at_reference["titanium"]
    expected = scanner.projector.project(patient + titanium * mask)
    assert torch.allclose(scan.ma_sinogram[0], expected, atol=2e-5)


def test_partial_volume_takes_the_edge_of_the_trace(patient):
    geometry, mask = small_fan(SIZE, 80), disc(SIZE, 5, (-5, 6))[None]
    sharp, soft = (
        Scanner(geometry, monochromatic(), Protocol(noise=False, hardening=False, edge=edge))(
            patient, mask
        )
        for edge in (1, 3)
    )
    changed = sharp.ma_sinogram != soft.ma_sinogram
    trace = sharp.trace
    inner = trace & trace.roll(1, -1) & trace.roll(-1, -1)
    assert torch.equal(changed, trace & ~inner)


def test_scans_of_a_turned_patient_are_turned(scanner, patient):
    mask = disc(SIZE, 3, (-5, 6))[None]
    quiet = scanner.variant(noise=False)
    assert quiet.projector is scanner.projector and scanner.protocol.noise
    for k in (1, 3):
        turned, scan = quiet(rotate(patient, k), rotate(mask, k)), quiet(patient, mask)
        assert torch.equal(turned.trace, scan.trace.roll(20 * k, -2))
        assert torch.allclose(turned.ma, rotate(scan.ma, k), atol=1e-6)
        assert torch.allclose(turned.li, rotate(scan.li, k), atol=1e-6)


def test_every_scan_has_noise_of_its_own(scanner, patient):
    mask = disc(SIZE, 3, (-5, 6))
    scans = scanner(patient, mask.expand(2, -1, -1), generator=seeded())
    assert not torch.equal(scans.ma[0], scans.ma[1])
    again = scanner(patient, mask.expand(2, -1, -1), generator=seeded())
    assert torch.equal(scans.ma, again.ma)


def test_nmar_of_a_scan_is_better_than_its_artifacts(scanner, patient):
    mask = disc(SIZE, 5, (-8, 4))
    scan = scanner(patient, mask[None], generator=seeded())
    image, y = nmar_image(
        scan.ma_sinogram[0], scan.trace[0], scanner.projector.project, scanner.fbp, mask
    )
    clean, _ = scanner.scan(patient, generator=seeded())
    beside = disc(SIZE, 22) & ~mask

    def error(x):
        return float((x - clean)[beside].square().mean())

    assert error(image) < error(scan.ma[0])
    assert torch.equal(y[~scan.trace[0]], scan.ma_sinogram[0][~scan.trace[0]])


def test_two_metals_at_once(scanner, patient):
    quiet = scanner.variant(noise=False, hardening=False)
    left, right = disc(SIZE, 3, (-8, 4)), disc(SIZE, 2, (9, -6))
    one = quiet(patient, (left | right)[None])
    same = quiet.scan_metals(
        patient, [{"titanium": left | right}, {"titanium": left, "gold": right}]
    )
    assert torch.equal(one.ma[0], same.ma[0]) and torch.equal(one.trace[0], same.trace[0])
    assert torch.equal(same.trace[0], same.trace[1])
    # Gold takes more, and only on the rays that meet it.
    more = same.ma_sinogram[1] - same.ma_sinogram[0]
    meets = scanner.projector.project(right.float()) > 0
    assert more[meets].min() > 0 and torch.equal(more != 0, meets)
    ours = MATERIALS["gold"]
    beam = open_beam(materials={"mine": ours})
    mine = quiet.variant(beam=beam)
    again = mine.scan_metals(patient, [{"titanium": left, "mine": right}])
    assert torch.equal(again.ma[0], same.ma[1])
    for bad, message in (
        ([], "the implants of at least one scan, got none"),
        ([{}], "scan 0 has no metal"),
        ([{"titanium": left, "gold": left}], r"pixels of scan 0 hold two metals at once"),
        ([{"wood": left}], "expected one of .* got 'wood'"),
    ):
        for scan in (quiet.scan_metals, quiet.scan_all):
            with pytest.raises(ValueError, match=message):
                scan(patient, bad)


def test_all_scans_at_once_are_those_one_after_the_other(scanner, patient):
    metals = [{"titanium": disc(SIZE, 3, (-8, 4))}, {"gold": disc(SIZE, 2, (9, -6))}]
    image, sinogram, scans = scanner.scan_all(patient, metals, generator=seeded(3))
    g = seeded(3)
    apart = *scanner.scan(patient, generator=g), *scanner.scan_metals(patient, metals, generator=g)
    assert all(torch.equal(a, b) for a, b in zip((image, sinogram, *scans), apart, strict=True))
    quiet = scanner.variant(noise=False)
    mu = patient.clone().requires_grad_()
    quiet.scan_metals(mu, metals).ma.sum().backward()
    assert mu.grad is not None and mu.grad.abs().sum() > 0


def test_metal_that_takes_every_photon_stays_dark(scanner, patient):
    quiet = scanner.variant(noise=False)
    block = disc(SIZE, 9, (-6, 4))
    gold, titanium = quiet.scan_metals(patient, [{"gold": block}, {"titanium": block}]).ma_sinogram
    # The correction of beam hardening is a cubic that falls again far beyond what can be counted.
    assert gold.min() > -1e-3 and (gold >= titanium - 1e-4).all()
    assert gold.max() < 1.1 * math.log(scanner.protocol.photons)


def test_current_and_electronics_make_noise(scanner, patient):
    def noise(**how):
        noisy = scanner.variant(hardening=False, scatter=0.0, photons=1e4, **how)
        quiet = noisy.variant(noise=False)
        a, b = (s.scan(patient, generator=seeded())[1] for s in (noisy, quiet))
        return (a - b)[:, :3]  # air: 10^4 photons arrive

    usual, weak = noise(), noise(current=0.25)
    assert float(usual.std()) == pytest.approx(0.01, rel=0.15)
    assert float(weak.std() / usual.std()) == pytest.approx(2, rel=0.15)
    # 100 from the photons, 300 from the electronics.
    assert float(noise(electronic=300.0).std()) == pytest.approx(0.0316, rel=0.15)
    with pytest.raises(ValueError, match="electronic must lie in .*, got -1"):
        measure(torch.ones(3), 100.0, electronic=-1.0)


def test_materials_by_composition_and_density():
    energies = np.array([40.0, 70.0, 100.0])
    steel, iron = mass_attenuation("steel", energies), mass_attenuation("iron", energies)
    assert np.all(np.abs(steel / iron - 1) < 0.12)
    assert named("Ti") == "titanium" and named("316L") == "steel" and named("AMALGAM") == "amalgam"
    own = {"Nitinol": ({"Ni": 0.55, "Ti": 0.45}, 6.45)}
    assert named("Nitinol", own) == "Nitinol"
    beam = open_beam(materials=own)
    share = 0.55 * mass_attenuation(({"Ni": 1.0}, 1.0), energies[1:2])
    share = share + 0.45 * mass_attenuation("titanium", energies[1:2])
    assert beam.mu("Nitinol") == pytest.approx(6.45 * float(share[0]))
    for name, material, message in (
        (
            "x",
            ({"Xx": 1.0}, 1.0),
            r"material 'x': expected parts by mass of elements .* got \['Xx'\]",
        ),
        ("x", ({}, 1.0), "got none"),
        ("x", ({"Fe": -1.0}, 1.0), "expected positive parts by mass"),
        ("x", ({"Fe": 1.0}, 80.0), r"a density in \(0, 23\] g/cm\^3, got 80.0"),
    ):
        with pytest.raises(ValueError, match=message):
            open_beam(materials={name: material})
    with pytest.raises(ValueError, match="or one of your own protocol, got 'unobtainium'"):
        named("unobtainium")


@pytest.mark.parametrize(
    ("alloy", "rest", "ranges", "density"),
    [  # per cent by mass; the lightest and the heaviest that data sheets give
        (
            "316L",
            "Fe",
            {"Cr": (17, 19), "Ni": (13, 15), "Mo": (2.25, 3), "Mn": (0, 2)},
            (7.9, 8.0),
        ),  # F138
        ("CoCr", "Co", {"Cr": (27, 30), "Mo": (5, 7), "Mn": (0, 1)}, (8.29, 8.4)),  # F75
        ("Ti64", "Ti", {"Al": (5.5, 6.5), "V": (3.5, 4.5)}, (4.42, 4.43)),  # F136
    ],
)
def test_alloys_are_the_middle_of_their_standard(alloy, rest, ranges, density):
    parts, heavy = MATERIALS[named(alloy)]
    middle = {element: sum(limits) / 200 for element, limits in ranges.items()}
    assert dict(parts) == pytest.approx({rest: 1 - sum(middle.values()), **middle})
    assert density[0] <= heavy <= density[1]


def test_elements_weigh_what_xraydb_says():
    xraydb = pytest.importorskip("xraydb")
    pure = {name: m for name, m in MATERIALS.items() if len(m[0]) == 1}
    assert {"titanium", "iron", "copper", "gold", "aluminium"} == set(pure)
    for name, (parts, density) in pure.items():
        assert density == pytest.approx(xraydb.atomic_density(*parts), rel=2e-3), name


def test_a_thicker_filter_hardens():
    energies = np.arange(20.0, 121.0)

    def mean(filters):
        return float((energies * tube_spectrum(energies, 120.0, filters)).sum())

    assert mean({"aluminium": 0.39}) == mean(None)
    assert mean({"aluminium": 0.2}) < mean(None) < mean({"aluminium": 0.39, "copper": 0.02})
    with pytest.raises(ValueError, match="a thickness in cm of copper, got -1"):
        tube_spectrum(energies, 120.0, {"copper": -1.0})


def test_the_preset_and_its_errors():
    with pytest.raises(ValueError, match="presets are \"syndeeplesion\", got 'adn'"):
        Scanner.preset("adn")
    textbook = Scanner(small_fan(16, 8), protocol=Protocol(fbp="published")).variant(fbp="textbook")
    assert textbook.fbp.method == "textbook"
    for setting, message in (
        ({"metal": "wood"}, "metal must be one of .* got 'wood'"),
        ({"edge": 2}, "edge must be a positive odd number, got 2"),
        ({"photons": 0.0}, r"photons must be finite, in \[1, 1e\+15\], got 0.0"),
        ({"edge_share": 2.0}, r"edge_share must be finite, in \[0, 1\], got 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Protocol(**setting)


def test_scanner_says_what_it_expects(scanner, patient):
    mask = disc(SIZE, 3)[None]
    full, none = torch.ones_like(mask), torch.zeros_like(mask)
    corner = none.clone()
    corner[0, 0, 0] = True
    nan, negative = patient.clone(), patient.clone()
    nan[3, 3], negative[3, 3] = math.nan, -0.1
    for image, masks, message in (
        (patient, torch.cat([mask, none]), "mask 1 holds no metal"),
        (patient, full, "mask 0 is metal everywhere"),
        (patient, corner, "mask 0 has 1 pixels outside the circle that every view sees"),
        (patient, mask[:, 1:], r"masks \(M, 64, 64\) as large as the image, got \(1, 63, 64\)"),
        (patient, mask[0], r"got \(64, 64\)"),
        (nan, mask, "expected finite attenuation, got 1 pixels with NaN or Inf"),
        (negative, mask, "attenuation cannot be negative, got -0.1 1/cm"),
        (
            1000 * (patient / 0.192),
            mask,
            r"attenuation in 1/cm, water is 0.192, got values in \[0, ",
        ),
        (patient[None], mask, r"one slice \(H, W\), got shape \(1, 64, 64\)"),
        (patient[1:], mask, r"last sides \(64, 64\), got shape \(63, 64\)"),
    ):
        with pytest.raises(ValueError, match=message):
            scanner(image, masks)
    with pytest.raises(TypeError, match="bool masks, got torch.float32"):
        scanner(patient, mask.float())
    with pytest.raises(ValueError, match="attenuation cannot be negative"):
        scanner.scan(negative)


def test_images_in_hu_are_not_judged_as_attenuation(patient):
    """All of a body is white in the display images then, and 10 HU would count as 52 000."""
    metal, hu = disc(SIZE, 3), mu_to_hu(patient)
    for judge in (mar_psnr, mar_ssim, rmse_hu):
        with pytest.raises(
            ValueError, match=r"truth: expected attenuation in 1/cm, .* got values in \[-1000, "
        ):
            judge(hu + 10, hu, metal)
        judge(
            patient, torch.where(metal, math.nan, patient), metal
        )  # nobody knows it inside the metal


def test_every_view_sees_what_is_in_view():
    for geometry in (small_fan(SIZE, 80), ParallelBeam(SIZE, 80, 65)):
        c = np.arange(SIZE) - (SIZE - 1) / 2
        position, _ = geometry.project(c[:, None, None], c[:, None], geometry.angles)
        seen = ((position > -0.5) & (position < geometry.bins - 0.5)).all(-1)
        assert seen[in_view(geometry).numpy()].all()
