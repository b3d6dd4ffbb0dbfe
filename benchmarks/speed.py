"""What symmetry costs: every figure interleaved with what it is compared with, appended to artifacts/speed.json.

Usage: python benchmarks/speed.py [--minutes 8] [--threads 1] [--only layers,decay] [--out artifacts/speed.json]

A round runs all cases of a group once, in turns, so that a slow moment of the machine hits all of them. A
figure is the median over the rounds of the ratio within a round, with the interval that holds the true median
with 95 % (order statistics). Each group has its share of the minutes, and `--rounds` at least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import ROOT, report, stamp
from speed_cases import GROUPS, Group

OUT = ROOT / "artifacts" / "speed.json"


def median_of(ratios: list[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval by order statistics; the whole range for fewer than six."""
    ordered = sorted(ratios)
    n = len(ordered)
    skip = max(0, int(n / 2 - 0.98 * n**0.5))
    return statistics.median(ordered), ordered[skip], ordered[n - 1 - skip]


def bytes_kept(step: Callable[[], torch.Tensor]) -> int:
    """Bytes that autograd keeps for backward, each storage once, parameters among them.

    Read off the graph: hooks on what is saved would miss what is saved under hooks of its own.
    """
    found: dict[int, int] = {}
    loss = step()
    todo, seen = [loss.grad_fn], {None}
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        todo += [n for n, _ in node.next_functions]
        names = [n for n in dir(node) if n == "saved_tensors" or n.startswith("_saved_")]
        for value in (getattr(node, n) for n in names):
            for t in value if isinstance(value, tuple | list) else [value]:
                if isinstance(t, torch.Tensor):
                    found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(found.values())


def timed(case: Callable[[], Any], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        out = case()
        if isinstance(out, torch.Tensor):
            out.backward()
    return (time.perf_counter() - start) / repeats


def measure(group: Group, seconds: float, least: int = 3) -> list[dict[str, Any]]:
    """The rows of one group of cases."""
    cases = group.cases()
    for case in cases.values():  # the first call allocates, plans and solves
        timed(case, 1)
    times: dict[str, list[float]] = {name: [] for name in cases}
    end = time.perf_counter() + seconds
    while min(map(len, times.values())) < least or time.perf_counter() < end:
        for name, case in cases.items():
            times[name].append(timed(case, group.repeats))
    rows = []
    for figure in group.figures:
        ratios = [a / b for a, b in zip(times[figure.case], times[figure.against], strict=True)]
        ratio, low, high = median_of(ratios)
        rows.append(
            {
                "group": group.name, "figure": figure.case, "against": figure.against, "what": "time",
                "ratio": ratio, "low": low, "high": high, "rounds": len(ratios), "target": figure.target,
                "seconds": statistics.median(times[figure.against]),
            }
        )  # fmt: skip
        if figure.memory is not None:
            a, b = (bytes_kept(cases[n]) for n in (figure.case, figure.against))
            rows.append(
                {
                    "group": group.name, "figure": figure.case, "against": figure.against,
                    "what": "memory kept for backward", "ratio": a / b, "low": a / b, "high": a / b,
                    "rounds": 1, "target": figure.memory, "bytes": b,
                }
            )  # fmt: skip
    return rows


def append(out: Path, entry: dict[str, Any]) -> None:
    """Add to the history; the file's stamp is that of the last entry."""
    history = json.loads(out.read_text(encoding="utf-8"))["history"] if out.is_file() else []
    content = {"stamp": entry["stamp"], "history": [*history, entry]}
    aside = out.with_suffix(".new")
    aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    aside.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=7.0, help="for all groups together")
    parser.add_argument("--rounds", type=int, default=3, help="of each group, at least")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="names of groups, with commas between")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--print", action="store_true", help="store nothing")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(GROUPS)
    if unknown := sorted(set(names) - set(GROUPS)):
        parser.error(f"--only: expected some of {', '.join(GROUPS)}, got {unknown[0]!r}")
    if args.minutes <= 0:
        parser.error(f"--minutes must be above 0, got {args.minutes:g}")
    torch.set_num_threads(args.threads)
    start, load, rows, missing = time.perf_counter(), os.getloadavg()[0], [], {}
    shares = sum(GROUPS[n].share for n in names)
    for name in names:
        torch.manual_seed(0)
        group = GROUPS[name]
        try:
            found = measure(group, 60 * args.minutes * group.share / shares, args.rounds)
        except (ImportError, FileNotFoundError) as error:
            missing[name] = str(error).splitlines()[0]
            report(f"{name}: left out: {missing[name]}")
            continue
        rows += found
        for row in found:
            goal = "" if row["target"] is None else f"  (target {row['target']:g})"
            report(
                f"{name:12s} {row['figure']:34s} {row['ratio']:6.3f} [{row['low']:.3f}, {row['high']:.3f}] x "
                f"{row['against']}, {row['what']}{goal}"
            )
    entry = {
        "stamp": stamp([0], (time.perf_counter() - start) / 3600), "load": round(load, 2),
        "cores": os.cpu_count(), "threads": args.threads, "missing": missing, "rows": rows,
    }  # fmt: skip
    if not args.print:
        append(args.out, entry)


if __name__ == "__main__":
    main()
