"""All runs that GPU.md lists as pending, in one command that can be stopped and called again.

    make gpu                                                   # in the project's own environment
    python benchmarks/gpu.py --minutes 9 --jobs 6 --pack gpu.tar    # anywhere else

Runs lie in `runs/` (`--out`). Finished comparisons are written into `--keep`, as table and weights; with
`--pack` all of it also goes into one tar file, from which `--unpack` goes on, on a machine that keeps nothing.
"""

from __future__ import annotations

import argparse
import re
import tarfile
import time
from pathlib import Path

import torch
from common import ROOT

from eqreg.experiments import artifacts, campaign, comparison
from eqreg.tasks import get_task

PENDING = re.compile(r"```runs\n(.*?)```", re.DOTALL)


def pending(text: str) -> list[tuple[str, str]]:
    """Task and preset of each line of the block ```runs."""
    block = PENDING.search(text)
    lines = block[1].split("\n") if block else []
    found = [tuple(line.split()) for line in lines if line.strip()]
    if wrong := [line for line in found if len(line) != 2]:
        raise SystemExit(f"GPU.md: expected lines of task and preset, got {' '.join(wrong[0])!r}")
    for task, preset in found:
        get_task(task).preset(preset)
    return found  # type: ignore[return-value]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, help="stop in time and leave checkpoints")
    parser.add_argument("--jobs", type=int, default=6, help="processes that share the card")
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    parser.add_argument("--keep", type=Path, default=ROOT / "artifacts")
    parser.add_argument("--data", type=Path, help="folder of published data sets")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--list", type=Path, default=ROOT / "GPU.md", help="where the runs are listed"
    )
    parser.add_argument("--pack", type=Path, help="tar file to leave everything in")
    parser.add_argument("--unpack", type=Path, help="tar file of an earlier call")
    options = parser.parse_args()
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
    jobs = [job for run in runs for job in campaign.plan(*run, options.out, options=extra)]
    minutes = options.minutes and options.minutes - (time.monotonic() - start) / 60
    left, failed = campaign.work(
        jobs, parallel=options.jobs, minutes=minutes, report=lambda line: print(line, flush=True)
    )
    for task, preset in runs:
        waiting = [job for job in left if job.leaves.is_relative_to(options.out / task / preset)]
        if not waiting:
            content = comparison.collect(options.out, task, preset)
            print(comparison.table(content, get_task(task).score))
            artifacts.keep(content, options.out, options.keep)
        print(f"{task} {preset}: {len(waiting)} jobs left")
    if options.pack is not None:
        with tarfile.open(options.pack, "w") as tar:
            tar.add(options.out, arcname=options.out.name)
    for name, status in failed.items():
        print(f"{name} failed with status {status}")
    return 1 if failed else campaign.STOPPED if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
