"""Which differences between methods are decided: a two-way layout, method by seed, and a margin fixed beforehand.

A seed decides data, first weights and order alike for all methods, so it is a block. What is left
after the effects of methods and seeds is the error, and all methods together estimate it: a contrast of
two of ten rows with three seeds has 18 degrees of freedom instead of 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..extras import require
from .intervals import half_width

Table = Mapping[str, Sequence[float]]
Verdict = Literal["gain", "loss", "equivalent", "undecided"]


@dataclass(frozen=True)
class Layout:
    """Means and pooled error of a balanced two-way layout without interaction.

    Attributes:
        means: of each method over the seeds.
        error: mean square of the residuals.
        freedom: its degrees of freedom, (methods - 1)(seeds - 1).
        seeds: number of seeds.
    """

    means: Mapping[str, float]
    error: float
    freedom: int
    seeds: int

    @property
    def deviation(self) -> float:
        """Standard error of the difference of two methods."""
        return math.sqrt(2 * self.error / self.seeds)


@dataclass(frozen=True)
class Contrast:
    """One difference of two methods, and what it shows.

    Attributes:
        a, b: the methods; the difference is ``a - b``.
        mean: over the seeds.
        half: half width of its 95 % interval by the pooled error; of this contrast alone.
        p: of a difference as large as this one if there were none, after the correction for all
            contrasts of the family.
        image_half: half width of the 95 % interval over the test images, each averaged over the seeds;
            nan without images.
        verdict: in words, see :func:`contrasts`.

    >>> rows = {"plain": [24.0, 24.1, 24.2], "decay": [24.6, 24.8, 24.8]}
    >>> (found,) = contrasts(rows, [("decay", "plain")], margin=0.15)
    >>> f"{found.a} - {found.b}: {found.mean:+.2f} +- {found.half:.2f}, {found.verdict}"
    'decay - plain: +0.63 +- 0.14, gain'
    """

    a: str
    b: str
    mean: float
    half: float
    p: float
    image_half: float
    verdict: Verdict


def layout(table: Table) -> Layout:
    """The two-way layout of methods and seeds.

    Args:
        table: method -> one number per seed, in the same order for all.

    Raises:
        ValueError: fewer than two methods or seeds, unequal numbers of seeds, or a number that is not
            finite.

    >>> found = layout({"plain": [1.0, 2.0, 3.0], "other": [2.0, 3.0, 4.5]})
    >>> found.freedom, round(found.error, 4)
    (2, 0.0417)

    Reference: any text on randomised blocks, such as Scheffé, The Analysis of Variance, 1959, chapter 4.
    """
    sizes = {name: len(values) for name, values in table.items()}
    if len(sizes) < 2 or len(set(sizes.values())) != 1 or min(sizes.values()) < 2:
        raise ValueError(
            f"layout: expected at least two methods with the same two or more seeds each, got {sizes}"
        )
    values = np.array([list(row) for row in table.values()], dtype=float)
    if not np.isfinite(values).all():
        wrong = [
            name for name, row in zip(table, values, strict=True) if not np.isfinite(row).all()
        ]
        raise ValueError(f"layout: expected finite numbers, got others for {', '.join(wrong)}")
    methods, seeds = values.shape
    residual = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    freedom = (methods - 1) * (seeds - 1)
    means = dict(zip(table, values.mean(1).tolist(), strict=True))
    return Layout(means, float(np.square(residual).sum() / freedom), freedom, seeds)


def contrasts(
    table: Table,
    pairs: Sequence[tuple[str, str]],
    *,
    margin: float,
    images: Mapping[str, Sequence[Sequence[float]]] | None = None,
    correction: Literal["holm", "tukey"] = "holm",
    level: float = 0.05,
) -> list[Contrast]:
    """The contrasts that were fixed beforehand, with verdicts.

    * *equivalent*: the whole 95 % interval lies within ``margin`` of zero;
    * *gain* or *loss*: else, if the corrected p is below ``level`` and the interval over the test images
      leaves zero out on the same side;
    * *undecided*: neither.

    Args:
        table: method -> one number per seed, in the same order for all; larger is better.
        pairs: (a, b) for ``a - b``.
        margin: below which a difference does not matter to anyone, in the unit of the table; chosen
            before the runs.
        images: method -> seed -> one number per test image. Without them the seeds decide alone.
        correction: "holm" for these contrasts, "tukey" if they were picked from all pairs of methods.
        level: of the family.

    Raises:
        ValueError: as :func:`layout`; an unknown method; a margin that is not positive.

    >>> rows = {"plain": [24.0, 24.1, 24.2, 24.1], "ours": [25.0, 25.1, 25.3, 25.1]}
    >>> found = contrasts(rows, [("ours", "plain")], margin=0.15)[0]
    >>> found.verdict, round(found.mean, 3)
    ('gain', 1.025)
    """
    if unknown := {m for pair in pairs for m in pair} - set(table):
        raise ValueError(
            f"contrasts: unknown methods {', '.join(sorted(unknown))}; expected some of {', '.join(table)}"
        )
    if not margin > 0:
        raise ValueError(f"contrasts: margin must be positive, got {margin}")
    found, stats = layout(table), require("scipy.stats", extra="tasks")
    differences = [found.means[a] - found.means[b] for a, b in pairs]
    alone = [_p(difference, found, stats) for difference in differences]
    if correction == "holm":
        corrected = holm(alone)
    else:
        corrected = [_tukey(d, found, len(table), stats) for d in differences]
    half = float(stats.t.ppf(1 - level / 2, found.freedom)) * found.deviation
    told = []
    for (a, b), mean, p in zip(pairs, differences, corrected, strict=True):
        image_half = math.nan if images is None else _over_images(images[a], images[b])
        if abs(mean) + half < margin:
            verdict: Verdict = "equivalent"
        elif p < level and not abs(mean) <= image_half:
            verdict = "gain" if mean > 0 else "loss"
        else:
            verdict = "undecided"
        told.append(Contrast(a, b, mean, half, p, image_half, verdict))
    return told


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p-values: rejecting those below a level keeps the family's error at that level.

    >>> [round(v, 3) for v in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]

    Reference: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


def _p(difference: float, found: Layout, stats: object) -> float:
    if found.deviation == 0:
        return 1.0 if difference == 0 else 0.0
    return float(2 * stats.t.sf(abs(difference) / found.deviation, found.freedom))  # type: ignore[attr-defined]


def _tukey(difference: float, found: Layout, methods: int, stats: object) -> float:
    if found.deviation == 0:
        return 1.0 if difference == 0 else 0.0
    q = math.sqrt(2) * abs(difference) / found.deviation
    return float(stats.studentized_range.sf(q, methods, found.freedom))  # type: ignore[attr-defined]


def _over_images(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Half width over the images of the difference, averaged over the seeds."""
    return half_width((np.mean(a, 0) - np.mean(b, 0)).tolist())
