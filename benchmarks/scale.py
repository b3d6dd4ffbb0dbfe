"""What chapter 19 shows: time and memory of a regularised step, accumulation, precision, waiting.

    python benchmarks/scale.py             # under 10 minutes on one CPU core

All times are ratios to a plain step of the same round; methods take turns, medians and quartiles over
rounds. CPU time of one thread, so that other programs on the machine matter little. Writes
artifacts/scale.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from common import ROOT, report, stamp
from scale_training import (
    BATCH,
    DEPTH,
    SIZE,
    WIDTHS,
    accumulation,
    checkpoints,
    network,
    precision,
    seconds,
    waiting,
)
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from eqreg import C4, EquivarianceDecay, EquivarianceRegularizer, act, rotate
from eqreg.data import seeded
from eqreg.strict import equivariant

PERIOD = 4  # steps of a round, so that every=4 shows its average


def spread(values: list[float]) -> list[float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return [round(v, 3) for v in (middle, low, high)]


# ---- methods


def methods(width: int) -> dict[str, Callable[[], None]]:
    """One training step of each method: loss, backward, Adam."""
    x = torch.rand(BATCH, 1, SIZE, SIZE, generator=seeded(0))
    both = torch.cat([x, rotate(x, 1)])

    def step(model: nn.Module, loss: Callable[[], Tensor], after: Callable = lambda: None):
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)

        def run() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            after()

        return run

    def task(model: nn.Module, images: Tensor) -> Callable[[], Tensor]:
        return lambda: F.mse_loss(model(images), images)

    def paired(**options: float) -> Callable[[], None]:
        model = network(width)
        reg = EquivarianceRegularizer(model, C4, generator=seeded(1), **options)  # type: ignore[arg-type]

        def loss() -> Tensor:
            out = reg(x)
            return F.mse_loss(out.y, x) + F.mse_loss(out.y_g, out.act(x)) + 0.1 * out.penalty

        return step(model, loss)

    plain, doubled, decayed = network(width), network(width), network(width)
    decay = EquivarianceDecay(decayed, C4, 40.0)
    strict = {m: equivariant(network(width), C4, match=m) for m in ("width", "parameters")}  # type: ignore[arg-type]
    return {
        "plain": step(plain, task(plain, x)),
        "twice the images": step(doubled, task(doubled, both)),
        "EQ-Reg": paired(),
        "fraction 1/2": paired(fraction=0.5),
        "fraction 1/4": paired(fraction=0.25),
        "every 4th": paired(every=4),
        "1/4, every 4th": paired(fraction=0.25, every=4),
        "decay": step(decayed, task(decayed, x), lambda: decay.step(1e-4)),
        "strict, equal width": step(strict["width"], task(strict["width"], x)),
        "strict, equal parameters": step(strict["parameters"], task(strict["parameters"], x)),
    }


def cost(width: int, rounds: int) -> dict[str, list[float]]:
    kinds = methods(width)
    ratios: dict[str, list[float]] = {name: [] for name in kinds}
    for i in range(rounds + 1):
        spent = {}
        for name, run in kinds.items():
            often = PERIOD if "every" in name else 2 if width < WIDTHS[-1] else 1
            spent[name] = (
                seconds(lambda run=run, often=often: [run() for _ in range(often)]) / often
            )
        if i:  # the first round warms up
            for name, t in spent.items():
                ratios[name].append(t / spent["plain"])
    return {name: spread(values) for name, values in ratios.items()}


# ---- the parts of one step


def parts(width: int, rounds: int) -> dict[str, list[float]]:
    """Where the time of an EQ-Reg step goes, in plain steps (forward and backward)."""
    model = network(width)
    x = torch.rand(BATCH, 1, SIZE, SIZE, generator=seeded(0))
    both = torch.cat([x, rotate(x, 1)])
    reg = EquivarianceRegularizer(model, C4)
    features = [torch.rand(BATCH, field.channels, SIZE, SIZE) for field in reg.plan.fields.values()]
    fields = list(reg.plan.fields.values())

    def passes(forward: Callable[[], Tensor]) -> tuple[float, float]:
        found: list[Tensor] = []
        first = seconds(lambda: found.append(forward()))
        return first, seconds(lambda: found[0].backward())

    def paired() -> Tensor:
        out = reg(x, g=1)
        return F.mse_loss(out.y, x) + F.mse_loss(out.y_g, out.act(x)) + 0.1 * out.penalty

    def turning() -> None:
        for z, field in zip(features, fields, strict=True):
            act(z, 1, field)
        torch.cat([x, rotate(x, 1)]), rotate(x, 1)

    shares: dict[str, list[float]] = {}
    for i in range(rounds + 1):
        plain = passes(lambda: F.mse_loss(model(x), x))
        twice = passes(lambda: F.mse_loss(model(both), both))
        pair, turned = passes(paired), seconds(turning)
        found = {
            "plain forward": plain[0],
            "plain backward": plain[1],
            "forward": twice[0],
            "turning": turned,
            "comparing": pair[0] - twice[0] - turned,
            "backward of the network": twice[1],
            "backward of the comparison": pair[1] - twice[1],
            "whole": sum(pair),
        }
        if i:
            for name, t in found.items():
                shares.setdefault(name, []).append(t / sum(plain))
    return {name: spread(values) for name, values in shares.items()}


def rates(width: int, rounds: int) -> dict[str, float]:
    """Operations per second of a convolution with its backward, bytes per second of an addition."""
    conv = nn.Conv2d(width, width, 3, padding=1)
    z = torch.rand(BATCH, width, SIZE, SIZE, requires_grad=True)
    a, b = torch.rand(2, BATCH, width, SIZE, SIZE)
    operations = 3 * 2 * 9 * width * z.numel()  # forward, gradient of the input, of the weight
    fast, wide = [], []
    for _ in range(rounds):
        fast.append(operations / seconds(lambda: conv(z).sum().backward()))
        wide.append(8 * 12 * a.numel() / seconds(lambda: [torch.add(a, b) for _ in range(8)]))
    return {"operations": statistics.median(fast[1:]), "bytes": statistics.median(wide[1:])}


# ---- memory


class Alive(TorchDispatchMode):
    """Bytes of the tensors that were made inside and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                storage = t.untyped_storage()
                self.found[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, self.now())
        return out

    def now(self) -> int:
        self.found = {k: v for k, v in self.found.items() if not v[0].expired()}
        return sum(size for _, size in self.found.values())


def memory(width: int) -> dict[str, float]:
    """Largest number of bytes alive at once in a step, in plain steps."""
    found = {}
    for name, run in methods(width).items():
        run()  # the optimizer's own tensors are made once
        with Alive() as alive:
            for _ in range(PERIOD if "every" in name else 1):
                run()
        found[name] = alive.peak
    return {name: round(peak / found["plain"], 3) for name, peak in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "scale.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    content: dict = {
        "settings": {"depth": DEPTH, "batch": BATCH, "size": SIZE, "rounds": arguments.rounds}
    }
    for name, measure in (("rates", rates), ("parts", parts), ("cost", cost)):
        content[name] = {w: measure(w, arguments.rounds) for w in WIDTHS}
        report(f"{name}: {content[name]}")
    content["memory"] = memory(32)
    report(f"memory: {content['memory']}")
    for function in (accumulation, precision, waiting, checkpoints):
        content[function.__name__] = function()
        report(f"{function.__name__}: {content[function.__name__]}")
    hours = (time.perf_counter() - start) / 3600
    content = {"stamp": stamp([0], hours), **content}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    report(f"wrote {arguments.out} after {60 * hours:.1f} minutes")


if __name__ == "__main__":
    main()
