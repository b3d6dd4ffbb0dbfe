"""The long run of chapter 13: writes artifacts/rain13.json.

    python benchmarks/rain13.py            # about 25 minutes on one CPU core
    python benchmarks/rain13.py --page     # a minute: what the page trains live, tuned anew; the rest stays

Four photographs to train on, two to choose learning rate and lambda on, six to report. All methods
make the same number of optimizer steps and pass the same number of images through the network per
step: 8 crops, or 4 crops and their 4 turned copies for the paired methods (EQ-Reg).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import torch
from common import ROOT, random_crops, report, seeded, stamp

from eqreg import (
    C2,
    C4,
    EquivarianceRegularizer,
    equivariance_error,
    layer_errors,
    psnr,
    rotate,
    ssim,
)
from eqreg.data import patches, photographs
from eqreg.models import ResidualNet
from eqreg.physics.rain import RainModel, add_rain
from eqreg.training import Symmetry, fit

RAIN = RainModel(angle=0, spread=20)
IMAGES, CROP, PATCH, PATCHES, SIZE = 8, 32, 96, 4, 192
PAGE_STEPS, PAGE_CROP = 60, 24
WIDTH, DEPTH = 16, 6
RATES, LAMBDAS = (5e-3, 1e-2, 2e-2), (1e-4, 1e-3, 1e-2)
TUNING_SEEDS = (100, 101)
GROUPS = {"C2": C2, "C4": C4}
# Rows of the table: kind and group. "pairs" is EQ-Reg at lambda = 0, that is augmentation in pairs.
METHODS = [
    "plain",
    "augmentation C2", "strict C2", "pairs C2", "EQ-Reg C2",
    "augmentation C4", "strict C4", "pairs C4", "EQ-Reg C4",
]  # fmt: skip
# What the page trains in quick mode.
PAGE = ["plain", "augmentation C4", "strict C4", "pairs C4", "EQ-Reg C4"]


def photographs_in_rain(split: str):
    clean = torch.stack(list(photographs(split, size=SIZE).values()))
    rainy, _ = add_rain(clean, RAIN, generator=seeded(10_000))
    return rainy, clean


def sampler(seed: int, batch: int, crop: int):
    """Random crops of a few fixed rainy patches; the seed decides patches and rain."""
    g = seeded(seed)
    clean = patches(photographs("train"), PATCH, PATCHES, generator=g)
    rainy, _ = add_rain(clean, RAIN, generator=g)
    pair = torch.stack([rainy, clean])
    return random_crops(pair, crop, batch)


def train(method: str, seed: int, steps: int, lr: float, lam: float = 0.0, crop: int = CROP):
    kind, _, name = method.partition(" ")
    group = GROUPS.get(name)
    torch.manual_seed(seed)
    model = ResidualNet(width=WIDTH, depth=DEPTH, strict=group if kind == "strict" else None)
    settings, batch = {}, IMAGES
    if kind == "augmentation":
        settings = {"augment": group}
    elif kind in ("pairs", "EQ-Reg"):
        reg = EquivarianceRegularizer(model, group, generator=seeded(seed + 2000))
        settings, batch = {"regularizer": reg, "lam": lam}, IMAGES // 2
    generator = seeded(seed + 1000)
    fit(
        model,
        sampler(seed, batch, crop),
        steps=steps,
        lr=lr,
        generator=generator,
        progress=False,
        symmetry=Symmetry(**settings),
    )
    return model.eval()


@torch.no_grad()
def quality(model, rainy, clean):
    restored = model(rainy).clamp(0, 1)
    return psnr(restored, clean), ssim(restored, clean)


def validation(method: str, steps: int, lr: float, lam: float, crop: int, data) -> float:
    """Mean PSNR on the validation photographs, upright; diverged runs count as the worst."""
    scores = []
    for seed in TUNING_SEEDS:
        try:
            model = train(method, seed, steps, lr, lam, crop)
            scores.append(float(quality(model, *data)[0].mean()))
        except FloatingPointError:
            scores.append(0.0)
    return sum(scores) / len(scores)


def tune(methods, steps: int, crop: int) -> dict:
    """Learning rate for each method, then lambda for EQ-Reg at the rate of its pairs."""
    data, found = photographs_in_rain("val"), {}
    for method in methods:
        kind, _, name = method.partition(" ")
        if kind == "EQ-Reg":
            lr = found[f"pairs {name}"]["lr"]
            options = [(lr, lam) for lam in LAMBDAS]
        else:
            options = [(lr, 0.0) for lr in RATES]
        scores = {option: validation(method, steps, *option, crop, data) for option in options}
        lr, lam = max(scores, key=scores.get)
        tried = [{"lr": r, "lam": m, "psnr": round(s, 3)} for (r, m), s in scores.items()]
        found[method] = {"lr": lr, "lam": lam, "tried": tried}
        report(f"tune {steps} {method}: lr {lr:g} lam {lam:g} {[t['psnr'] for t in tried]}")
    return found


def measure(method: str, seeds, steps: int, lr: float, lam: float) -> dict:
    rainy, clean = photographs_in_rain("test")
    turned = rotate(rainy, 1), rotate(clean, 1)
    kind, _, name = method.partition(" ")
    row: dict = {"lr": lr, "lam": lam}
    for key in ("psnr", "ssim", "psnr_turned", "ssim_turned", "error_C2", "error_C4"):
        row[key] = []
    for key in (
        "layers_C2",
        "layers_C4",
        "invariant_share_C2",
        "invariant_share_C4",
        "photographs",
    ):
        row[key] = {}
    for seed in seeds:
        model = train(method, seed, steps, lr, lam)
        row["parameters"] = sum(p.numel() for p in model.parameters())
        for suffix, data in (("", (rainy, clean)), ("_turned", turned)):
            p, s = quality(model, *data)
            row["psnr" + suffix].append(round(float(p.mean()), 4))
            row["ssim" + suffix].append(round(float(s.mean()), 5))
            if not suffix:
                for photo, value in zip(photographs("test"), p.tolist(), strict=True):
                    row["photographs"].setdefault(photo, []).append(round(value, 3))
        # The error of the correction, not of the image: the image itself passes the net unchanged.
        for label, group in GROUPS.items():
            error = equivariance_error(model.body, rainy, group).mean()
            row[f"error_{label}"].append(float(f"{error:.4g}"))
            if kind == "strict" and label != name:
                continue  # its features are fields of one group only
            for layer, value in layer_errors(model, rainy, group).items():
                row[f"layers_{label}"].setdefault(layer, []).append(float(f"{value:.4g}"))
            with torch.no_grad():
                shares = EquivarianceRegularizer(model, group)(rainy, g=1).invariant_share
            for layer, value in shares.items():
                row[f"invariant_share_{label}"].setdefault(layer, []).append(round(float(value), 4))
        report(
            f"{method} seed {seed}: {row['psnr'][-1]:.2f} turned {row['psnr_turned'][-1]:.2f} "
            f"C4 {row['error_C4'][-1]:.2g}"
        )
    return row


def cost(rounds: int = 12) -> dict[str, float]:
    """CPU time of a step relative to plain: the methods take turns, the best round counts."""
    best: dict = {}
    for _ in range(rounds):
        for method in METHODS:
            for steps in (10, 40):  # the difference leaves out set-up
                start = time.process_time()
                train(method, 0, steps, 1e-4, 1e-4 if method.startswith("EQ-Reg") else 0.0)
                seconds = time.process_time() - start
                best[method, steps] = min(best.get((method, steps), seconds), seconds)
    spent = {method: best[method, 40] - best[method, 10] for method in METHODS}
    return {method: round(s / spent["plain"], 2) for method, s in spent.items()}


def tuned_for_the_page() -> dict:
    """Rates and strengths of what chapter 13 trains while it is read; fewer steps, smaller crops."""
    start = time.perf_counter()
    found = tune(PAGE, PAGE_STEPS, PAGE_CROP)
    hours = (time.perf_counter() - start) / 3600
    return {
        "steps": PAGE_STEPS, "crop": PAGE_CROP, "stamp": stamp(TUNING_SEEDS, hours), **found
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--page", action="store_true", help="only tune what the page trains")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "rain13.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.page:
        content = json.loads(arguments.out.read_text(encoding="utf-8"))
        content["page"] = tuned_for_the_page()
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return
    start = time.perf_counter()
    rainy, clean = photographs_in_rain("test")
    page = tuned_for_the_page()
    chosen = tune(METHODS, arguments.steps, CROP)
    seeds = range(arguments.seeds)
    rows = {
        method: measure(method, seeds, arguments.steps, chosen[method]["lr"], chosen[method]["lam"])
        for method in METHODS
    }
    for method, ratio in cost().items():
        rows[method]["cost"] = ratio
    content = {
        "stamp": stamp(seeds, (time.perf_counter() - start) / 3600),
        "settings": {
            "rain": asdict(RAIN), "steps": arguments.steps, "images_per_step": IMAGES, "crop": CROP,
            "patch": PATCH, "patches": PATCHES, "test_size": SIZE, "width": WIDTH, "depth": DEPTH,
            "tuning_seeds": list(TUNING_SEEDS),
        },
        "input": {"psnr": float(psnr(rainy, clean).mean()), "ssim": float(ssim(rainy, clean).mean())},
        "rows": rows,
        "tuning": {m: chosen[m]["tried"] for m in METHODS},
        "page": page,
    }  # fmt: skip
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report(f"wrote {arguments.out} after {content['stamp']['hours']} h")


if __name__ == "__main__":
    main()
