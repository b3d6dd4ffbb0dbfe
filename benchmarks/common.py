"""What the long runs share: seeds, the stamp of a result, a cache that makes them resumable."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch

import eqreg

ROOT = Path(__file__).resolve().parent.parent


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_crops(pair: torch.Tensor, crop: int, batch: int):
    """A sampler for `fit`: crops of the same places of (2, n, C, H, W), degraded and clean."""
    number, side = pair.shape[1], pair.shape[-1]

    def sample(generator):
        which = torch.randint(number, (batch,), generator=generator).tolist()
        corners = torch.randint(side - crop + 1, (batch, 2), generator=generator).tolist()
        crops = [
            pair[:, i, :, top : top + crop, left : left + crop]
            for i, (top, left) in zip(which, corners, strict=True)
        ]
        x, y = torch.stack(crops, 1)
        return x, y

    return sample


def stamp(seeds, hours: float) -> dict:
    return {
        "device": f"CPU, 1 thread, {processor()}",
        "date": datetime.date.today().isoformat(),
        "version": f"eqreg {eqreg.__version__}{commit()}, torch {torch.__version__}",
        "seeds": list(seeds),
        "hours": round(hours, 2),
    }


def commit() -> str:
    """`` (commit abc1234)`` in a checkout, nothing elsewhere."""
    run = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return f" (commit {run.stdout.strip()})" if run.returncode == 0 else ""


def processor() -> str:
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":")[1].strip() for line in names if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Cache:
    """Finished runs, a JSON line each, so that an interrupted benchmark goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        self.path, self.found = path, {}
        path.parent.mkdir(parents=True, exist_ok=True)
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                key, value = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line at which an earlier run was stopped
            self.found[key] = value

    def get(self, key: str, compute) -> dict:
        if key not in self.found:
            self.found[key] = compute()
            with self.path.open("a") as file:
                file.write(json.dumps([key, self.found[key]]) + "\n")
        return self.found[key]
