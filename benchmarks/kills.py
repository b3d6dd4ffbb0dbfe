"""Kills: does a training that is killed at random moments end with the same weights, whatever the method?

    python benchmarks/kills.py             # 30 kills of each method, about 10 minutes on two CPU cores

Trains each method once undisturbed, and once with SIGKILL at random moments, each time called again. Each
sitting is a process that does what `eqreg train` does; it is forked, so that a kill does not cost the import
of torch. Writes artifacts/kills.json after each method. Called again, it leaves out the methods that the file
already has, with as many kills by the same version. Calls with other ``--methods`` and an ``--out`` each may run side
by side; ``--join`` puts their files together.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT, report, stamp
from safetensors.torch import load_file

from eqreg.experiments.cli import main as eqreg
from eqreg.tasks import get_task
from eqreg.training.checkpoint import load_checkpoint
from eqreg.training.methods import METHODS

SHOWN = "eqreg"  # the method whose kills are stored one by one
EARLY = 4  # kills that may fall before the first step; the others hit training and writing


@dataclass(frozen=True)
class Training:
    """A run of one method in a folder of its own."""

    method: str
    steps: int
    every: int
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / "rain" / "quick" / self.method / "seed-0"

    def start(self) -> int:
        """A sitting, in a process of its own; its number."""
        strengths = METHODS[self.method].strengths
        words = ["train", "rain", "--preset", "quick", "--method", self.method, "--lr", "4e-3"]
        words += [
            "--steps",
            str(self.steps),
            "--checkpoint-every",
            str(self.every),
            "--device",
            "cpu",
        ]
        words += ["--strength", str(strengths[0] if strengths else 0), "--out", str(self.out)]
        process = os.fork()
        if process:
            return process
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            status = eqreg(words)
        finally:
            os._exit(status)

    def written(self) -> int:
        try:
            return (self.folder / "checkpoint.safetensors").stat().st_mtime_ns
        except FileNotFoundError:  # also between two renames of the writer
            return 0

    def step(self) -> int:
        """Steps of the last whole checkpoint."""
        path = self.folder / "checkpoint.safetensors"
        there = path.exists() or path.with_name(path.name + ".previous").exists()
        return int(load_checkpoint(path)["step"]) if there else 0

    def finish(self) -> None:
        if os.waitpid(self.start(), 0)[1]:
            raise SystemExit(f"{self.method}: a sitting that nobody killed failed")

    def end(self) -> tuple[dict, dict]:
        """Weights and result."""
        result = json.loads((self.folder / "result.json").read_text())
        return load_file(self.folder / "weights.safetensors"), result


def over(process: int) -> bool:
    return os.waitpid(process, os.WNOHANG)[0] != 0


def wait_until_it_trains(training: Training, process: int) -> bool:
    """True once this sitting has written a checkpoint, False if it ended before."""
    before = training.written()
    while not over(process):
        if training.written() != before:
            return True
        time.sleep(0.001)
    return False


def kill(training: Training, dice: random.Random, early: float, spread: float) -> dict | None:
    """Start, kill at a random moment, and look at what is left; None if it was done before that."""
    process = training.start()
    if early:
        time.sleep(dice.uniform(0, early))
        if over(process):
            return None
    elif not wait_until_it_trains(training, process):
        return None
    else:
        time.sleep(dice.uniform(0, spread))
        if over(process):
            return None
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    parts = len(list(training.folder.glob("*.part-*")))
    return {"step": training.step(), "while_writing": parts > 0, "before_first_step": bool(early)}


def killed(
    method: str, number: int, steps: int, every: int, dice: random.Random, base: Path
) -> dict:
    """``number`` kills of one method; a run that is done is compared, and another one begun."""
    calm = Training(method, steps, every, base / "calm")
    began = time.perf_counter()
    process = calm.start()
    wait_until_it_trains(calm, process)
    first = time.perf_counter() - began
    while not over(process):
        time.sleep(0.01)
    trained = time.perf_counter() - began - first
    early = set(dice.sample(range(number), min(EARLY, number)))
    kills: list[dict] = []
    runs = [Training(method, steps, every, base / "0")]
    while len(kills) < number:
        moment = first if len(kills) in early else 0.0
        found = kill(runs[-1], dice, moment, 1.6 * trained / number)
        if found is None:
            runs.append(Training(method, steps, every, base / str(len(runs))))
        else:
            kills.append(found)
    ends = [calm.end()]
    for run in runs:
        run.finish()
        ends.append(run.end())
    (weights, result), *others = ends
    same = all(
        w.keys() == weights.keys() and all(w[k].equal(weights[k]) for k in w) for w, _ in others
    )
    return {
        "number": number, "runs": len(runs), "while_writing": sum(k["while_writing"] for k in kills),
        "bitwise_equal_weights": same,
        "equal_curves": all(r["curves"] == result["curves"] for _, r in others),
        "equal_metrics": all(r["metrics"] == result["metrics"] for _, r in others),
        "kills": kills,
    }  # fmt: skip


def kept(path: Path, settings: dict, number: int, version: str) -> dict[str, dict]:
    """Rows of the file by method: those of an earlier call of this version with the same settings."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["settings"] != settings or content["stamp"]["version"] != version:
        return {}
    rows = {m: r for m, r in content["methods"].items() if r["number"] >= number}
    if SHOWN in rows:
        rows[SHOWN] |= {"kills": content["kills"]}
    return rows


def write(path: Path, stamped: dict, settings: dict, found: dict[str, dict]) -> None:
    content = {
        "stamp": stamped,
        "settings": settings,
        **{k: sum(row[k] for row in found.values()) for k in ("number", "while_writing")},
        **{
            k: all(row[k] for row in found.values())
            for k in ("bitwise_equal_weights", "equal_curves", "equal_metrics")
        },
        "methods": {m: {k: v for k, v in row.items() if k != "kills"} for m, row in found.items()},
        "kills": found.get(SHOWN, {"kills": []})["kills"],
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def join(paths: list[Path], out: Path) -> None:
    """Files of one version with the same settings as one; of a method that several have, the row with most kills."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    first = files[0]
    for path, content in zip(paths, files, strict=True):
        if any(
            content["stamp"][k] != first["stamp"][k] for k in ("version", "device", "seeds")
        ) or (content["settings"] != first["settings"]):
            raise SystemExit(f"{path} is of another version, device or setting than {paths[0]}")
    rows: dict[str, dict] = {}
    for content in files:
        for method, row in content["methods"].items():
            if row["number"] > rows.get(method, {"number": 0})["number"]:
                rows[method] = row | ({"kills": content["kills"]} if method == SHOWN else {})
    order = [m for m in METHODS if m in rows]
    stamped = first["stamp"] | {
        "hours": round(sum(c["stamp"]["hours"] for c in files), 2),
        "date": max(c["stamp"]["date"] for c in files),
    }
    write(out, stamped, first["settings"], {m: rows[m] for m in order})


def preload() -> None:
    """Import once, here, what a sitting would import."""
    for name in ("filelock", "tqdm.auto", "torch._dynamo", "eqreg.measure"):
        importlib.import_module(name)
    task = get_task("rain")
    task.batches(task.preset("quick"), 0, 2, None, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30, help="of each method")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--checkpoint-every", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "kills.json")
    parser.add_argument(
        "--join", type=Path, nargs="+", help="measure nothing: put these files together"
    )
    arguments = parser.parse_args()
    if arguments.join:
        return join(arguments.join, arguments.out)
    torch.set_num_threads(1)  # forked processes inherit no thread, and nothing here starts one
    preload()
    began, steps, every = time.perf_counter(), arguments.steps, arguments.checkpoint_every
    settings = {"task": "rain", "preset": "quick", "steps": steps, "checkpoint_every": every}
    found = kept(arguments.out, settings, arguments.kills, stamp([], 0)["version"])
    before = json.loads(arguments.out.read_text("utf-8"))["stamp"]["hours"] if found else 0.0
    for method in (m for m in arguments.methods if m not in found):
        dice = random.Random(f"{arguments.seed} {method}")
        with tempfile.TemporaryDirectory() as name:
            found[method] = killed(method, arguments.kills, steps, every, dice, Path(name))
        report(f"{method}: { {k: v for k, v in found[method].items() if k != 'kills'} }")
        hours = before + (time.perf_counter() - began) / 3600
        write(arguments.out, stamp([arguments.seed], hours), settings, found)
    report(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
