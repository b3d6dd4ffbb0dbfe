"""Laws of the rain model that hold for every setting."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from eqreg import rotate
from eqreg.physics.rain import RainModel, add_rain, rain_streaks, streak_kernel

angles = st.floats(-180, 180)
models = st.builds(
    RainModel,
    angle=angles,
    spread=st.floats(0, 90),
    length=st.floats(0, 15),
    width=st.floats(0.1, 4),
    density=st.floats(0, 0.2),
    intensity=st.floats(0, 1),
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def kernel(angle, length, width):
    size = RainModel(length=length, width=width).kernel_size
    return streak_kernel(
        torch.tensor(angle, dtype=torch.float64), torch.tensor(length), width, size
    )


@given(angle=angles, length=st.floats(0, 20), width=st.floats(0.1, 4), k=st.integers(0, 3))
def test_turning_a_kernel_adds_to_its_angle(angle, length, width, k):
    turned = rotate(kernel(angle, length, width), k)
    assert torch.allclose(turned, kernel(angle + 90 * k, length, width), atol=1e-6)


@given(angle=angles, length=st.floats(0, 20), width=st.floats(0.1, 4))
def test_a_half_turn_changes_no_kernel_and_a_mirror_flips_its_angle(angle, length, width):
    c = kernel(angle, length, width)
    assert torch.allclose(rotate(c, 2), c, atol=1e-12)
    assert torch.allclose(c.flip(-1), kernel(-angle, length, width), atol=1e-12)


@given(model=models, seed=st.integers(0, 1000), clip=st.booleans())
def test_rain_is_never_negative_and_adds_up(model, seed, clip):
    b = torch.rand(2, 1, 12, 17, generator=seeded(seed))
    o, r = add_rain(b, model, clip=clip, generator=seeded(seed))
    assert (r >= 0).all()
    assert torch.equal(o, b + r)
    assert not clip or o.max() <= 1


@given(model=models, seed=st.integers(0, 1000))
def test_a_seed_is_a_rain(model, seed):
    first, second = (rain_streaks((1, 9, 9), model, generator=seeded(seed)) for _ in range(2))
    assert torch.equal(first, second)


@given(seed=st.integers(0, 1000), low=st.floats(0, 0.5), more=st.floats(0, 0.5))
def test_the_same_seed_rains_harder_at_higher_density(seed, low, more):
    # The same drops and further ones: every pixel gets at least as much.
    light, heavy = (
        rain_streaks((1, 16, 16), RainModel(density=d), generator=seeded(seed))
        for d in (low, low + more)
    )
    assert (heavy >= light - 1e-5).all()
