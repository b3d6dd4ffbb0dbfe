"""The forest plot says what the contrasts say."""

import math

import numpy as np
import pytest

from eqreg.measure.contrasts import Contrast, contrasts
from eqreg.viz.forest import forest

RAIN = [
    Contrast("eqreg", "pairs", 0.05, 0.08, 0.4, 0.06, "equivalent"),
    Contrast("eqreg", "augmentation", 0.40, 0.10, 0.001, 0.20, "gain"),
    Contrast("eqreg", "strict-equal", -0.2, 0.3, 0.9, math.nan, "undecided"),
]
DIGITS = [Contrast("eqreg", "pairs", -0.020, 0.004, 0.001, 0.010, "loss")]
MARGINS = {"rain": 0.15, "digits": 0.005}


def drawn(**units):
    return forest({"rain": RAIN, "digits": DIGITS}, MARGINS, **units)


def thick(ax):
    """Ends of the intervals over seeds, from top to bottom."""
    lines = [line for line in ax.lines if line.get_linewidth() == 3]
    lines.sort(key=lambda line: line.get_ydata()[0])
    return [tuple(np.round(line.get_xdata(), 6)) for line in lines]


def test_every_task_has_its_panel_rows_and_words():
    rain, digits = drawn().axes
    assert rain.get_title(loc="left") == "rain, dB (±0.15)"
    assert [t.get_text() for t in rain.get_yticklabels()] == [
        "eqreg − pairs", "eqreg − augmentation", "eqreg − strict-equal",
    ]  # fmt: skip
    assert [t.get_text() for t in rain.texts] == ["equivalent", "gain", "undecided"]
    assert [t.get_text() for t in digits.texts] == ["loss"]
    top, bottom = rain.get_ylim()[::-1]
    assert top < bottom  # the first contrast stands on top


def test_bars_of_many_contrasts_are_all_solid():
    """A curve with a colour of its own takes its style from the cycle, whose ninth is dashed."""
    (ax,) = forest({"digits": 12 * DIGITS}, MARGINS).axes
    assert len(thick(ax)) == 12
    assert {line.get_linestyle() for line in ax.lines if line.get_linewidth() == 3} == {"-"}


def test_both_intervals_and_the_margin_are_where_they_belong():
    rain, digits = drawn(units={"digits": ("points", 100.0)}).axes
    assert thick(rain) == [(-0.03, 0.13), (0.3, 0.5), (-0.5, 0.1)]
    assert thick(digits) == [(-2.4, -1.6)]
    segments = [np.round(s[:, 0], 6).tolist() for c in rain.collections for s in c.get_segments()]
    assert segments == [[-0.01, 0.11], [0.2, 0.6]]  # the third has no images
    for ax, margin in ((rain, 0.15), (digits, 0.5)):
        box = ax.patches[0].get_extents().transformed(ax.transData.inverted())
        assert (box.x0, box.x1) == pytest.approx((-margin, margin))
        low, high = ax.get_xlim()
        assert low == -high and high > margin
    assert digits.get_title(loc="left") == "digits, points (±0.5)"


def test_a_reach_holds_the_axis_and_a_wrong_one_is_refused():
    rain, digits = drawn(units={"digits": ("points", 100.0)}, reach={"digits": 0.03}).axes
    assert digits.get_xlim() == pytest.approx((-3, 3)) and rain.get_xlim()[1] == pytest.approx(0.66)
    for wrong in ({"digits": 0.0}, {"digit": 1.0}):
        with pytest.raises(ValueError, match="positive reaches of rain, digits, got"):
            drawn(reach=wrong)


def test_what_is_undecided_is_told_apart_without_colours():
    rain, _ = drawn().axes
    dots = [line for line in rain.lines if line.get_marker() == "o"]
    filled = [line.get_markerfacecolor() != "white" for line in dots]
    assert filled == [True, True, False]


def test_it_takes_what_contrasts_gives():
    g = np.random.default_rng(0)
    table = {
        m: (30 + shift + 0.1 * g.standard_normal(6)).tolist() for m, shift in (("a", 1), ("b", 0))
    }
    found = contrasts(table, [("a", "b")], margin=0.15)
    (ax,) = forest({"a task": found}, {"a task": 0.15}).axes
    assert ax.texts[0].get_text() == "gain"
    low, high = thick(ax)[0]
    assert (low + high) / 2 == pytest.approx(found[0].mean, abs=1e-5)


@pytest.mark.parametrize(
    ("tasks", "margins", "message"),
    [
        ({}, {}, "at least one task, got none"),
        ({"rain": []}, MARGINS, "contrasts of rain, got none"),
        ({"snow": RAIN}, MARGINS, "a positive margin of snow, got None"),
        ({"rain": RAIN}, {"rain": 0.0}, "a positive margin of rain, got 0.0"),
        ({"rain": [Contrast("a", "b", math.nan, 1.0, 1.0, 1.0, "gain")]}, MARGINS, "finite numbers for a - b of rain"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named(tasks, margins, message):
    with pytest.raises(ValueError, match=message):
        forest(tasks, margins)
