"""Finished runs side by side: means over seeds, paired differences, 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..measure.contrasts import Contrast, contrasts
from ..measure.intervals import half_width
from ..tasks import get_task
from .records import read_result, read_tuning
from .stamp import united

# What the claim of EQ-Reg is judged by; fixed before the runs.
CONTRASTS = (("eqreg", "pairs"), ("eqreg", "augmentation"), ("eqreg", "strict-equal"))
CLAIM = ("plain", "augmentation", "strict-equal", "pairs", "eqreg")

# Of a tuning of an earlier version, which did not write where it ran.
NOT_STAMPED = "not stamped"


def collect(out: str | Path, task: str, preset: str) -> dict[str, Any]:
    """All finished runs of a preset, in the form that ``artifacts/`` keeps, after those of the one it stands beside.

    Returns:
        ``"stamp"``, ``"settings"``, ``"rows"`` (method -> metric -> one mean per seed, and the
        run's settings and cost), ``"curves"`` (of the first seed) and ``"tuning"``.

    Raises:
        FileNotFoundError: no run is finished.
        ValueError, FloatingPointError: a file holds something else than a finite result.
    """
    known, score = get_task(task).preset(preset), get_task(task).score
    sources = _sources(Path(out), task, preset)
    rows: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    stamps = []
    for method, base in sources.items():
        results = _results(base, method, known.seeds, task, score)
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
            "strengths": [r.get("strengths", {}) for r in results],
            "seconds_per_step": [r["cost"]["seconds_per_step"] for r in results],
            "images": [r["cost"].get("images") for r in results],
            "looks": _looks([r["curves"]["val"] for r in results], f"val_{score}"),
        }
        curves[method] = first["curves"]
        stamps += [r["stamp"] for r in results]
    if not rows:
        where = Path(out) / task / preset
        raise FileNotFoundError(f"collect: expected finished runs in {where}, found none")
    tuning = {
        method: {"stamp": NOT_STAMPED, **read_tuning(path)}
        for method in rows
        if (path := sources[method] / method / "tuning.json").is_file()
    }
    hours = sum(s["hours"] for s in stamps) + sum(t["hours"] for t in tuning.values())
    return {
        "stamp": {
            **united(stamps), "hours": round(hours, 2),
            "seeds": sorted({seed for row in rows.values() for seed in row["seeds"]}),
        },
        "settings": {
            "task": task, "preset": preset, "steps": known.steps, "images": known.images,
            "sizes": dict(known.sizes), "rates": list(known.rates),
            "tuning_steps": known.tuning_steps, "tuning_seeds": list(known.tuning_seeds),
        },
        "rows": rows, "curves": curves, "tuning": tuning,
    }  # fmt: skip


def _results(
    base: Path, method: str, seeds: Sequence[int], task: str, score: str
) -> list[dict[str, Any]]:
    """The finished runs of a row; they are those of their folder, and share all settings but the seed.

    Raises:
        ValueError: the message names the first file that belongs elsewhere.
    """
    found: list[dict[str, Any]] = []
    for seed in seeds:
        path = base / method / f"seed-{seed}" / "result.json"
        if not path.is_file():
            continue
        result = read_result(path)
        run, want = (
            result["run"],
            {"task": task, "preset": base.name, "method": method, "seed": seed},
        )
        if score not in result["metrics"] or score not in result["per_image"]:
            raise ValueError(f"{path}: expected a result with the metric {score!r}, found none")
        if found:
            want |= {k: v for k, v in found[0]["run"].items() if k not in ("seed", "hash")}
            for key in ("metrics", "per_image"):
                if found[0][key].keys() != result[key].keys():
                    raise ValueError(
                        f"{path}: expected the {key} {', '.join(found[0][key])}, got "
                        f"{', '.join(result[key])}; seed {found[0]['run']['seed']} lies beside it"
                    )
        if wrong := [f"{k} {v!r}, got {run.get(k)!r}" for k, v in want.items() if run.get(k) != v]:
            beside = f"; seed {found[0]['run']['seed']} lies beside it" if found else ""
            raise ValueError(f"{path}: expected a run with {'; '.join(wrong)}{beside}")
        found.append(result)
    return found


def _sources(out: Path, task: str, preset: str) -> dict[str, Path]:
    """Folder of the preset that each method belongs to, in the order of the table."""
    known = get_task(task).preset(preset)
    found = {}
    if known.beside:
        other = get_task(task).preset(known.beside)
        alike = ("steps", "images", "sizes", "seeds")
        if wrong := [name for name in alike if getattr(known, name) != getattr(other, name)]:
            raise ValueError(
                f"preset {preset!r} of {task} stands beside {known.beside!r}, whose {wrong[0]} must be the same"
            )
        found = dict.fromkeys(other.methods, out / task / known.beside)
    return found | dict.fromkeys(known.methods, out / task / preset)


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
        if metric not in row["metrics"]:  # a strict network has no errors of its layers
            continue
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


def _looks(curves: list[list[dict[str, float]]], key: str) -> list[list[float]]:
    """Step and mean over the runs of what they saw on the validation images, where all looked."""
    seen = [{int(n["step"]): n[key] for n in curve if key in n} for curve in curves]
    steps = sorted(set.intersection(*map(set, seen)))
    return [[step, sum(s[step] for s in seen) / len(seen)] for step in steps]


def costs(content: dict[str, Any], to: str = "plain") -> str:
    """What a row costs, and the validation score at equal images and at equal time, as text.

    Equal images: at the last step, since all rows see as many images in a step (a released row twice as many).
    Equal time: where a row's mean curve is when ``to`` is done, on a line between two looks. That is a
    lower bound for a run planned for so short a time, whose rate would have fallen by then; a row that was
    quicker stands where it ended, which is one too. Times are the shortest over the seeds, and mean something
    only if all runs had one machine to themselves.
    """
    rows = content["rows"]
    if to not in rows or not all(row.get("looks") for row in rows.values()):
        return f"no cost at equal time: {to} or looks at the validation images are missing"
    base = min(rows[to]["seconds_per_step"])
    lines = [
        f"{'validation score':22}{'images':>9}{'time':>7}{'equal images':>14}{'equal time':>14}"
    ]
    for method, row in rows.items():
        looks, ratio = row["looks"], min(row["seconds_per_step"]) / base
        last = looks[-1][0]
        x, y = zip(*looks, strict=True)
        early = last / ratio < x[0]  # before the first look
        at = np.interp(last / ratio, x, y)
        lines.append(
            f"{method:22}{(row.get('images') or ['-'])[0]!s:>9}{ratio:7.2f}{y[-1]:14.4f}"
            f"{'-' if early else f'>= {at:.4f}':>14}"
        )
    lines.append("time: of a step, to be compared only if each run had the machine to itself")
    return "\n".join(lines)


def choices(content: dict[str, Any]) -> str:
    """The tunings as text: what was chosen, whether at an edge of its grid, dead runs; below, where each ran."""
    lines = [f"{'tuned':22}{'rate':>10}{'strength':>10}{'score':>10}  edge          dead  where"]
    places: dict[str, int] = {}  # what rows have in common is said once
    for method, found in content["tuning"].items():
        edge = ", ".join(k for k, at in found.get("edge", {}).items() if at) or "no"
        stamp = found.get("stamp", NOT_STAMPED)
        where = stamp if isinstance(stamp, str) else ", ".join(stamp.values())
        place = places.setdefault(where, len(places) + 1)
        score = f"{found['score']:.3f}" if "score" in found else "-"
        lines.append(
            f"{method:22}{found['lr']:10.3g}{found['strength']:10.3g}{score:>10}  {edge:14}"
            f"{found.get('dead', '-')!s:>4}  {f'[{place}]':>5}"
        )
    return "\n".join([*lines, *(f"[{place}] {where}" for where, place in places.items())])


def judged(rows: dict[str, Any]) -> tuple[list[int], list[str]]:
    """The seeds that contrasts are over, and the rows that have them all.

    The rows of the claim decide which seeds: those that each of them has finished with a network that says
    something. Another row that died or is not done at one of them is left out, and takes no seed from the claim.
    """

    def alive(row: dict[str, Any]) -> set[int]:
        mute = row.get("mute") or [False] * len(row["seeds"])
        return {s for s, dead in zip(row["seeds"], mute, strict=True) if not dead}

    core = [m for m in rows if m in CLAIM] or list(rows)
    seeds = set.intersection(*(alive(rows[m]) for m in core))
    return sorted(seeds), [m for m in rows if seeds <= alive(rows[m])]


def decided(content: dict[str, Any]) -> list[Contrast]:
    """The contrasts that were fixed beforehand, over the seeds and rows of :func:`judged`.

    Every row to ``plain``, and EQ-Reg to what it must beat: pairs without its penalty, augmentation, and
    strict layers of as many parameters.
    """
    task = get_task(content["settings"]["task"])
    seeds, joined = judged(content["rows"])
    rows = {m: content["rows"][m] for m in joined}
    pairs = [(m, "plain") for m in rows if m != "plain" and "plain" in rows]
    pairs += [p for p in CONTRASTS if set(p) <= set(rows)]
    if len(seeds) < 2 or not pairs:
        return []

    def chosen(row: dict[str, Any], values: list[Any]) -> list[Any]:
        found = dict(zip(row["seeds"], values, strict=True))
        return [found[s] for s in seeds]

    numbers = {m: chosen(row, row["metrics"][task.score]) for m, row in rows.items()}
    images = {m: chosen(row, row["per_image"][task.score]) for m, row in rows.items()}
    return contrasts(numbers, pairs, margin=task.margin, images=images)


def verdicts(content: dict[str, Any]) -> str:
    """:func:`decided` as text."""
    told = decided(content)
    if not told:
        return "no contrast yet: two seeds that all rows have are needed"
    margin = get_task(content["settings"]["task"]).margin
    seeds, joined = judged(content["rows"])
    lines = [f"{len(seeds)} seeds, pooled 95 % intervals, Holm's p, margin {margin:g}"]
    for c in told:
        lines.append(
            f"{c.a + ' - ' + c.b:42}{c.mean:+9.4f} ± {c.half:.4f}  images ± {c.image_half:.4f}"
            f"  p {c.p:.3f}  {c.verdict}"
        )
    for method, row in content["rows"].items():
        dead = sum(map(bool, row.get("mute") or []))
        if dead or method not in joined:
            told_of = "" if method in joined else ", not judged"
            lines.append(f"{method}: {len(row['seeds'])} runs, {dead} say nothing{told_of}")
    return "\n".join(lines)
