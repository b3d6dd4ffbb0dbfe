"""The long run of chapter 11: writes artifacts/soft.json, the table of all methods of Part III.

    python benchmarks/soft.py              # about three hours on one CPU core, resumable
    python benchmarks/soft.py --task rain  # one half of it, to run two side by side

Two tasks, one with the symmetry of quarter turns (inpainting) and one without (rain), and 4, 16 and 64
training patches. Each method takes the same number of steps with the same number of images through the
network per step. Learning rates are chosen on validation photographs at 16 patches, strengths for each
number of patches, with seeds that are not used again.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from common import ROOT, Cache, random_crops, report, seeded, stamp
from torch import nn

from eqreg import (
    C2,
    C4,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    equivariant_init_,
    layer_errors,
    psnr,
    rotate,
)
from eqreg.data import patches, photographs
from eqreg.models import ResidualNet
from eqreg.physics.rain import RainModel, add_rain
from eqreg.strict import equivariant
from eqreg.training import Symmetry, fit

STEPS, IMAGES, CROP, PATCH, SIZE, WIDTH, DEPTH = 400, 8, 24, 96, 128, 16, 6
NUMBERS, TUNING_NUMBER = (4, 16, 64), 16
RATES, TUNING_SEEDS = (4e-3, 8e-3, 1.6e-2), (100, 101)
RAIN, GAMMA, REMOVED = RainModel(angle=0, spread=20), 0.05, 0.3
# The group that the degradation has: rain looks alike upside down, missing pixels in any orientation.
RIGHT = {"rain": C2, "inpainting": C4}
PENALTIES, DECAYS = (1e-4, 1e-3, 1e-2), (10, 40, 160, 640)


@dataclass(frozen=True)
class Method:
    """One row of the table: what is switched on."""

    augment: object = None  # a group, or "right"
    strict: object = None
    match: str = "width"
    pairs: object = None
    labels: bool = True
    norm: str = "relative"
    penalty: bool = False  # the projection penalty
    decay: bool = False
    automatic: bool = False
    init: bool = False
    strengths: tuple = (0.0,)


METHODS = {
    "plain": Method(),
    "augmentation C2": Method(augment=C2),
    "augmentation C4": Method(augment=C4),
    "strict C2, equal width": Method(strict=C2),
    "strict C2, equal parameters": Method(strict=C2, match="parameters"),
    "strict C4, equal width": Method(strict=C4),
    "strict C4, equal parameters": Method(strict=C4, match="parameters"),
    "pairs C4": Method(pairs=C4),
    "EQ-Reg C2": Method(pairs=C2, strengths=PENALTIES),
    "EQ-Reg C4": Method(pairs=C4, strengths=PENALTIES),
    "EQ-Reg C4, no labels": Method(pairs=C4, labels=False, strengths=PENALTIES),
    "EQ-Reg C4, scale-free": Method(pairs=C4, norm="scale-free", strengths=PENALTIES),
    "projection penalty C4": Method(penalty=True, strengths=PENALTIES),
    "decay C4": Method(decay=True, strengths=DECAYS),
    "right augmentation + decay C4": Method(augment="right", decay=True, strengths=DECAYS),
    "automatic C4": Method(decay=True, automatic=True, strengths=(40,)),
    "equivariant start + decay C4": Method(init=True, decay=True, strengths=DECAYS),
}


def degrade(task: str, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if task == "rain":
        return add_rain(y, RAIN, generator=generator)[0]
    there = (torch.rand(y.shape, generator=generator) >= REMOVED).float()
    return GAMMA * torch.poisson(there * y / GAMMA, generator=generator)


photographs = functools.lru_cache(photographs)


def pictures(task: str, split: str):
    clean = torch.stack(list(photographs(split, size=SIZE).values()))
    return degrade(task, clean, seeded(10_000)), clean


def sampler(task: str, number: int, seed: int, batch: int):
    """Random crops of `number` fixed degraded patches, both drawn with the seed."""
    g = seeded(seed)
    clean = patches(photographs("train"), PATCH, number, generator=g)
    pair = torch.stack([degrade(task, clean, g), clean])
    return random_crops(pair, CROP, batch)


def train(name: str, task: str, number: int, seed: int, lr: float, strength: float, steps=STEPS):
    """The trained network and what was used to train it."""
    method = METHODS[name]
    torch.manual_seed(seed)
    model: nn.Module = ResidualNet(width=WIDTH, depth=DEPTH)
    if method.strict is not None:
        model = equivariant(model, method.strict, match=method.match)
    if method.init:
        equivariant_init_(model, C4)
    how: dict = {}
    if method.augment is not None:
        how["augment"] = RIGHT[task] if method.augment == "right" else method.augment
    if method.pairs is not None:
        reg = EquivarianceRegularizer(
            model, method.pairs, norm=method.norm, generator=seeded(seed + 2000)
        )
        how |= {"regularizer": reg, "lam": strength, "label_pairs": method.labels}
    if method.penalty:
        how |= {"regularizer": ProjectionPenalty(model, C4), "lam": strength}
    if method.decay:
        how["decay"] = EquivarianceDecay(model, C4, strength)
    if method.automatic:
        how["automatic"] = AgreementStrength(how["decay"])
    # A paired method passes every image twice, so its batch is half as large.
    batch = IMAGES // 2 if method.pairs is not None else IMAGES
    batches = sampler(task, number, seed, batch)
    fit(
        model,
        batches,
        steps=steps,
        lr=lr,
        generator=seeded(seed + 1000),
        progress=False,
        symmetry=Symmetry(**how),
    )
    return model.eval(), how


def validation(name: str, task: str, number: int, lr: float, strength: float) -> float:
    """Mean PSNR on the validation photographs, upright; diverged runs count as the worst."""
    x, y = pictures(task, "val")
    scores = []
    for seed in TUNING_SEEDS:
        try:
            model, _ = train(name, task, number, seed, lr, strength)
            with torch.no_grad():
                scores.append(float(psnr(model(x).clamp(0, 1), y).mean()))
        except FloatingPointError:
            scores.append(0.0)
    return sum(scores) / len(scores)


def measure(name: str, task: str, number: int, seed: int, lr: float, strength: float) -> dict:
    trained = train(name, task, number, seed, lr, strength)
    return describe(name, task, *trained)


@torch.no_grad()
def describe(name: str, task: str, model: nn.Module, how: dict) -> dict:
    x, y = pictures(task, "test")
    change = [model(rotate(x, k)) - rotate(x, k) for k in range(4)]
    power = change[0].square().flatten(1).sum(1)

    def quality(k: int) -> torch.Tensor:
        return psnr((rotate(x, k) + change[k]).clamp(0, 1), rotate(y, k))

    # The error of the correction, not of the image: the image itself passes the network unchanged.
    errors = [
        ((change[k] - rotate(change[0], k)).square().flatten(1).sum(1) / power).mean()
        for k in (1, 2, 3)
    ]
    row = {
        "psnr": round(float(quality(0).mean()), 4),
        "turned": round(float(quality(1).mean()), 4),
        "photographs": [round(v, 3) for v in quality(0).tolist()],
        "error_C2": float(f"{errors[1]:.4g}"),
        "error_C4": float(f"{sum(errors) / 3:.4g}"),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    if METHODS[name].strict is None:
        crops = x[..., :64, :64]
        layers = layer_errors(model, crops, C4)
        shares = EquivarianceRegularizer(model, C4)(crops, g=1).invariant_share
        row["layers_C4"] = float(f"{sum(layers.values()) / len(layers):.4g}")
        row["invariant_share"] = round(float(sum(shares.values()) / len(shares)), 4)
    if METHODS[name].automatic:
        row["strengths"] = {k: round(v, 1) for k, v in how["decay"].strengths.items()}
    return row


def tune(task: str, cache: Cache) -> dict:
    """Learning rate for each method, then its strength for each number of patches."""
    chosen: dict = {}

    def score(name: str, number: int, lr: float, strength: float) -> float:
        key = f"val {task} {number} {name} lr={lr:g} strength={strength:g}"
        return cache.get(key, lambda: validation(name, task, number, lr, strength))

    for name, method in METHODS.items():
        middle = method.strengths[len(method.strengths) // 2 - (len(method.strengths) > 3)]
        rates = {lr: score(name, TUNING_NUMBER, lr, middle) for lr in RATES}
        lr = max(rates, key=rates.get)
        row = {"lr": lr, "rates": {f"{k:g}": round(v, 3) for k, v in rates.items()}}
        for number in NUMBERS:
            options = method.strengths
            tried = {s: score(name, number, lr, s) for s in options} if len(options) > 1 else {}
            row[str(number)] = {
                "strength": max(tried, key=tried.get) if tried else options[0],
                "tried": {f"{k:g}": round(v, 3) for k, v in tried.items()},
            }
        chosen[name] = row
        report(f"{task} {name}: {json.dumps(row)}")
    return chosen


def cost(rounds: int = 8) -> dict[str, float]:
    """CPU time of a step relative to plain: the methods take turns, the best round counts."""
    best: dict = {}
    for _ in range(rounds):
        for name, method in METHODS.items():
            for steps in (10, 42):  # the difference leaves out set-up
                start = time.process_time()
                train(name, "inpainting", 4, 0, 1e-3, method.strengths[0], steps)
                seconds = time.process_time() - start
                best[name, steps] = min(best.get((name, steps), seconds), seconds)
    spent = {name: best[name, 42] - best[name, 10] for name in METHODS}
    return {name: round(s / spent["plain"], 2) for name, s in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=[*RIGHT], help="run this task only, write no artifact")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "soft.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = [arguments.task] if arguments.task else [*RIGHT]
    result: dict = {"input": {}, "rows": {}, "tuning": {}}
    seconds = 0.0
    for task in tasks:
        cache = Cache(arguments.cache / f"soft-{task}.jsonl")
        start = time.perf_counter()
        chosen = tune(task, cache)
        for seed in range(arguments.seeds):
            for number in NUMBERS:
                for name in METHODS:
                    lr, strength = chosen[name]["lr"], chosen[name][str(number)]["strength"]
                    key = f"test {task} {number} {name} seed={seed} lr={lr:g} strength={strength:g}"
                    row = cache.get(
                        key,
                        lambda a=(name, task, number, seed, lr, strength): measure(*a),
                    )
                    rows = result["rows"].setdefault(task, {}).setdefault(str(number), {})
                    for k, v in row.items():
                        rows.setdefault(name, {}).setdefault(k, []).append(v)
            report(f"{task}: seed {seed} done")
        result["tuning"][task] = chosen
        result["input"][task] = round(float(psnr(*pictures(task, "test")).mean()), 3)
        # Time of earlier, interrupted calls counts too.
        cache.get(f"seconds {time.time():.0f}", lambda s=start: time.perf_counter() - s)
        seconds += sum(v for k, v in cache.found.items() if k.startswith("seconds"))
    if arguments.task:
        return
    result["cost"] = cost()
    result["stamp"] = stamp(range(arguments.seeds), seconds / 3600)
    result["settings"] = {
        "steps": STEPS, "images_per_step": IMAGES, "crop": CROP, "patch": PATCH, "test_size": SIZE,
        "width": WIDTH, "depth": DEPTH, "rates": list(RATES), "tuning_seeds": list(TUNING_SEEDS),
        "tuning_number": TUNING_NUMBER, "gamma": GAMMA, "removed": REMOVED,
        "rain_spread": RAIN.spread,
    }  # fmt: skip
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report(f"wrote {arguments.out} after {result['stamp']['hours']} h of runs")


if __name__ == "__main__":
    main()
