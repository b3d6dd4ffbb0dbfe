"""What a training step of the claim's rows costs on every task, as multiples of plain: artifacts/row_costs.json.

    python benchmarks/row_costs.py            # minutes on one CPU core; EQREG_DATA for deraining and mar

Rows take turns and are divided by the plain step of their round, so that other work on the machine cancels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from common import ROOT, report, stamp

from eqreg.experiments.comparison import CLAIM
from eqreg.experiments.timing import ratios
from eqreg.tasks import get_task

TASKS = ("rain", "deraining", "mar", "inpainting", "classification")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--preset", default="evidence")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "row_costs.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, found = time.perf_counter(), {}
    for task in options.tasks:
        known = get_task(task).preset(options.preset).methods
        others = [m for m in known if m not in CLAIM]
        rows = [m for m in CLAIM if m in known] + others
        found[task] = ratios(task, options.preset, rows, steps=options.steps, rounds=options.rounds)
        for method, (middle, low, high) in found[task].items():
            report(f"{task:16}{method:22}{middle:6.2f} ({low:.2f} to {high:.2f})")
    content = {
        "stamp": stamp([], (time.perf_counter() - began) / 3600),
        "settings": {"preset": options.preset, "steps": options.steps, "rounds": options.rounds},
        "what": "time of a training step, as a multiple of plain's in the same round: median, smallest, largest",
        "rows": found,
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report(f"wrote {options.out}")


if __name__ == "__main__":
    main()
