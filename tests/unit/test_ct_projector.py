"""Scanner geometry, line integrals, their transpose, reconstruction, and the matrices on disk."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from eqreg import C4, C8, D4, rotate
from eqreg.extras import require
from eqreg.physics.ct import (
    FBP,
    FanBeam,
    ParallelBeam,
    Projector,
    cache,
    projector,
    small_fan,
    syndeeplesion,
)
from eqreg.physics.ct import geometry as geo
from eqreg.physics.ct._matrix import CSR, joseph
from eqreg.physics.ct.fbp import _parker

PARALLEL = ParallelBeam(size=61, views=72, bins=61)
FAN = small_fan(61, views=72)
BEAMS = pytest.mark.parametrize("geometry", [PARALLEL, FAN], ids=["parallel", "fan"])


CURVED = replace(FAN, curved=True)
ALL = pytest.mark.parametrize(
    "geometry",
    [
        CURVED,
        replace(FAN, views=74),
        replace(FAN, views=73),
        replace(FAN, short=True),
        replace(CURVED, views=50, short=True),
        replace(PARALLEL, views=71),
    ],
    ids=["curved", "halves", "odd", "short", "curved short", "parallel odd"],
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n=61):
    """A smooth image without any symmetry."""
    c = torch.arange(n) - (n - 1) / 2

    def blob(x, y, s):
        return torch.exp(-((c[:, None] - x) ** 2 + (c - y) ** 2) / (2 * s**2))

    return blob(5, -9, 6) + 0.7 * blob(-12, 4, 3) + 0.5 * blob(3, 10, 4)


def disc(n, radius):
    c = torch.arange(n) - (n - 1) / 2
    return (c[:, None] ** 2 + c**2 < radius**2).float()


def relative(a, b):
    return float((a - b).norm() / b.norm())


# ---- geometry


def test_the_published_scanner():
    scanner = syndeeplesion()
    assert (scanner.size, scanner.views, scanner.bins) == (416, 640, 641)
    assert scanner.pitch / 2 == pytest.approx(0.9178, abs=1e-4)  # at the centre, in pixels
    assert scanner.size * scanner.pixel == pytest.approx(15.36)
    assert scanner.angles[0] == pytest.approx(math.pi / 640)
    assert scanner.cells[320] == 0
    assert small_fan(416, 640) == scanner


def test_rays_go_from_the_source_to_the_cells():
    start, direction = FAN.rays(0.3)
    assert np.allclose(start, FAN.source * np.array([math.sin(0.3), -math.cos(0.3)]))
    assert np.allclose(np.linalg.norm(direction, axis=1), 1)
    middle = FAN.bins // 2
    assert np.allclose(direction[middle], [-math.sin(0.3), math.cos(0.3)])


@BEAMS
def test_points_on_a_ray_fall_on_its_cell(geometry):
    for phi in (0.1, 1.2, 4.0):
        start, direction = geometry.rays(phi)
        for t in (1.0, 30.0):
            x, y = (start + t * direction).T
            position, _ = geometry.project(x, y, np.full(len(x), phi))
            assert np.allclose(position, np.arange(geometry.bins))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": 3}, "expected at least 4 views, got 3"),
        ({"bins": 300, "curved": True}, "300 cells of 1 pixels see half a turn or more"),
        ({"size": 0}, "size must be a positive integer, got 0"),
        ({"bins": 10.5}, "bins must be a positive integer, got 10.5"),
        ({"pitch": -1.0}, "pitch must be positive and finite, got -1.0"),
        ({"pixel": math.nan}, "pixel must be positive and finite, got nan"),
        (
            {"source": 10.0},
            r"source must be .* beyond the image's corners \(11.3 pixels\), got 10.0",
        ),
        ({"detector": math.inf}, "detector must be a finite distance .* got inf"),
    ],
)
def test_geometry_refuses_impossible_scanners(change, message):
    with pytest.raises(ValueError, match=message):
        FanBeam(**{"size": 16, "views": 8, "bins": 9, "source": 40.0, "detector": 40.0, **change})


def test_turning_a_sinogram():
    y = torch.arange(16.0).reshape(8, 2)
    assert torch.equal(geo.turn_sinogram(y, 1, C4), y.roll(2, 0))
    assert torch.equal(geo.turn_sinogram(y, 3, C8), y.roll(3, 0))
    mirrored = geo.turn_sinogram(y, D4.element((0, 1)), D4)
    assert torch.equal(mirrored, y.flip(0, 1).roll(4, 0))
    with pytest.raises(ValueError, match="divisible by 8 for C8, got 12"):
        geo.turn_sinogram(torch.zeros(12, 3), 1, C8)


@ALL
def test_other_scanners_project_points_onto_their_rays(geometry):
    for phi in (0.1, 1.2, 4.0):
        start, direction = geometry.rays(phi)
        x, y = (start + 30.0 * direction).T
        position, _ = geometry.project(x, y, np.full(len(x), phi))
        assert np.allclose(position, np.arange(geometry.bins))
    assert geometry.span == pytest.approx(
        math.pi + 2 * geometry.half_fan if getattr(geometry, "short", False) else 2 * math.pi
    )


# ---- the projector


@ALL
def test_other_scanners_are_transposed_and_reconstruct(geometry):
    projector = Projector(geometry, dtype=torch.float64)
    x, y = (
        torch.rand(s, generator=seeded(), dtype=torch.float64)
        for s in ((61, 61), (geometry.views, geometry.bins))
    )
    forth, back = (projector.project(x) * y).sum(), (x * projector.backproject(y)).sum()
    assert abs(float(forth - back)) < 1e-10 * abs(float(forth))
    smooth = blobs().double()
    again = FBP(geometry, dtype=torch.float64)(projector.project(smooth))
    usual = FAN if isinstance(geometry, FanBeam) else PARALLEL
    before = FBP(usual, dtype=torch.float64)(Projector(usual, dtype=torch.float64).project(smooth))
    assert relative(again, smooth) < 1.1 * relative(before, smooth)


@ALL
def test_the_turns_that_are_exact_are_told(geometry):
    project = Projector(geometry).project
    x = torch.rand(61, 61, generator=seeded())
    turns = geometry.turns
    assert turns == {72: 4, 74: 2}.get(geometry.views, 1) or geometry.short
    for k in range(1, turns):
        rolled = project(x).roll(k * geometry.views // turns, -2)
        assert torch.equal(project(rotate(x, k * 4 // turns)), rolled)


def test_parker_shares_out_every_ray():
    for curved in (False, True):
        geometry = replace(FAN, short=True, curved=curved, views=4000)
        weights = _parker(geometry)
        gamma = np.arctan(geometry.cells / (geometry.source + geometry.detector))
        if curved:
            gamma = geometry.cells / (geometry.source + geometry.detector)
        for cell in (3, 20, 40):
            again = geometry.angles + np.pi - 2 * gamma[cell]
            twice = again < geometry.angles[-1]
            mirrored = np.interp(again[twice], geometry.angles, weights[:, -1 - cell])
            assert twice.any() and np.allclose(weights[twice, cell] + mirrored, 1, atol=2e-3)


@BEAMS
def test_disc_has_its_chords(geometry):
    n, radius = geometry.size, 20.0
    fine = disc(8 * n, 8 * radius).reshape(n, 8, n, 8).mean((1, 3))
    y = Projector(geometry, cache=False).project(fine) / geometry.pixel
    start, direction = geometry.rays(geometry.angles[0])
    distance = np.abs(start[:, 0] * direction[:, 1] - start[:, 1] * direction[:, 0])
    chord = torch.from_numpy(2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None))).float()
    inside = torch.from_numpy(distance < radius - 2)
    assert (y[:, inside] - chord[inside]).abs().max() < 0.4
    assert relative(y.mean(0)[inside], chord[inside]) < 0.005


@BEAMS
def test_a_quarter_turn_rolls_the_views_bit_by_bit(geometry):
    a = Projector(geometry, cache=False)
    x = torch.rand(3, 61, 61, generator=seeded())
    y, z = a.project(x), a.backproject(a.project(x))
    for k in (1, 2, 3):
        assert torch.equal(a.project(rotate(x, k)), geo.turn_sinogram(y, k, C4))
        assert torch.equal(a.backproject(geo.turn_sinogram(y, k, C4)), rotate(z, k))


@BEAMS
def test_a_mirror_reverses_views_and_cells(geometry):
    a = Projector(geometry, cache=False)
    x = torch.rand(61, 61, generator=seeded())
    mirrored = geo.turn_sinogram(a.project(x), (0, 1), D4)
    assert relative(a.project(x.flip(-1)), mirrored) < 2e-3  # weights at ties round the other way


@BEAMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backprojection_is_the_transpose(geometry, dtype):
    a = Projector(geometry, cache=False, dtype=dtype)
    x = torch.randn(2, 61, 61, generator=seeded(), dtype=dtype)
    y = torch.randn(2, geometry.views, geometry.bins, generator=seeded(1), dtype=dtype)
    left, right = (a.project(x).double() * y).sum(), (x.double() * a.backproject(y)).sum()
    scale = a.project(x).double().norm() * y.double().norm()
    assert abs(left - right) / scale < (1e-6 if dtype == torch.float32 else 1e-14)


def test_gradients_in_both_directions():
    a = Projector(ParallelBeam(size=4, views=4, bins=5), cache=False, dtype=torch.float64)
    x = torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(a.project, x)
    assert torch.autograd.gradgradcheck(a.project, x)
    y = torch.rand(1, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(a.backproject, y)


def test_batches_are_their_images():
    a = Projector(PARALLEL, cache=False)
    x = torch.rand(2, 3, 61, 61, generator=seeded())
    y = a.project(x)
    assert y.shape == (2, 3, 72, 61)
    assert torch.equal(y[1, 2], a.project(x[1, 2]))
    assert a.project(x[:0]).shape == (0, 3, 72, 61)


@BEAMS
def test_images_that_are_almost_empty_are_projected_bit_by_bit(geometry, monkeypatch):
    """200 pixels have strips; what lies on their edges, in corners and apart is found in each of them."""
    beam = replace(geometry, size=200, **({"source": 900.0} if geometry is FAN else {}))
    a = Projector(beam, cache=False)
    assert len(a._csr.pointers) - 1 == 2 * a._shape[0]
    x = torch.zeros(20, 200, 200)
    places = torch.randint(200, (20, 9, 2), generator=seeded())
    for image, at in zip(x, places, strict=True):
        image[at[:, 0], at[:, 1]] = torch.randn(9, generator=seeded(len(at)))
    x[3] = 0
    x[4, 99:101, 99:101], x[5, 0, 0], x[6, -1, 99], x[7] = 1.0, -1.0, 2.0, torch.rand(200, 200)
    y = a.project(x)
    assert a._cut is not None and len(a._cut) == 2
    monkeypatch.setattr(projector, "SPARSE", -1)
    assert torch.equal(y, a.project(x)) and not y[3].any()


def test_radon_of_scikit_image_agrees():
    transform = require("skimage.transform", extra="tasks")
    x = blobs() * disc(61, 29)
    y = Projector(PARALLEL, cache=False).project(x)
    theirs = transform.radon(x.numpy(), np.rad2deg(PARALLEL.angles) + 270, circle=True)
    assert relative(y, torch.from_numpy(theirs.T.copy())) < 2e-3


def test_fan_beam_of_deepinv_agrees():
    deepinv = require("deepinv", extra="tasks")
    # Its grid has ceil(61 sqrt 2) = 87 nodes from border to border, hence the spacing. It adds up planes
    # across the central ray and leaves out that oblique rays are longer between two of them.
    theirs = deepinv.physics.Tomography(
        angles=torch.rad2deg(torch.from_numpy(FAN.angles)).float(),
        img_width=61,
        circle=False,
        fan_beam=True,
        normalize=False,
        fan_parameters={
            "pixel_spacing": 86 / 87,
            "source_radius": FAN.source,
            "detector_radius": FAN.detector,
            "n_detector_pixels": FAN.bins,
            "detector_spacing": FAN.pitch,
        },
    )
    oblique = torch.from_numpy(np.hypot(1, FAN.cells / (FAN.source + FAN.detector))).float()
    expected = theirs(blobs()[None, None])[0, 0].T * oblique * FAN.pixel
    assert relative(Projector(FAN, cache=False).project(blobs()), expected) < 1e-3


def test_projector_says_what_it_expects():
    a = Projector(PARALLEL, cache=False)
    with pytest.raises(ValueError, match=r"last sides \(61, 61\), got shape \(1, 60, 61\)"):
        a.project(torch.zeros(1, 60, 61))
    with pytest.raises(ValueError, match=r"views, bins\) with last sides \(72, 61\), got shape"):
        a.backproject(torch.zeros(61, 61))
    with pytest.raises(TypeError, match="float tensor .* got torch.int64"):
        a.project(torch.zeros(61, 61, dtype=torch.long))
    with pytest.raises(ValueError, match="is on cpu, the tensor on meta"):
        a.project(torch.zeros(61, 61, device="meta"))
    with pytest.raises(TypeError, match="float32 or float64, got torch.float16"):
        Projector(PARALLEL, cache=False, dtype=torch.float16)


# ---- filtered back-projection


@BEAMS
def test_textbook_reconstruction_is_unbiased(geometry):
    n = 128
    geometry = ParallelBeam(n, 200, 181) if geometry is PARALLEL else small_fan(n, 200)
    truth = 0.2 * disc(n, 40)
    x = FBP(geometry)(Projector(geometry, cache=False).project(truth))
    assert float(x[disc(n, 36) > 0].mean()) == pytest.approx(0.2, rel=2e-3)
    ring = (disc(n, 55) - disc(n, 44)) > 0
    assert abs(float(x[ring].mean())) < 1e-3
    assert float((x - truth)[disc(n, 36) > 0].square().mean().sqrt()) < 0.01


def test_published_reconstruction_has_its_bias():
    geometry = small_fan(128, 200)
    y = Projector(geometry, cache=False).project(0.192 * disc(128, 40))
    x = FBP(geometry, "published")(y)
    hu = (x[disc(128, 30) > 0].mean() - 0.192) / 0.192 * 1000
    assert 1 < float(hu) < 10


@pytest.mark.parametrize("method", ["textbook", "published"])
def test_reconstruction_commutes_with_quarter_turns(method):
    fbp = FBP(FAN, method)
    y = torch.rand(2, 72, FAN.bins, generator=seeded())
    for k in (1, 3):
        assert torch.equal(fbp(geo.turn_sinogram(y, k, C4)), rotate(fbp(y), k))


def test_reconstruction_of_many_is_that_of_each():
    fbp = FBP(FAN)
    y = torch.rand(2, 3, 72, FAN.bins, generator=seeded())
    assert torch.equal(fbp(y)[1, 2], fbp(y[1, 2])) and fbp(y).shape == (2, 3, 61, 61)
    assert fbp(y[:0]).shape == (0, 3, 61, 61)


def test_reconstruction_is_differentiable():
    fbp = FBP(small_fan(8, 8), dtype=torch.float64)
    bins = fbp.geometry.bins
    y = torch.rand(8, bins, dtype=torch.float64, generator=seeded(), requires_grad=True)
    assert torch.autograd.gradcheck(fbp, y)


def test_reconstruction_says_what_it_expects():
    with pytest.raises(ValueError, match=r"one of \('textbook', 'published'\), got 'ramp'"):
        FBP(FAN, "ramp")
    with pytest.raises(ValueError, match="published method is one for fan beams"):
        FBP(PARALLEL, "published")
    with pytest.raises(ValueError, match=re.escape(f"(72, {FAN.bins}), got shape (3, 3)")):
        FBP(FAN)(torch.zeros(3, 3))
    for geometry in (CURVED, replace(FAN, short=True)):
        with pytest.raises(
            ValueError, match="a whole turn and a flat detector, got .*; take textbook"
        ):
            FBP(geometry, "published")


# ---- matrices on disk


@pytest.fixture
def keep_all(monkeypatch):
    monkeypatch.setattr(cache, "_WORTH_KEEPING", 0)


def stored(folder):
    return list(folder.glob("*.safetensors"))


def test_matrices_are_kept_and_read_again(tmp_path, keep_all):
    x = torch.rand(61, 61, generator=seeded())
    first = Projector(FAN, cache=tmp_path).project(x)
    (path,) = stored(tmp_path)
    assert list(tmp_path.iterdir()) == [path], "no temporary file is left"

    def never(geometry):
        raise AssertionError("built although it was kept")

    again = cache.cached("joseph", FAN, never, tmp_path)
    assert all(np.array_equal(a, b) for a, b in zip(again, joseph(FAN), strict=True))
    assert torch.equal(Projector(FAN, cache=str(tmp_path)).project(x), first)
    Projector(PARALLEL, cache=tmp_path)
    assert len(stored(tmp_path)) == 2, "another scanner has another file"


@pytest.mark.parametrize("damage", ["truncate", "flip", "other"])
def test_damaged_matrices_are_built_anew(tmp_path, keep_all, damage):
    Projector(FAN, cache=tmp_path)
    (path,) = stored(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        content = content[:-100]
    elif damage == "flip":
        content[len(content) // 2] ^= 1
    else:  # a sound file, but of another matrix
        Projector(PARALLEL, cache=tmp_path / "other")
        content = stored(tmp_path / "other")[0].read_bytes()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged and is built anew"):
        a = Projector(FAN, cache=tmp_path)
    x = torch.rand(61, 61, generator=seeded())
    assert torch.equal(a.project(x), Projector(FAN, cache=False).project(x))
    Projector(FAN, cache=tmp_path)  # no warning: the sound matrix was stored


@pytest.mark.parametrize("wrong", ["column", "negative", "pointer", "order", "rows", "type"])
def test_indices_that_point_outside_are_refused(tmp_path, keep_all, wrong):
    """With a right checksum: whoever wrote the file could write that too."""
    Projector(FAN, cache=tmp_path)
    (path,) = stored(tmp_path)
    with safe_open(path, framework="np") as file:
        key = file.metadata()["key"]
    pointers, columns, values = (a.copy() for a in joseph(FAN))
    if wrong in ("column", "negative"):
        columns[7] = FAN.size**2 if wrong == "column" else -1
    elif wrong in ("pointer", "order"):
        pointers[-1 if wrong == "pointer" else 3] += 10**6
    elif wrong == "rows":
        pointers = pointers[1:]
    else:
        columns = columns.astype(np.int64)
    cache._write(path, key, CSR(pointers, columns, values))
    with pytest.warns(
        UserWarning, match="is damaged and is built anew: expected .* rows whose indices"
    ):
        a = Projector(FAN, cache=tmp_path)
    x = torch.rand(61, 61, generator=seeded())
    assert torch.equal(a.project(x), Projector(FAN, cache=False).project(x))


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, keep_all):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="could not keep a matrix for later"):
        Projector(FAN, cache=tmp_path / "file" / "folder")


def test_where_matrices_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("EQREG_CACHE", str(tmp_path))
    assert cache.cache_folder() == tmp_path
    Projector(FAN)
    assert not list(tmp_path.iterdir()), "small matrices are not kept"
    monkeypatch.delenv("EQREG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / "eqreg"


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "replace", interrupted)
    matrix = CSR(np.zeros(2, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))
    with pytest.raises(KeyboardInterrupt):
        cache._write(tmp_path / "a.safetensors", "key", matrix)
    assert not list(tmp_path.iterdir())


def test_parts_that_killed_processes_left_go(tmp_path, keep_all):
    Projector(FAN, cache=tmp_path)
    (path,) = stored(tmp_path)
    path.rename(tmp_path / f"{path.name}.part-{2**22 + 1}")  # above the largest process number
    Projector(FAN, cache=tmp_path)
    assert list(tmp_path.iterdir()) == [path]
