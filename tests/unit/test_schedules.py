"""Schedules of a strength: values worked out by hand, limits, messages."""

import math

import pytest

from eqreg.soft.schedules import constant, decreasing, warm_up

ALL = (constant, warm_up, decreasing)


def test_constant_is_one():
    assert [constant(step, 4) for step in range(5)] == [1.0] * 5


@pytest.mark.parametrize(
    ("share", "values"),
    [
        (0.5, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (1.0, [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1]),
        (0.3, [0, 1 / 2.4, 2 / 2.4, 1, 1, 1, 1, 1, 1]),  # no whole number of steps
        (0.0, [1] * 9),
    ],
)
def test_warm_up_is_a_line_and_then_one(share, values):
    assert [warm_up(step, 8, share) for step in range(9)] == pytest.approx(values)


def test_warm_up_takes_a_tenth_by_default():
    assert warm_up(5, 100) == pytest.approx(0.5) and warm_up(10, 100) == 1


def test_decreasing_is_half_a_cosine():
    half = math.sqrt(0.5)
    expected = [1, (1 + half) / 2, 0.5, (1 - half) / 2, 0]
    assert [decreasing(step, 4) for step in range(5)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", ALL)
def test_values_are_plain_numbers_in_the_unit_interval(schedule):
    for steps in (1, 2, 7, 1000):
        for step in range(steps + 1):
            value = schedule(step, steps)
            assert isinstance(value, float) and 0 <= value <= 1


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(("step", "steps"), [(-1, 10), (11, 10), (0, 0), (1, -1)])
def test_steps_out_of_range(schedule, step, steps):
    message = (
        f"{schedule.__name__}: expected 0 <= step <= steps and steps >= 1, got {step}, {steps}"
    )
    with pytest.raises(ValueError, match=message):
        schedule(step, steps)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match=rf"warm_up: share must lie in \[0, 1\], got {share}"):
        warm_up(1, 10, share)
