"""Learning rate and strength of a method, chosen on validation images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..tasks import get_task
from ..training.checkpoint import write_whole
from ..training.methods import Row
from .locks import locked
from .records import read_tuning
from .runs import Run, train


def tune(task: str, preset: str, method: str, out: str | Path, **how: Any) -> dict[str, Any]:
    """Try the preset's learning rates, then the method's strengths at the best rate.

    All trials are runs of ``tuning_steps`` steps with the ``tuning_seeds``, scored by the mean of the
    task's score on the validation images; a run that diverges scores minus infinity. Strengths wait at
    the middle of their list while the rates are tried.

    Args:
        task, preset, method: names.
        out: folder of all runs.
        how: as :func:`eqreg.experiments.runs.train`: root, device, stop and so on.

    Returns:
        ``{"lr", "strength", "tried", "hours"}``, also stored as ``tuning.json`` in the method's folder.

    Raises:
        ValueError: unknown names.
        FloatingPointError: every rate diverged.
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
    middle = strengths[(len(strengths) - 1) // 2]
    tried: dict[tuple[float, float], float] = {}
    hours = 0.0

    def score(lr: float, strength: float) -> float:
        nonlocal hours
        if (lr, strength) not in tried:
            found = []
            for seed in known.tuning_seeds:
                run = Run(
                    task, preset, method, seed, lr, strength, steps=known.tuning_steps, split="val"
                )
                try:
                    result = train(run, out, **how)
                except FloatingPointError:
                    found.append(-math.inf)
                    continue
                found.append(result["metrics"][chosen.score])
                hours += result["stamp"]["hours"]
            tried[lr, strength] = sum(found) / len(found)
        return tried[lr, strength]

    lr = max(known.rates, key=lambda rate: score(rate, middle))
    strength = max(strengths, key=lambda value: score(lr, value))
    if score(lr, strength) == -math.inf:
        raise FloatingPointError(f"tune: {method} diverged at every rate of {known.rates}")
    result = {
        "lr": lr,
        "strength": strength,
        "tried": [{"lr": r, "strength": s, chosen.score: v} for (r, s), v in tried.items()],
        "hours": hours,
    }
    write_whole(_path(out, task, preset, method), (json.dumps(result, indent=1) + "\n").encode())
    return result


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
