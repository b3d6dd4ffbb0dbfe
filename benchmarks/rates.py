"""Is a gain that of the method, or that of the learning rate? One method with every rate of the preset.

    python benchmarks/rates.py mar --preset cpu --method plain --data /folder [--runs runs]

Tuning chooses a rate by short runs, and two rates may lie closer together there than seeds do. This trains the
method in full with each of the preset's rates and writes artifacts/<task>-<preset>-rates.json. Runs that are done
are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from common import ROOT, report

from eqreg.experiments.comparison import collect, table
from eqreg.experiments.runs import Run, train
from eqreg.tasks import get_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("task")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--method", default="plain")
    parser.add_argument("--data", type=Path, default=os.environ.get("EQREG_DATA"))
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "rates")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    preset = get_task(args.task).preset(args.preset)
    rates: dict[str, dict] = {}
    stamps = []
    for lr in preset.rates:
        folder = args.runs / f"{lr:g}"
        for seed in preset.seeds:
            train(Run(args.task, args.preset, args.method, seed, lr), folder, root=args.data)
        found = collect(folder, args.task, args.preset)
        stamps.append(found["stamp"])
        rates[f"{lr:g}"] = {
            k: found["rows"][args.method][k] for k in ("metrics", "seeds", "silent")
        }
        report(table(found, get_task(args.task).score))
    versions = {part for s in stamps for part in s["version"].split(" / ")}
    hours = round(sum(s["hours"] for s in stamps), 2)
    stamp = {**stamps[-1], "version": " / ".join(sorted(versions)), "hours": hours}
    content = {"stamp": stamp, "method": args.method, "rates": rates}
    out = args.out or ROOT / "artifacts" / f"{args.task}-{args.preset}-rates.json"
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
