"""How long the jobs of a campaign take, from some steps of each row: what fits into a budget."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files import write_whole
from ..tasks import get_task
from ..training.fit import fit
from ..training.methods import Row
from .campaign import Job
from .records import is_done
from .runs import Run, prepared
from .stamp import code_version, device_name, today

_WARM = 5  # steps before the clock runs: the first ones choose algorithms and fill caches


def seconds_a_step(
    task: str, preset: str, method: str, *, steps: int = 50, root: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> float:  # fmt: skip
    """Seconds of a training step of a row, alone on the device, over ``steps`` steps.

    Raises:
        ValueError: unknown names, or fewer than one step.
    """
    clock = _clock(task, preset, method, root, device)
    clock(_WARM)
    return clock(steps) / steps


def ratios(
    task: str, preset: str, methods: Sequence[str], *, steps: int = 20, rounds: int = 7,
    root: str | Path | None = None, device: torch.device | str = "cpu",
) -> dict[str, tuple[float, float, float]]:  # fmt: skip
    """Time of a training step of each row, as a multiple of that of the first.

    The rows take turns, and each is divided by the first one of its round, so that a machine with other work
    slows both.

    Args:
        task, preset: names.
        methods: rows.
        steps: of each row in a round.
        rounds: how often.
        root, device: as for :func:`eqreg.experiments.runs.train`.

    Returns:
        Median, smallest and largest ratio over the rounds.

    Raises:
        ValueError: unknown names, or fewer than one step or round.
    """
    if rounds < 1 or not methods:
        raise ValueError(f"ratios: expected methods and rounds, got {list(methods)} and {rounds}")
    clocks = {m: _clock(task, preset, m, root, device) for m in methods}
    for clock in clocks.values():
        clock(_WARM)
    found: dict[str, list[float]] = {m: [] for m in methods}
    for _ in range(rounds):
        seconds = {m: clock(steps) for m, clock in clocks.items()}
        for m, value in seconds.items():
            found[m].append(value / seconds[methods[0]])
    return {m: (statistics.median(v), min(v), max(v)) for m, v in found.items()}


def _clock(
    task: str, preset: str, method: str, root: str | Path | None, device: torch.device | str
) -> Callable[[int], float]:
    """Trains a row for a number of steps; seconds."""
    known = get_task(task)
    strengths = known.preset(preset).strengths_of(known.methods[_base(task, method)])
    rates = known.preset(preset).rates
    run = Run(task, preset, method, known.preset(preset).tuning_seeds[0], rates[0], strengths[0])
    torch.manual_seed(run.seed)
    chosen, its, model, settings, row = prepared(run)
    model = model.to(device)
    sampler = chosen.sampler(its, row.method, run.seed, root, next(model.parameters()).device)
    generator = torch.Generator().manual_seed(run.seed)
    how: dict[str, Any] = {"lr": run.lr, "generator": generator, "progress": False, **settings}
    return lambda steps: fit(model, sampler, steps=steps, **how).seconds


@dataclass(frozen=True)
class Estimate:
    """Minutes of a job, counted from the measured seconds of a step; evaluations come on top."""

    job: Job
    minutes: float


def estimates(
    jobs: Sequence[Job],
    minutes: float | None,
    clock: Callable[[str, str, str], float],
    times: Path,
    device: torch.device | str = "cpu",
) -> list[Estimate]:
    """Minutes of the jobs that are not done, in order, until the budget is used up.

    A row is timed when its first job comes; its seconds stay in the file ``times`` and are read from there by
    later calls on the same device with the same code.

    Args:
        jobs: of :func:`eqreg.experiments.campaign.plan`, in the order in which they would run.
        minutes: budget; None for none.
        clock: called with task, preset and method; seconds of a step.
        times: JSON file.
        device: whose times they are.
    """
    here = {"device": device_name(device), "version": code_version()}
    kept = json.loads(times.read_text()) if times.is_file() else {}
    seconds = kept["seconds"] if {k: kept.get("stamp", {}).get(k) for k in here} == here else {}
    found: list[Estimate] = []
    for job in jobs:
        if is_done(job.leaves):
            continue
        if minutes is not None and sum(e.minutes for e in found) > minutes:
            break
        task, method, preset = _row(job)
        if (key := f"{task} {preset} {method}") not in seconds:
            seconds[key] = clock(task, preset, method)
            content = {"stamp": {**here, "date": today()}, "seconds": seconds}
            times.parent.mkdir(parents=True, exist_ok=True)
            write_whole(times, (json.dumps(content, indent=1) + "\n").encode())
        found.append(Estimate(job, _steps(job) * seconds[key] / 60))
    return found


def told(found: Sequence[Estimate], minutes: float | None, number: int) -> str:
    """What fits into the budget, as text.

    Args:
        found: of :func:`estimates`.
        minutes: the budget.
        number: of all jobs that are not done.
    """
    if not found:
        return "nothing is left to run"
    lines, used, fits = [], 0.0, 0
    for e in found:
        used += e.minutes
        fits += minutes is None or used <= minutes
        lines.append(f"{e.job.name:40}{e.minutes:9.2f} min{used:10.2f} min in all")
    budget = "without a budget" if minutes is None else f"in {minutes:g} minutes"
    return "\n".join(
        [
            *lines,
            f"{budget} {fits} of {number} jobs fit, counted one after another, without evaluations, and tunings at "
            "their shortest; jobs that share a card may be quicker",
        ]
    )


def _steps(job: Job) -> int:
    """Of a training; of a tuning, those of its first grids."""
    task, method, preset = _row(job)
    known = get_task(task).preset(preset)
    if job.arguments[0] == "train":
        return known.steps
    strengths = known.strengths_of(get_task(task).methods[_base(task, method)])
    return (len(known.rates) + len(strengths) - 1) * len(known.tuning_seeds) * known.tuning_steps


def _row(job: Job) -> tuple[str, str, str]:
    """Task, method and preset of a job's command line."""
    words = job.arguments
    return words[1], words[words.index("--method") + 1], words[words.index("--preset") + 1]


def _base(task: str, method: str) -> str:
    """The method's name without a group."""
    chosen = get_task(task)
    row = Row.parse(method, chosen.right, chosen.full, chosen.methods)
    return next(name for name, known in chosen.methods.items() if known is row.method)
