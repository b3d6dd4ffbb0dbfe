"""What the long runs share: seeds, the stamp of a result, a cache that makes them resumable."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from eqreg.data.crops import RandomCrops
from eqreg.experiments.stamp import code_version, device_name, today

ROOT = Path(__file__).resolve().parent.parent


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_crops(pair: torch.Tensor, crop: int, batch: int) -> RandomCrops:
    """A sampler for `fit`: crops of the same places of (2, n, C, H, W), degraded and clean."""
    return RandomCrops(*pair, crop=crop, batch=batch)


def stamp(seeds, hours: float) -> dict:
    return {
        "device": device_name(),
        "date": today(),
        "version": code_version(),
        "seeds": list(seeds),
        "hours": round(hours, 2),
    }


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
