"""The dial of chapter 11: writes artifacts/dial.json.

    python benchmarks/dial.py              # about ten minutes on an idle CPU core, resumable

Rain whose direction is drawn within ±spread of the vertical: at 90 degrees a quarter turn leaves its law
as it is, at 45 and below it makes rain that never occurs. At each setting the strength of the decay is
swept, suggested from pilots, and set automatically. Validation crops choose, test crops report.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from pathlib import Path

import torch
from common import ROOT, Cache, report, seeded, stamp

from eqreg import C4, AgreementStrength, EquivarianceDecay, psnr, rotate, suggest_strength
from eqreg.data import patches, photographs
from eqreg.models import ResidualNet
from eqreg.physics.rain import RainModel, add_rain
from eqreg.training import Symmetry, fit

STEPS, BATCH, CROP, PATCH, SIZE, WIDTH, DEPTH = 160, 8, 16, 32, 128, 12, 4
# (spread in degrees, training patches)
CASES = ((20, 4), (60, 4), (90, 4), (90, 32))
STRENGTHS = (0, 10, 40, 160)
RATES, TUNING_SEEDS, TUNING_STRENGTH = (4e-3, 8e-3, 1.6e-2), (100,), 10
# The automatic strength has 40 updates here; twice the usual step lets it move by a factor of 50.
TRIAL, LARGEST, START, AUTO_RATE = 40.0, 2000.0, 40.0, 0.1

photographs = functools.lru_cache(photographs)


def pool(split: str, side: int, number: int, spread: float, seed: int) -> torch.Tensor:
    """Rainy and clean crops, (2, number, 1, side, side); every crop has its own direction."""
    g = seeded(seed)
    clean = patches(photographs(split, size=SIZE), side, number, generator=g)
    return torch.stack([add_rain(clean, RainModel(spread=spread), generator=g)[0], clean])


@functools.lru_cache
def held_out(split: str, spread: float) -> torch.Tensor:
    return pool(split, 48, {"val": 16, "test": 36}[split], spread, {"val": 77, "test": 78}[split])


def train(pairs, seed: int, strength: float = 0.0, lr: float = 8e-3, automatic: bool = False):
    """The trained network, its decay, and the CPU seconds spent."""

    def sample(generator):
        i = torch.randint(pairs.shape[1], (BATCH,), generator=generator)
        top, left = torch.randint(PATCH - CROP + 1, (2,), generator=generator).tolist()
        return pairs[:, i, :, top : top + CROP, left : left + CROP].unbind()

    torch.manual_seed(seed)
    model = ResidualNet(width=WIDTH, depth=DEPTH)
    decay = EquivarianceDecay(model, C4, strength) if strength else None
    auto = AgreementStrength(decay, rate=AUTO_RATE) if automatic else None
    start = time.process_time()
    fit(
        model, sample, steps=STEPS, lr=lr, symmetry=Symmetry(decay=decay, automatic=auto),
        generator=seeded(seed + 1000), progress=False,
    )  # fmt: skip
    return model.eval(), decay, time.process_time() - start


@torch.no_grad()
def quality(model, pairs) -> float:
    return round(float(psnr(model(pairs[0]).clamp(0, 1), pairs[1]).mean()), 4)


def row(spread: float, model, seconds: float) -> dict:
    x = held_out("test", spread)[0]
    with torch.no_grad():
        y = model.body(x)
        lost = [(model.body(rotate(x, k)) - rotate(y, k)).square().mean() for k in (1, 2, 3)]
    return {
        "val": quality(model, held_out("val", spread)),
        "test": quality(model, held_out("test", spread)),
        "error_C4": float(f"{float(sum(lost) / 3 / y.square().mean()):.4g}"),
        "seconds": round(seconds, 3),
    }


def swept(spread: float, number: int, seed: int, strength: float, lr: float) -> dict:
    model, _, seconds = train(pool("train", PATCH, number, spread, seed), seed, strength, lr)
    return row(spread, model, seconds)


def suggested(spread: float, number: int, seed: int, lr: float) -> dict:
    """Two pilots on half of the patches each, a trial on one half, then one run on all."""
    pairs = pool("train", PATCH, number, spread, seed)
    halves = pairs[:, 0::2], pairs[:, 1::2]
    pilots = [train(half, seed + 500 + 100 * i, 0.0, lr) for i, half in enumerate(halves)]
    trial = train(halves[0], seed + 500, TRIAL, lr)
    networks, x = [model for model, _, _ in pilots], held_out("val", spread)[0]
    try:
        found = suggest_strength(networks, x, C4, trial=(trial[0], TRIAL))
    except ValueError:  # a dead trial tells nothing about strengths: do without
        found = suggest_strength(networks, x, C4)
    strength = min(found.decay or 0.0, LARGEST)
    model, _, seconds = train(pairs, seed, strength, lr)
    return row(spread, model, seconds + sum(s for _, _, s in (*pilots, trial))) | {
        "asymmetry": float(f"{found.asymmetry:.4g}"),
        "agreed": float(f"{found.agreed:.4g}"),
        "shrink": round(found.shrink, 4),
        "strength": round(strength, 2),
    }


def automatic(spread: float, number: int, seed: int, lr: float) -> dict:
    pairs = pool("train", PATCH, number, spread, seed)
    model, decay, seconds = train(pairs, seed, START, lr, automatic=True)
    logs = [math.log(s) for s in decay.strengths.values()]
    return row(spread, model, seconds) | {
        "strengths": {k: round(v, 1) for k, v in decay.strengths.items()},
        "strength": round(math.exp(sum(logs) / len(logs)), 2),
    }


def tune(cache: Cache) -> tuple[float, dict]:
    """One rate for all settings: the best on validation at a middling strength, both ends of the dial."""
    tried = {}
    for lr in RATES:
        runs = [
            cache.get(
                f"val {spread} {seed} lr={lr:g}",
                lambda a=(spread, 4, seed, TUNING_STRENGTH, lr): swept(*a)["val"],
            )
            for spread in (20, 90)
            for seed in TUNING_SEEDS
        ]
        tried[lr] = sum(runs) / len(runs)
    return max(tried, key=tried.get), {f"{lr:g}": round(v, 3) for lr, v in tried.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "dial.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "dial.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache, start, rows = Cache(arguments.cache), time.process_time(), {}
    lr, tried = tune(cache)
    report(f"rates {tried}")
    for seed in range(arguments.seeds):
        for case in CASES:
            found = {
                f"{s:g}": cache.get(
                    f"{case} {seed} {s:g} lr={lr:g}", lambda a=(*case, seed, s, lr): swept(*a)
                )
                for s in STRENGTHS
            }
            for name, job in (("suggested", suggested), ("automatic", automatic)):
                key = f"{case} {seed} {name} lr={lr:g}"
                found[name] = cache.get(key, lambda job=job, a=(*case, seed, lr): job(*a))
            rows.setdefault("{}, {}".format(*case), []).append(found)
        report(f"seed {seed} done")
    # Time of earlier, interrupted calls counts too.
    cache.get(f"seconds {time.time():.0f}", lambda: time.process_time() - start)
    spent = sum(v for k, v in cache.found.items() if k.startswith("seconds"))
    result = {
        "rows": rows,
        "lr": lr,
        "rates": tried,
        "settings": {
            "steps": STEPS, "batch": BATCH, "crop": CROP, "patch": PATCH, "width": WIDTH,
            "depth": DEPTH, "strengths": list(STRENGTHS), "trial": TRIAL, "start": START, "auto_rate": AUTO_RATE,
            "cases": [list(case) for case in CASES], "tuning_seeds": list(TUNING_SEEDS),
        },
        "stamp": stamp(range(arguments.seeds), spent / 3600),
    }  # fmt: skip
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report(f"wrote {arguments.out} after {spent / 60:.0f} minutes of CPU time")


if __name__ == "__main__":
    main()
