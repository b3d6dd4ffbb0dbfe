"""Verdicts: against scipy and least squares, and how often they are right on data with a known effect."""

import math

import numpy as np
import pytest
from scipy import stats

from eqreg.measure import contrasts, holm, layout


def draw(effects, seeds=8, seed_spread=1.0, error=0.3, rng=None):
    """A table with known effects: a seed moves all methods alike."""
    rng = rng or np.random.default_rng(0)
    blocks = seed_spread * rng.normal(size=seeds)
    return {
        name: (effect + blocks + error * rng.normal(size=seeds)).tolist()
        for name, effect in effects.items()
    }


def test_two_methods_are_the_paired_t_test():
    table = draw({"a": 0.4, "b": 0.0})
    (found,) = contrasts(table, [("a", "b")], margin=0.01)
    expected = stats.ttest_rel(table["a"], table["b"])
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx(tuple(interval))
    (tukey,) = contrasts(table, [("a", "b")], margin=0.01, correction="tukey")
    assert tukey.p == pytest.approx(expected.pvalue, abs=1e-6)


def test_the_error_is_that_of_least_squares_with_both_effects():
    table = draw({"a": 0.4, "b": 0.0, "c": -0.2, "d": 1.0}, seeds=5)
    y = np.array(list(table.values())).ravel()
    method, seed = np.divmod(np.arange(20), 5)
    design = np.column_stack([method[:, None] == range(4), seed[:, None] == range(1, 5)]).astype(
        float
    )
    weights, rest, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    found = layout(table)
    assert (found.freedom, rank) == (12, 8) and found.error == pytest.approx(rest[0] / 12)
    pick = np.array([1, -1, 0, 0, 0, 0, 0, 0])
    variance = pick @ np.linalg.inv(design.T @ design) @ pick * found.error
    assert found.deviation == pytest.approx(math.sqrt(variance))
    assert found.means["a"] - found.means["b"] == pytest.approx(weights @ pick)


def test_without_seed_effects_tukey_is_scipys_up_to_the_blocks():
    """Of a table whose blocks are taken out exactly, only the degrees of freedom differ."""
    values = np.random.default_rng(3).normal(size=(4, 6))
    values -= values.mean(0)
    table = dict(zip("abcd", values.tolist(), strict=True))
    ours = contrasts(table, [("a", "b")], margin=1e-6, correction="tukey")[0]
    theirs = stats.tukey_hsd(*values)
    q = abs(ours.mean) / math.sqrt(layout(table).error / 6)
    assert ours.mean == pytest.approx(theirs.statistic[0, 1])
    assert ours.p == pytest.approx(stats.studentized_range.sf(q, 4, 15), abs=1e-9)
    scale = math.sqrt(layout(table).error * 15 / 20)  # one way, the same residuals share 20
    assert theirs.pvalue[0, 1] == pytest.approx(
        stats.studentized_range.sf(abs(ours.mean) / (scale / math.sqrt(6)), 4, 20), abs=1e-6
    )


def test_holm_is_between_none_and_bonferroni():
    p = [0.001, 0.2, 0.02, 0.04]
    assert holm(p) == pytest.approx([0.004, 0.2, 0.06, 0.08])
    assert all(a <= b <= 4 * a for a, b in zip(p, holm(p), strict=True))


def test_intervals_cover_and_the_family_errs_at_its_level():
    """2000 tables of five methods and six seeds: coverage within four binomial standard errors."""
    rng, runs = np.random.default_rng(1), 2000
    effects = {"plain": 0.0, "a": 0.5, "b": 0.0, "c": 0.0, "d": 0.0}
    pairs = [(m, "plain") for m in ("a", "b", "c", "d")]
    covered, wrong, seen = 0, 0, 0
    for _ in range(runs):
        told = contrasts(draw(effects, seeds=6, rng=rng), pairs, margin=1e-9)
        covered += sum(abs(c.mean - effects[c.a]) <= c.half for c in told)
        wrong += any(c.verdict != "undecided" for c in told[1:])
        seen += told[0].verdict == "gain"
    assert abs(covered / (4 * runs) - 0.95) < 4 * math.sqrt(0.05 * 0.95 / runs)
    assert wrong / runs < 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)
    assert seen / runs > 0.5  # half a unit against a standard error of 0.17


@pytest.mark.parametrize(
    ("effect", "error", "images", "verdict"),
    [
        (1.0, 0.1, 0.5, "gain"), (-1.0, 0.1, 0.5, "loss"), (0.0, 0.01, 0.5, "equivalent"),
        (0.05, 0.01, 0.5, "equivalent"), (0.1, 1.0, 0.5, "undecided"),
        (1.0, 0.1, 30.0, "undecided"),  # the seeds agree, the pictures do not
    ],
)  # fmt: skip
def test_verdicts(effect, error, images, verdict):
    rng = np.random.default_rng(2)
    table = draw({"a": effect, "plain": 0.0, "c": 0.0}, error=error, rng=rng)
    by_image = {name: [(images * rng.normal(size=20)).tolist()] * 8 for name in ("plain", "c")}
    by_image["a"] = [
        [
            v + effect + images * w
            for v, w in zip(by_image["plain"][0], rng.normal(size=20), strict=True)
        ]
    ] * 8
    (found,) = contrasts(table, [("a", "plain")], margin=0.15, images=by_image)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("table", "pairs", "margin", "message"),
    [
        ({"a": [1.0, 2.0]}, [], 0.1, r"at least two methods .* got \{'a': 2\}"),
        ({"a": [1.0, 2.0], "b": [1.0]}, [("a", "b")], 0.1, "same two or more seeds each, got"),
        ({"a": [1.0, 2.0], "b": [1.0, math.nan]}, [("a", "b")], 0.1, "finite numbers, got others for b"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0]}, [("a", "c")], 0.1, "unknown methods c; expected some of a, b"),
        ({"a": [1.0, 2.0], "b": [1.0, 2.0]}, [("a", "b")], 0.0, "margin must be positive, got 0.0"),
    ],
)  # fmt: skip
def test_bad_tables(table, pairs, margin, message):
    with pytest.raises(ValueError, match=message):
        contrasts(table, pairs, margin=margin)
