"""How a strength changes over training: plain functions of the step, with values in [0, 1].

>>> from eqreg.soft import schedules
>>> [round(schedules.warm_up(step, 10, share=0.4), 2) for step in range(6)]
[0.0, 0.25, 0.5, 0.75, 1.0, 1.0]

Multiply: ``lam * warm_up(step, steps)``, or ``decay.step(lr * decreasing(step, steps))``.
"""

from __future__ import annotations

import math

from ..typed import typed


@typed
def constant(step: int, steps: int) -> float:
    """1 at every step.

    >>> constant(3, steps=10)
    1.0
    """
    _check("constant", step, steps)
    return 1.0


@typed
def warm_up(step: int, steps: int, share: float = 0.1) -> float:
    """From 0 to 1 on a line over the first ``share`` of the steps, then 1: learn first, then tidy up.

    Args:
        step: number of the step, from 0.
        steps: number of all steps.
        share: in [0, 1].

    Raises:
        ValueError: an argument is out of range.

    >>> [warm_up(step, steps=10, share=0.5) for step in (0, 2, 5, 9)]
    [0.0, 0.4, 1.0, 1.0]
    """
    _check("warm_up", step, steps)
    if not 0 <= share <= 1:
        raise ValueError(f"warm_up: share must lie in [0, 1], got {share}")
    return min(1.0, step / (share * steps)) if share * steps > 0 else 1.0


@typed
def decreasing(step: int, steps: int) -> float:
    """From 1 to 0 by half a cosine: symmetric at first, free at the end.

    Args:
        step: number of the step, from 0.
        steps: number of all steps.

    Raises:
        ValueError: an argument is out of range.

    >>> [round(decreasing(step, steps=10), 2) for step in (0, 5, 10)]
    [1.0, 0.5, 0.0]
    """
    _check("decreasing", step, steps)
    return 0.5 * (1 + math.cos(math.pi * step / steps))


def _check(name: str, step: int, steps: int) -> None:
    if not 0 <= step <= steps or steps < 1:
        raise ValueError(f"{name}: expected 0 <= step <= steps and steps >= 1, got {step}, {steps}")
