"""Accuracy against training-set size, chapter 16: writes artifacts/classification-sizes.json.

    python benchmarks/classification.py    # about 40 minutes on an idle CPU core, resumable

Three laws for scikit-learn's digits, and patches of textures:

* upright: as written. Tested at other angles too.
* mixed: each image of 0-5, 7 and 8 is turned by a random quarter turn, 6 and 9 are as written.
* turned: all digits are turned, and nothing tells a 6 from a 9 but the writer's hand.
* textures: patches at random angles, test patches from other parts of the photographs.

Learning rates are chosen for each law and method, strengths for each size as well, on validation images.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from common import ROOT, Cache, report, seeded, stamp

from eqreg import (
    C4,
    C8,
    D4,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    equivariant_init_,
    rotate,
)
from eqreg.data import TEXTURES, Labelled, digits, textures, turn
from eqreg.models import Classifier
from eqreg.strict import equivariant
from eqreg.strict.escnn import EscnnConv2d
from eqreg.training import Symmetry, fit

STEPS, BATCH, SIZE, WIDTH, DEPTH = 300, 32, 16, 16, 3
TEXTURE_SIZE = 24  # smaller patches hardly show more than a brick
KEPT = {"upright": range(10), "mixed": (6, 9), "turned": (), "textures": ()}  # never turned
SIZES = {
    "upright": (1000,), "mixed": (50, 100, 400), "turned": (100,),
    "textures": (160,),
}  # fmt: skip
METHODS = ("plain", "augmentation", "strict", "strict-equal", "eqreg", "decay", "automatic")
STRENGTHS = {
    "eqreg": (1e-3, 1e-2, 1e-1), "decay": (10.0, 40.0, 160.0), "decay free head": (10.0, 40.0),
}  # fmt: skip
MIDDLE = {"eqreg": 1e-2, "decay": 10.0, "decay free head": 10.0}
RATES, TUNING_SIZE = (8e-3, 1.6e-2, 3.2e-2), {"textures": 160}
TUNING_SEEDS = (100, 101)
# Strict rows beside C4: other groups, and C4 by the layers of escnn.
STRICT = {"strict-C8": C8, "strict-D4": D4, "strict-escnn": C4}
START, AUTO_RATE = 40.0, 0.1  # 75 updates: the strength can move by a factor of 1800
ANGLES = tuple(range(0, 181, 15))


@functools.lru_cache(maxsize=8)
def held_out(law: str, split: str) -> Labelled:
    """Images to judge by; a class that may be turned is shown in all four orientations."""
    if law == "textures":
        n = {"val": 400, "test": 800}[split]
        return textures(split, n, size=TEXTURE_SIZE, generator=seeded(7))
    x, y = digits(split, size=SIZE)
    kept = torch.tensor([int(c) in KEPT[law] for c in y])[:, None, None, None]
    views = [torch.where(kept, x, rotate(x, k)) for k in range(4)]
    return Labelled(torch.cat(views), y.repeat(4))


@functools.lru_cache(maxsize=8)
def train_set(law: str, n: int, seed: int) -> Labelled:
    g = seeded(seed)
    if law == "textures":
        return textures("train", n, size=TEXTURE_SIZE, generator=g)
    x, y = digits("train", size=SIZE)
    rows = torch.randperm(len(y), generator=g)[:n]
    x, y = x[rows], y[rows]
    k = torch.randint(4, (n,), generator=g)
    k[torch.tensor([int(c) in KEPT[law] for c in y])] = 0
    return Labelled(torch.stack([rotate(i, int(t)) for i, t in zip(x, k, strict=True)]), y)


def train(law: str, n: int, method: str, seed: int, lr: float, strength: float):
    """The trained network and, for the methods that have one, its decay."""
    x, y = train_set(law, n, seed)
    classes = len(TEXTURES) if law == "textures" else 10
    torch.manual_seed(seed)
    model = Classifier(classes=classes, width=WIDTH, depth=DEPTH)
    head = {"head": f"{classes}t"}
    settings, batch = {}, BATCH
    if method.startswith("strict"):
        match = "parameters" if method == "strict-equal" else "width"
        layer = EscnnConv2d if method == "strict-escnn" else None
        model = equivariant(model, STRICT.get(method, C4), match=match, layer=layer)
    elif method == "augmentation":
        settings["augment"] = C4
    elif method == "eqreg":
        reg = EquivarianceRegularizer(model, C4, fields=head, generator=seeded(seed + 2000))
        settings, batch = {"regularizer": reg, "lam": strength}, BATCH // 2
    elif method.startswith(("decay", "automatic")):
        # The free head may weigh the channels of a field differently, and see an orientation.
        tied = {"layers": "body.*"} if method.endswith("free head") else {"fields": head}
        equivariant_init_(model, C4, **tied)  # projecting random weights would fade the signal
        settings["decay"] = EquivarianceDecay(model, C4, strength, **tied)
    if method.startswith("automatic"):
        settings["automatic"] = AgreementStrength(settings["decay"], rate=AUTO_RATE)

    def sample(generator):
        rows = torch.randint(n, (batch,), generator=generator)
        return x[rows], y[rows]

    fit(
        model, sample, steps=STEPS, lr=lr, loss=F.cross_entropy, generator=seeded(seed + 1000),
        progress=False, symmetry=Symmetry(**settings),
    )  # fmt: skip
    return model.eval(), settings.get("decay")


@torch.no_grad()
def right(model, part: Labelled) -> torch.Tensor:
    return (model(part.images).argmax(1) == part.labels).float()


def accuracy(law: str, n: int, method: str, lr: float, strength: float) -> float:
    """On validation images, mean over the tuning seeds; a run that diverged counts as the worst."""
    found = []
    for seed in TUNING_SEEDS:
        try:
            model, _ = train(law, n, method, seed, lr, strength)
        except FloatingPointError:
            found.append(0.0)
        else:
            found.append(float(right(model, held_out(law, "val")).mean()))
    return round(sum(found) / len(found), 4)


def row(law: str, n: int, method: str, seed: int, lr: float, strength: float) -> dict:
    start = time.process_time()
    model, decay = train(law, n, method, seed, lr, strength)
    seconds = time.process_time() - start
    part = held_out(law, "test")
    hit, y = right(model, part), part.labels
    with torch.no_grad():
        logits = model(part.images)
        change = [(model(rotate(part.images, k)) - logits).square().mean() for k in (1, 2, 3)]
    found = {
        "accuracy": round(float(hit.mean()), 4),
        "error_C4": float(f"{float(sum(change) / 3 / logits.square().mean()):.3g}"),
        "seconds": round(seconds, 2),
    }
    if law != "textures":
        found["accuracy_69"] = round(float(hit[(y == 6) | (y == 9)].mean()), 4)
    if law == "upright":
        x, y = digits("test", size=SIZE)
        found["angles"] = [
            round(float(right(model, Labelled(turn(x, float(a)), y)).mean()), 4) for a in ANGLES
        ]
    if decay is not None:
        found["strengths"] = {k: round(v, 1) for k, v in decay.strengths.items()}
    return found


def methods(law: str) -> tuple[str, ...]:
    further = {"upright": tuple(STRICT), "mixed": ("decay free head",)}
    return METHODS + further.get(law, ())


def tune(cache: Cache, law: str, method: str) -> tuple[float, dict]:
    """The rate that is best on validation at one size and a middling strength."""
    n = TUNING_SIZE.get(law, 200 if law == "mixed" else 1000)
    strength = START if method == "automatic" else MIDDLE.get(method, 0.0)
    tried = {
        lr: cache.get(
            f"val {law} {n} {method} {lr:g} {strength:g}",
            lambda a=(law, n, method, lr, strength): accuracy(*a),
        )
        for lr in RATES
    }
    return max(tried, key=tried.get), {f"{lr:g}": v for lr, v in tried.items()}


def strongest(cache: Cache, law: str, n: int, method: str, lr: float) -> tuple[float, dict]:
    """The strength that is best on validation at this size."""
    if method not in STRENGTHS:
        return (START if method == "automatic" else 0.0), {}
    tried = {
        s: cache.get(
            f"val {law} {n} {method} {lr:g} {s:g}",
            lambda a=(law, n, method, lr, s): accuracy(*a),
        )
        for s in STRENGTHS[method]
    }
    return max(tried, key=tried.get), {f"{s:g}": v for s, v in tried.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--laws", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "classification.jsonl")
    name = "classification-sizes.json"
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / name)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache, start, rows, tuning = Cache(arguments.cache), time.process_time(), {}, {}
    for law in arguments.laws:
        for method in methods(law):
            lr, tried = tune(cache, law, method)
            tuning.setdefault(law, {})[method] = {"lr": lr, "rates": tried, "strengths": {}}
            for n in SIZES[law]:
                s, tried = strongest(cache, law, n, method, lr)
                if tried:
                    tuning[law][method]["strengths"][str(n)] = {"chosen": s, "tried": tried}
                found = [
                    cache.get(
                        f"test {law} {n} {method} {seed} {lr:g} {s:g}",
                        lambda a=(law, n, method, seed, lr, s): row(*a),
                    )
                    for seed in range(arguments.seeds)
                ]
                rows.setdefault(law, {}).setdefault(str(n), {})[method] = found
                mean = sum(f["accuracy"] for f in found) / len(found)
                report(f"{law} {n} {method}: lr {lr:g}, strength {s:g}, accuracy {mean:.3f}")
    # Time of earlier, interrupted calls counts too.
    cache.get(f"seconds {time.time():.0f}", lambda: time.process_time() - start)
    spent = sum(v for k, v in cache.found.items() if k.startswith("seconds"))
    result = {
        "rows": rows,
        "tuning": tuning,
        "settings": {
            "steps": STEPS, "batch": BATCH, "size": SIZE, "width": WIDTH, "depth": DEPTH,
            "angles": list(ANGLES), "start": START, "auto_rate": AUTO_RATE, "tuning_seeds": list(TUNING_SEEDS),
            "texture_size": TEXTURE_SIZE,
        },
        "stamp": stamp(range(arguments.seeds), spent / 3600),
    }  # fmt: skip
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    report(f"wrote {arguments.out} after {spent / 60:.0f} minutes of CPU time")


if __name__ == "__main__":
    main()
