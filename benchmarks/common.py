"""What the scripts share: the stamp of a result, lines for whoever waits."""

from __future__ import annotations

import sys
from pathlib import Path

from eqreg.experiments.stamp import code_version, device_name, today

ROOT = Path(__file__).resolve().parent.parent


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
