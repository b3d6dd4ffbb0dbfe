"""Laws of the scanner that hold for every geometry, image and trace."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eqreg import C4, D4, rotate
from eqreg.physics.ct import (
    FBP,
    FanBeam,
    ParallelBeam,
    Projector,
    _matrix,
    correct,
    hu_to_mu,
    interpolate_trace,
    mu_to_hu,
    nmar,
    open_beam,
    polychromatic,
    small_fan,
    turn_sinogram,
    water_correction,
)

BEAM = open_beam()


@st.composite
def scanners(draw):
    size, views = draw(st.integers(2, 14)), 4 * draw(st.integers(1, 5))
    shared = {
        "size": size,
        "views": views,
        "bins": draw(st.integers(1, 24)),
        "pixel": draw(st.floats(0.1, 3)),
        "pitch": draw(st.floats(0.3, 3)),
    }
    if draw(st.booleans()):
        return ParallelBeam(**shared)
    reach = size * draw(st.floats(0.75, 5))
    return FanBeam(**shared, source=reach, detector=size * draw(st.floats(0.75, 5)))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


seeds = st.integers(0, 1000)


@given(geometry=scanners(), seed=seeds)
def test_the_transpose_is_the_transpose(geometry, seed):
    a = Projector(geometry, cache=False, dtype=torch.float64)
    g = seeded(seed)
    x = torch.randn(geometry.size, geometry.size, generator=g, dtype=torch.float64)
    y = torch.randn(geometry.views, geometry.bins, generator=g, dtype=torch.float64)
    left, right = (a.project(x) * y).sum(), (x * a.backproject(y)).sum()
    assert abs(left - right) <= 1e-12 * (1 + a.project(x).norm() * y.norm())


@given(geometry=scanners(), seed=seeds, k=st.integers(0, 3))
def test_turning_the_patient_turns_the_scan_bit_by_bit(geometry, seed, k):
    a = Projector(geometry, cache=False)
    x = torch.randn(2, geometry.size, geometry.size, generator=seeded(seed))
    y = a.project(x)
    assert torch.equal(a.project(rotate(x, k)), turn_sinogram(y, k, C4))
    assert torch.equal(a.backproject(turn_sinogram(y, k, C4)), rotate(a.backproject(y), k))
    fbp = FBP(geometry)
    assert torch.equal(fbp(turn_sinogram(y, k, C4)), rotate(fbp(y), k))


@given(geometry=scanners(), seed=seeds, k=st.integers(0, 3))
def test_eighths_answer_mirrored_patients_bit_by_bit_and_as_quarters_do(geometry, seed, k):
    """Mirror images share a matrix; the same scanner told to hold quarters is the judge."""
    eighths = replace(geometry, views=2 * geometry.views)
    assert eighths.mirrored and eighths.part == eighths.views // 8
    a, g = Projector(eighths, cache=False), D4.element((k, 1))
    x = torch.randn(2, geometry.size, geometry.size, generator=seeded(seed))
    y, mirrored = a.project(x), rotate(x.flip(-1), k)
    assert torch.equal(a.project(mirrored), turn_sinogram(y, g, D4))
    back = a.backproject(turn_sinogram(y, g, D4))
    assert torch.equal(back, rotate(a.backproject(y).flip(-1), k))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(eighths), "mirrored", False)
        b = Projector(eighths, cache=False)
        assert len(b._csr.values) >= len(a._csr.values)
        assert torch.allclose(b.project(x), y, atol=1e-4 * geometry.size * geometry.pixel)


@settings(max_examples=5)
@given(seed=seeds)
def test_strips_of_the_image_add_up(seed):
    geometry = small_fan(40, views=16)
    x, y = torch.rand(40, 40, generator=seeded(seed)), torch.rand(16, 63, generator=seeded(seed))
    whole = Projector(geometry, cache=False, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_matrix, "_STRIP", 300)
        a = Projector(geometry, cache=False, dtype=torch.float64)
        assert len(a._csr.pointers) - 1 == 5 * geometry.part * geometry.bins
    assert torch.allclose(a.project(x), whole.project(x), atol=1e-12)
    assert torch.allclose(a.backproject(y), whole.backproject(y), atol=1e-12)


@given(geometry=scanners(), seed=seeds)
def test_line_integrals_are_linear_and_not_negative(geometry, seed):
    a = Projector(geometry, cache=False, dtype=torch.float64)
    x, z = torch.rand(2, geometry.size, geometry.size, generator=seeded(seed)).double()
    both = a.project(2 * x + 3 * z)
    assert torch.allclose(both, 2 * a.project(x) + 3 * a.project(z))
    assert (both >= 0).all()
    # No ray is longer inside the image than its diagonal (and half a pixel around it).
    longest = (geometry.size + 1) * 2**0.5 * geometry.pixel
    assert a.project(torch.ones_like(x)).max() <= longest


@st.composite
def traces(draw):
    views, bins = draw(st.integers(1, 4)), draw(st.integers(2, 12))
    rows = st.lists(st.booleans(), min_size=bins, max_size=bins).filter(lambda row: not all(row))
    trace = torch.tensor(draw(st.lists(rows, min_size=views, max_size=views)))
    return trace


@given(trace=traces(), seed=seeds, slope=st.floats(-5, 5), start=st.floats(-5, 5))
def test_interpolation_is_exact_for_lines_between_their_ends(trace, seed, slope, start):
    line = (start + slope * torch.arange(trace.shape[-1])).double().expand(trace.shape)
    broken = torch.where(trace, torch.randn(trace.shape, generator=seeded(seed)).double(), line)
    repaired = interpolate_trace(broken, trace)
    known = ~trace
    between = (known.cumsum(-1) > 0) & (known.flip(-1).cumsum(-1).flip(-1) > 0)
    assert torch.allclose(repaired[between], line[between], atol=1e-9)
    assert torch.equal(repaired[known], broken[known])


@given(trace=traces(), seed=seeds)
def test_interpolation_is_a_linear_projection(trace, seed):
    y, z = torch.randn(2, *trace.shape, generator=seeded(seed), dtype=torch.float64)
    once = interpolate_trace(y, trace)
    assert torch.allclose(interpolate_trace(once, trace), once)
    assert torch.allclose(
        interpolate_trace(2 * y - z, trace), 2 * once - interpolate_trace(z, trace)
    )
    assert once.min() >= y[~trace].min() - 1e-12 and once.max() <= y[~trace].max() + 1e-12


@given(trace=traces(), seed=seeds)
def test_without_metal_nothing_changes(trace, seed):
    y = torch.rand(trace.shape, generator=seeded(seed)) + 0.1
    none = torch.zeros_like(trace)
    assert torch.equal(interpolate_trace(y, none), y)
    assert torch.equal(nmar(y, none, torch.rand(trace.shape, generator=seeded(seed))), y)


@given(
    p=st.lists(st.floats(0, 6), min_size=2, max_size=8),
    material=st.sampled_from(["water", "bone", "titanium", "gold"]),
)
@settings(max_examples=30)
def test_what_the_detector_sees_grows_and_bends_down(p, material):
    t = torch.tensor(sorted(p), dtype=torch.float64)
    seen = polychromatic({material: t}, BEAM)
    assert (seen.diff() >= -1e-12).all()
    middle = polychromatic({material: (t[:-1] + t[1:]) / 2}, BEAM)
    assert (middle >= (seen[:-1] + seen[1:]) / 2 - 1e-12).all(), "concave"
    mean = float((BEAM.weights * BEAM.relative(material)).sum())
    assert (seen <= mean * t + 1e-9).all(), "Jensen"


@given(p=st.floats(0, 8))
def test_the_correction_keeps_zero_and_order(p):
    c = water_correction(BEAM)
    a, b = correct(torch.tensor([p, p + 0.1], dtype=torch.float64), c)
    assert b > a
    assert float(correct(torch.zeros(1), c)) == 0


@given(hu=st.lists(st.floats(-1000, 30000, width=32), min_size=1, max_size=5))
def test_units_go_there_and_back(hu):
    t = torch.tensor(hu, dtype=torch.float64)
    assert torch.allclose(mu_to_hu(hu_to_mu(t)), t, atol=1e-6)
    assert (hu_to_mu(t) >= 0).all()
