"""All runs that GPU.md lists as pending, in one command that can be stopped and called again.

    make gpu                                                   # in the project's own environment
    python benchmarks/gpu.py --minutes 9 --jobs 6 --pack gpu.tar    # anywhere else
    python benchmarks/gpu.py --dry                             # times the rows and says what fits, no more

First 50 steps of each row are timed, as many rows as the budget could reach, and what fits is printed. Runs lie in
`runs/` (`--out`). Finished comparisons are written into `--keep`, as table and weights; with `--pack` all of it also
goes into one tar file, from which `--unpack` goes on, on a machine that keeps nothing.
"""

from __future__ import annotations

import argparse
import re
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from common import ROOT

from eqreg.experiments import artifacts, campaign, comparison, timing
from eqreg.experiments.records import is_done
from eqreg.tasks import get_task

PENDING = re.compile(r"```runs\n(.*?)```", re.DOTALL)
STEPS = 50


def pending(text: str) -> list[tuple[str, str, list[str]]]:
    """Task, preset and methods (none: all) of each line of the block ```runs."""
    block = PENDING.search(text)
    lines = block[1].split("\n") if block else []
    words = [line.split() for line in lines if line.strip()]
    if wrong := [line for line in words if len(line) < 2]:
        raise SystemExit(
            f"GPU.md: expected lines of task, preset and methods, got {' '.join(wrong[0])!r}"
        )
    for task, preset, *_ in words:
        get_task(task).preset(preset)
    return [(task, preset, methods) for task, preset, *methods in words]


def ordered(
    runs: Sequence[tuple[str, str, list[str]]], out: Path, options: Sequence[str]
) -> list[campaign.Job]:
    """The jobs of all lines in their order, each once."""
    jobs: dict[Path, campaign.Job] = {}
    for task, preset, methods in runs:
        for job in campaign.plan(task, preset, out, methods=methods, options=options):
            jobs.setdefault(job.leaves, job)
    return list(jobs.values())


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, help="stop in time and leave checkpoints")
    parser.add_argument("--jobs", type=int, default=6, help="processes that share the card")
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--keep", type=Path, default=ROOT / "artifacts")
    parser.add_argument("--data", type=Path, help="folder of published data sets")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=STEPS, help="that are timed of each row")
    parser.add_argument("--dry", action="store_true", help="time, say what fits, and stop")
    parser.add_argument(
        "--list", type=Path, default=ROOT / "GPU.md", help="where the runs are listed"
    )
    parser.add_argument("--pack", type=Path, help="tar file to leave everything in")
    parser.add_argument("--unpack", type=Path, help="tar file of an earlier call")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: --device cpu would take days for the full presets")
        return 2
    start = time.monotonic()
    if options.unpack is not None:
        with tarfile.open(options.unpack) as tar:
            tar.extractall(options.out.parent, filter="data")
    runs = pending(options.list.read_text(encoding="utf-8"))
    extra = ["--device", options.device]
    if options.data is not None:
        extra += ["--data", str(options.data)]
    jobs = ordered(runs, options.out, extra)

    def clock(task: str, preset: str, method: str) -> float:
        found = timing.seconds_a_step(
            task, preset, method, steps=options.steps, root=options.data, device=options.device
        )
        print(f"{task} {preset} {method}: {found:.4f} s a step", flush=True)
        return found

    def left_of_budget() -> float | None:
        return options.minutes and options.minutes - (time.monotonic() - start) / 60

    times = options.out / "gpu-times.json"
    found = timing.estimates(jobs, left_of_budget(), clock, times, options.device)
    waiting = sum(not is_done(job.leaves) for job in jobs)
    print(timing.told(found, left_of_budget(), waiting), flush=True)
    if options.dry:
        return 0
    left, failed = campaign.work(
        jobs, parallel=options.jobs, minutes=left_of_budget(), report=lambda line: print(line, flush=True)
    )  # fmt: skip
    for task, preset in dict.fromkeys(run[:2] for run in runs):
        base = options.out / task / preset
        open_jobs = [job for job in left if job.leaves.is_relative_to(base)]
        print(f"{task} {preset}: {len(open_jobs)} jobs left")
        if any(base.glob("*/seed-*/result.json")):
            content = comparison.collect(options.out, task, preset)
            print(comparison.table(content, get_task(task).score))
            print(comparison.verdicts(content))
            if not open_jobs:
                artifacts.keep(content, options.out, options.keep)
    if options.pack is not None:
        with tarfile.open(options.pack, "w") as tar:
            tar.add(options.out, arcname=options.out.name)
    for name, status in failed.items():
        print(f"{name} failed with status {status}")
    return 1 if failed else campaign.STOPPED if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
