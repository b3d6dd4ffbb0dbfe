"""Learning rate and strength of a method, chosen on validation images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..tasks import get_task
from ..training.checkpoint import write_whole
from ..training.methods import GROUPS, Row
from .locks import locked
from .records import read_tuning
from .runs import Run, train
from .stamp import united

_WIDENINGS = 4  # steps outwards, for a grid whose best value lies at an edge
_SHARE = 1e-3  # of the loss; the smallest lambda that is tried weighs less
_DEAD = -math.inf


def tune(task: str, preset: str, method: str, out: str | Path, **how: Any) -> dict[str, Any]:
    """Try the preset's learning rates, then the method's strengths at the best rate.

    All trials are runs of ``tuning_steps`` steps with the ``tuning_seeds``, scored by the mean of the
    task's score on the validation images. A grid of several values is continued outwards, by the ratio
    that it has, until its best value is inside; strengths of a penalty also downwards until the penalty is
    less than a thousandth of the loss. A setting at which a run diverges, or ends with a network that
    says nothing, is never chosen. Strengths wait at the middle of their list while the rates are tried;
    a method with ``rate_of`` takes the rate of that method, which is tuned first if it is not yet.

    Args:
        task, preset, method: names.
        out: folder of all runs.
        how: as :func:`eqreg.experiments.runs.train`: root, device, stop and so on.

    Returns:
        The ledger, also stored as ``tuning.json`` in the method's folder: the choice (``lr``,
        ``strength``), its ``score``, all that was ``tried`` with its score, share of the penalty in the
        loss and number of dead runs, whether the choice is at an ``edge``, ``hours``, and a ``stamp`` with
        the device, date and version of the trials.

    Raises:
        ValueError: unknown names.
        FloatingPointError: no run of any setting was alive.
        Busy: another process tunes this method.
    """
    get_task(task).preset(preset)
    with locked(_path(out, task, preset, method)):
        return _tuned(task, preset, method, out, how)


def _tuned(
    task: str, preset: str, method: str, out: str | Path, how: dict[str, Any]
) -> dict[str, Any]:
    chosen = get_task(task)
    known = chosen.preset(preset)
    row = Row.parse(method, chosen.right, chosen.full, chosen.methods)
    strengths = known.strengths_of(row.method)
    tried: dict[tuple[float, float], dict[str, float]] = {}
    hours, stamps = 0.0, []

    def trial(lr: float, strength: float) -> dict[str, float]:
        nonlocal hours
        if (lr, strength) not in tried:
            scores, shares, dead = [], [], 0
            for seed in known.tuning_seeds:
                run = Run(
                    task, preset, method, seed, lr, strength, steps=known.tuning_steps, split="val"
                )
                try:
                    result = train(run, out, **how)
                except FloatingPointError:
                    dead += 1
                    continue
                hours += result["stamp"]["hours"]
                stamps.append(result["stamp"])
                score = result["metrics"][chosen.score]
                dead += result["mute"] or not math.isfinite(score)
                scores.append(score)
                shares.append(result["share"])
            alive = scores and not dead
            tried[lr, strength] = {
                "score": sum(scores) / len(scores) if alive else _DEAD,
                "share": max(shares, default=0.0), "dead": dead,
            }  # fmt: skip
        return tried[lr, strength]

    if row.method.rate_of is not None:
        rates: tuple[float, ...] = (_rate_of(task, preset, method, row.method.rate_of, out, how),)
    else:
        rates = known.rates
    middle = strengths[(len(strengths) - 1) // 2]
    lr, rate_edge = best_inside(rates, lambda rate: trial(rate, middle)["score"])
    if row.method.pairs and len(strengths) > 1:
        strengths = _down_to_nothing(strengths, lambda value: trial(lr, value)["share"])
    strength, strength_edge = best_inside(strengths, lambda value: trial(lr, value)["score"])
    if trial(lr, strength)["score"] == _DEAD:
        raise FloatingPointError(f"tune: {method} has no live run at any rate of {known.rates}")
    result = {
        "lr": lr,
        "strength": strength,
        "score": tried[lr, strength]["score"],
        "edge": {"lr": rate_edge, "strength": strength_edge},
        "tried": [
            {
                "lr": r,
                "strength": s,
                **found,
                "score": None if found["score"] == _DEAD else found["score"],
            }
            for (r, s), found in tried.items()
        ],
        "dead": sum(int(found["dead"]) for found in tried.values()),
        "hours": hours,
        "stamp": united(stamps),
    }
    write_whole(_path(out, task, preset, method), (json.dumps(result, indent=1) + "\n").encode())
    return result


def best_inside(
    values: Sequence[float], score: Callable[[float], float], most: int = _WIDENINGS
) -> tuple[float, bool]:
    """The best of some values, after the grid was continued outwards until the best is inside.

    Args:
        values: one value is taken as it is; several continue by the ratio of the first two.
        score: of a value; the larger the better.
        most: how often the grid may be widened.

    Returns:
        The best value, and whether it still lies at an edge.

    >>> best_inside((1.0, 2.0), lambda v: -abs(v - 16.0))
    (16.0, False)
    """
    grid = sorted(values)
    if len(grid) == 1:
        return grid[0], False
    ratio = grid[1] / grid[0]
    for _ in range(most):
        best = max(grid, key=score)
        if best == grid[-1]:
            grid.append(best * ratio)
        elif best == grid[0]:
            grid.insert(0, best / ratio)
        else:
            break
    best = max(grid, key=score)
    return best, best in (grid[0], grid[-1])


def _down_to_nothing(
    strengths: Sequence[float], share: Callable[[float], float]
) -> tuple[float, ...]:
    """The strengths, continued downwards until the penalty hardly counts."""
    grid = sorted(strengths)
    for _ in range(_WIDENINGS):
        if share(grid[0]) < _SHARE:
            break
        grid.insert(0, grid[0] / (grid[1] / grid[0]))
    return tuple(grid)


def _rate_of(
    task: str, preset: str, method: str, other: str, out: str | Path, how: dict[str, Any]
) -> float:
    """The rate of another method with the same group, tuned now if it was not."""
    base, _, suffix = method.rpartition("-")
    name = f"{other}-{suffix}" if suffix in GROUPS and base else other
    lr, _, tuned = settings(task, preset, name, out)
    return lr if tuned else float(tune(task, preset, name, out, **how)["lr"])


def settings(task: str, preset: str, method: str, out: str | Path) -> tuple[float, float, bool]:
    """Learning rate and strength for a run, and whether :func:`tune` chose them.

    Without a ``tuning.json`` they are the middle of what tuning would try.
    """
    path = _path(out, task, preset, method)
    if path.is_file():
        found = read_tuning(path)
        return found["lr"], found["strength"], True
    chosen = get_task(task)
    known = chosen.preset(preset)
    rates = known.rates
    row = Row.parse(method, chosen.right, chosen.full, chosen.methods)
    strengths = known.strengths_of(row.method)
    return rates[(len(rates) - 1) // 2], strengths[(len(strengths) - 1) // 2], False


def _path(out: str | Path, task: str, preset: str, method: str) -> Path:
    return Path(out) / task / preset / method / "tuning.json"
