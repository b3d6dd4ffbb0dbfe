"""Finished runs side by side: means over seeds, paired differences, 95 % intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..measure.intervals import half_width
from ..tasks import get_task
from .records import read_result, read_tuning


def collect(out: str | Path, task: str, preset: str) -> dict[str, Any]:
    """All finished runs of a preset, in the form that ``artifacts/`` keeps.

    Returns:
        ``"stamp"``, ``"settings"``, ``"rows"`` (method -> metric -> one mean per seed, and the
        run's settings and cost), ``"curves"`` (of the first seed) and ``"tuning"``.

    Raises:
        FileNotFoundError: no run is finished.
        ValueError, FloatingPointError: a file holds something else than a finite result.
    """
    base, known = Path(out) / task / preset, get_task(task).preset(preset)
    rows: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    stamps = []
    for method in known.methods:
        results = [
            read_result(path)
            for seed in known.seeds
            if (path := base / method / f"seed-{seed}" / "result.json").is_file()
        ]
        if not results:
            continue
        first = results[0]
        rows[method] = {
            "metrics": {k: [r["metrics"][k] for r in results] for k in first["metrics"]},
            "per_image": {k: [r["per_image"][k] for r in results] for k in first["per_image"]},
            "seeds": [r["run"]["seed"] for r in results],
            "lr": first["run"]["lr"],
            "strength": first["run"]["strength"],
            "parameters": first["parameters"],
            # Weights without effect, a number for each seed; runs of earlier versions did not look.
            "silent": [len(r["silent"]) if "silent" in r else None for r in results],
            "share": [r.get("share") for r in results],
            "mute": [r.get("mute") for r in results],
            "seconds_per_step": [r["cost"]["seconds_per_step"] for r in results],
        }
        curves[method] = first["curves"]
        stamps += [r["stamp"] for r in results]
    if not rows:
        raise FileNotFoundError(f"collect: expected finished runs in {base}, found none")
    tuning = {
        method: read_tuning(path)
        for method in rows
        if (path := base / method / "tuning.json").is_file()
    }
    hours = sum(s["hours"] for s in stamps) + sum(t["hours"] for t in tuning.values())
    return {
        "stamp": {
            "device": _one("device", stamps), "version": _one("version", stamps),
            "date": max(s["date"] for s in stamps), "hours": round(hours, 2),
            "seeds": sorted({seed for row in rows.values() for seed in row["seeds"]}),
        },
        "settings": {
            "task": task, "preset": preset, "steps": known.steps, "images": known.images,
            "sizes": dict(known.sizes), "rates": list(known.rates),
            "tuning_steps": known.tuning_steps, "tuning_seeds": list(known.tuning_seeds),
        },
        "rows": rows, "curves": curves, "tuning": tuning,
    }  # fmt: skip


def paired(rows: dict[str, Any], method: str, metric: str, to: str = "plain") -> list[float]:
    """Differences of a method to another, seed by seed; seeds that only one has are left out."""
    ours, theirs = rows[method], rows[to]
    base = dict(zip(theirs["seeds"], theirs["metrics"][metric], strict=True))
    pairs = zip(ours["seeds"], ours["metrics"][metric], strict=True)
    return [value - base[seed] for seed, value in pairs if seed in base]


def table(content: dict[str, Any], metric: str, to: str = "plain") -> str:
    """Rows as text: mean of ``metric``, paired difference ± 95 % half width, seeds, cost."""
    rows = content["rows"]
    lines = [f"{'method':22}{metric:>14}{'to ' + to:>20}  seeds  s/step"]
    for method, row in rows.items():
        values = row["metrics"][metric]
        difference = paired(rows, method, metric, to) if to in rows and method != to else []
        shown = (
            f"{sum(difference) / len(difference):+.3f} ± {half_width(difference):.3f}"
            if difference
            else ""
        )
        lines.append(
            f"{method:22}{sum(values) / len(values):14.3f}{shown:>20}{len(values):7d}"
            f"{min(row['seconds_per_step']):8.4f}"
        )
    return "\n".join(lines)


def _one(key: str, stamps: list[dict[str, Any]]) -> str:
    found = sorted({s[key] for s in stamps})
    return found[0] if len(found) == 1 else " / ".join(found)
