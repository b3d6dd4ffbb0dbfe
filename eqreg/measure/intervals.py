"""How sure a mean is, and what a difference shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..extras import require
from ..typed import typed


@typed
def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of the mean by Student's t; nan for one value.

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    n = len(values)
    if n < 2:
        return math.nan
    mean = sum(values) / n
    variance = sum((v - mean) ** 2 for v in values) / (n - 1)
    t = require("scipy.stats", extra="tasks").t.ppf(0.975, n - 1)
    return float(t * math.sqrt(variance / n))


@typed
def verdict(differences: Sequence[float]) -> str:
    """What paired differences show: "gain", "loss", or "within the noise" if the 95 % interval holds zero.

    >>> verdict([0.9, 1.0, 1.1]), verdict([-0.9, -1.0, -1.1]), verdict([-1.0, 0.5, 1.0])
    ('gain', 'loss', 'within the noise')
    """
    mean, half = sum(differences) / len(differences), half_width(differences)
    return "gain" if mean > half else "loss" if mean < -half else "within the noise"
