"""The strength that pilots suggest, beside the swept ones of chapter 11: writes artifacts/dial-suggested.json.

    eqreg run rain --preset dial --methods plain --vary spread=20,60,90    # rates, which this script takes
    python benchmarks/suggested.py                                         # some minutes on one CPU core

For each seed: two pilots on one half of the patches each, a trial of the decay on one half, and one run
on all patches with the strength that follows. Networks, rain, steps and metrics are those of the preset
`dial`, whose other rows are `eqreg run rain --preset dial --vary spread=20,60,90` and
`--preset dial,spread=90 --vary strength=10,40,160`. It is no method of `eqreg run`, since there a strength
is tuned once for all seeds, from scores, while this one is found anew from the images of each seed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from common import ROOT, report, stamp
from torch import nn

from eqreg import C4, EquivarianceDecay, suggest_strength
from eqreg.data import RandomCrops, patches, photographs, seeded
from eqreg.experiments import tuning
from eqreg.physics.rain import RainModel, add_rain
from eqreg.tasks import Preset, get_task
from eqreg.training import Symmetry, fit

CASES = ("dial,spread=20", "dial,spread=60", "dial,spread=90", "dial,spread=90,patches=32")
TRIAL, LARGEST = 40.0, 2000.0
TASK = get_task("rain")
CPU = torch.device("cpu")


def trained(
    preset: Preset, x: torch.Tensor, y: torch.Tensor, seed: int, lr: float, strength: float = 0.0
) -> nn.Module:
    """A network of the preset, trained on these patches."""
    torch.manual_seed(seed)
    model = TASK.model(preset)
    decay = EquivarianceDecay(model, C4, strength) if strength else None
    fit(
        model, RandomCrops(x, y, crop=preset.sizes["crop"], batch=preset.images),
        steps=preset.steps, lr=lr, generator=seeded(seed + 1000), progress=False,
        symmetry=Symmetry(decay=decay),
    )  # fmt: skip
    return model.eval()


def in_rain(preset: Preset) -> torch.Tensor:
    """Validation crops, each with a direction of its own: what the pilots are compared on."""
    g = seeded(77)
    clean = patches(photographs("val", size=preset.sizes["size"]), 48, 16, generator=g)
    return add_rain(clean, RainModel(spread=preset.sizes["spread"]), generator=g)[0]


def suggested(preset: Preset, seed: int, lr: float) -> dict[str, Any]:
    """Two pilots, a trial, the strength, and the metrics of the network that was trained with it."""
    start = time.process_time()
    x, y = TASK.batches(preset, seed, preset.images, None, CPU).pairs
    pilots = [trained(preset, x[i::2], y[i::2], seed + 500 + 100 * i, lr) for i in (0, 1)]
    trial = trained(preset, x[0::2], y[0::2], seed + 500, lr, TRIAL)
    look = in_rain(preset)
    try:
        found = suggest_strength(pilots, look, C4, trial=(trial, TRIAL))
    except ValueError:  # a dead trial tells nothing about strengths: do without
        found = suggest_strength(pilots, look, C4)
    strength = min(found.decay or 0.0, LARGEST)
    model = trained(preset, x, y, seed, lr, strength)
    seconds = time.process_time() - start
    metrics = TASK.evaluate(model, preset, "test", None)
    return {
        "metrics": {name: sum(values) / len(values) for name, values in metrics.items()},
        "asymmetry": found.asymmetry, "agreed": found.agreed, "shrink": found.shrink,
        "strength": strength, "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs", help="where the rates are")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "dial-suggested.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start, rows, rates = time.process_time(), {}, {}
    for case in CASES:
        preset = TASK.preset(case)
        rates[case], _, tuned = tuning.settings("rain", case, "plain", arguments.runs)
        report(f"{case}: lr {rates[case]:g}, {'tuned' if tuned else 'not tuned'}")
        rows[case] = [suggested(preset, seed, rates[case]) for seed in preset.seeds]
    hours = (time.process_time() - start) / 3600
    content = {
        "stamp": stamp(TASK.preset("dial").seeds, hours),
        "settings": {"trial": TRIAL, "largest": LARGEST, "rates": rates},
        "rows": rows,
    }
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
