"""Twenty kills: does a training that is killed at random moments end with the same weights?

    python benchmarks/kills.py             # about 5 minutes on one CPU core

Runs `python -m eqreg train` once undisturbed, and once with SIGKILL at random moments, each time called
again. Writes artifacts/kills.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, report, stamp
from safetensors.torch import load_file

from eqreg.training.checkpoint import load_checkpoint

METHOD, STEPS, EVERY = "eqreg", 600, 3
EARLY = 4  # kills that may fall before the first step; the others hit training and writing


def start(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "eqreg", "train", "rain", "--preset", "quick"]
    command += ["--method", METHOD, "--seed", "0", "--lr", "4e-3", "--strength", "1e-3"]
    command += ["--steps", str(STEPS), "--checkpoint-every", str(EVERY), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL
    )


def run_folder(out: Path) -> Path:
    return out / "rain" / "quick" / METHOD / "seed-0"


def written(folder: Path) -> int:
    checkpoint = folder / "checkpoint.safetensors"
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0


def wait_until_it_trains(process: subprocess.Popen, folder: Path) -> bool:
    """True once this sitting has written a checkpoint, False if it ended before."""
    before = written(folder)
    while process.poll() is None:
        if written(folder) != before:
            return True
        time.sleep(0.001)
    return False


def kill(out: Path, dice: random.Random, early: float, spread: float) -> dict | None:
    """Start, kill at a random moment, and look at what is left; None if it was done before that."""
    folder = run_folder(out)
    process = start(out)
    if early:
        time.sleep(dice.uniform(0, early))
    elif wait_until_it_trains(process, folder):
        time.sleep(dice.uniform(0, spread))
    if process.poll() is not None:
        return None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    parts = len(list(folder.glob("*.part-*")))
    checkpoint = folder / "checkpoint.safetensors"
    there = checkpoint.exists() or checkpoint.with_name(checkpoint.name + ".previous").exists()
    step = int(load_checkpoint(checkpoint)["step"]) if there else 0
    return {"step": step, "while_writing": parts > 0, "before_first_step": bool(early)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "kills.json")
    arguments = parser.parse_args()
    began, dice, kills = time.perf_counter(), random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as name:
        calm, killed = Path(name, "calm"), Path(name, "killed")
        process = start(calm)
        wait_until_it_trains(process, run_folder(calm))
        first = time.perf_counter() - began
        if process.wait():
            raise SystemExit("the undisturbed run failed")
        trained = time.perf_counter() - began - first
        report(f"undisturbed: {first:.1f} s to the first checkpoint, then {trained:.1f} s")
        early = set(dice.sample(range(arguments.kills), min(EARLY, arguments.kills)))
        while len(kills) < arguments.kills:
            found = kill(
                killed, dice, first if len(kills) in early else 0.0, 1.6 * trained / arguments.kills
            )
            if found is None:
                raise SystemExit(f"the run was done after {len(kills)} kills: take more steps")
            kills.append(found)
            report(f"kill {len(kills)}: {found}")
        if start(killed).wait():
            raise SystemExit("the killed run could not be finished")
        ends = [load_file(run_folder(out) / "weights.safetensors") for out in (calm, killed)]
        results = [
            json.loads((run_folder(out) / "result.json").read_text()) for out in (calm, killed)
        ]
    same = ends[0].keys() == ends[1].keys() and all(ends[0][k].equal(ends[1][k]) for k in ends[0])
    content = {
        "stamp": stamp([0], (time.perf_counter() - began) / 3600),
        "settings": {"task": "rain", "preset": "quick", "method": METHOD, "steps": STEPS, "checkpoint_every": EVERY},
        "kills": kills,
        "number": len(kills),
        "while_writing": sum(k["while_writing"] for k in kills),
        "steps": results[1]["run"]["steps"],
        "bitwise_equal_weights": bool(same),
        "equal_curves": results[0]["curves"] == results[1]["curves"],
        "equal_metrics": results[0]["metrics"] == results[1]["metrics"],
    }  # fmt: skip
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report(f"bitwise equal: {same}; wrote {arguments.out}")


if __name__ == "__main__":
    main()
