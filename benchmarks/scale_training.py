"""The second half of scale.py: what changes a gradient, and what a training waits for."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eqreg import C4, EquivarianceRegularizer
from eqreg.data import patches, photographs, seeded
from eqreg.data.crops import RandomCrops
from eqreg.models import ResidualNet
from eqreg.physics.rain import RainModel, add_rain
from eqreg.strict import equivariant
from eqreg.training import Symmetry, fit
from eqreg.training.checkpoint import save_checkpoint

DEPTH, BATCH, SIZE = 6, 8, 32
WIDTHS = (16, 32, 64)


def network(width: int) -> ResidualNet:
    torch.manual_seed(0)
    return ResidualNet(width=width, depth=DEPTH)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def rain(crop: int, batch: int, number: int = 16) -> RandomCrops:
    clean = patches(photographs("train"), 96, number, generator=seeded(0))
    rainy, _ = add_rain(clean, RainModel(angle=0, spread=20), generator=seeded(1))
    return RandomCrops(rainy, clean, crop=crop, batch=batch)


def gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]


def accumulation() -> dict[str, list[dict[str, float]]]:
    """Gradients of a batch in parts against those of the whole, at the start and in training."""
    model, found = network(16), {}
    x, y = rain(SIZE, 16)(seeded(2))
    for when, steps in (("at the start", 0), ("after 200 steps", 200)):
        if steps:
            fit(model, rain(SIZE, 8), steps=steps, lr=4e-3, generator=seeded(3), progress=False)
        reg = EquivarianceRegularizer(model, C4)
        rows, whole = [], {}
        for number in (1, 2, 4, 8, 16):
            now, values = {}, {}
            for name in ("task", "penalty"):
                model.zero_grad()
                total = 0.0
                for px, py in zip(x.chunk(number), y.chunk(number), strict=True):
                    loss = F.mse_loss(model(px), py) if name == "task" else reg(px, g=1).penalty
                    (loss / number).backward()
                    total += float(loss.detach()) / number
                now[name], values[name] = gradient(model), total
            whole = whole or dict(now)
            row = {"parts": number, "penalty": values["penalty"]}
            for name in now:
                row[f"{name} difference"] = float(
                    (now[name] - whole[name]).norm() / whole[name].norm()
                )
            rows.append({k: float(f"{v:.3g}") for k, v in row.items()})
        found[when] = rows
    return found


def precision() -> dict[str, dict[str, float]]:
    """Penalty and its gradient in half precision, and what a strict network then seems to lack."""
    x, _ = rain(SIZE, 8)(seeded(2))
    model = network(32)
    reg = EquivarianceRegularizer(model, C4)
    strict = equivariant(network(32), C4, match="width")
    fields = {name: field for name, field in reg.plan.fields.items()}
    strict_reg = EquivarianceRegularizer(strict, C4, fields=fields)
    found, exact = {}, None
    for name, dtype in (
        ("float32", None),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ):
        model.zero_grad()
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            out = reg(x, g=1)
            with torch.no_grad():
                strict_out = strict_reg(x, g=1)
        out.penalty.backward()
        now = (float(out.penalty.detach()), gradient(model))
        exact = exact or now
        layers = [float(v) for v in strict_out.per_layer.values()]
        found[name] = {
            "penalty, relative error": abs(now[0] / exact[0] - 1),
            "gradient, relative error": float((now[1] - exact[1]).norm() / exact[1].norm()),
            "strict network, mean": float(strict_out.penalty),
            "strict network, first layer": layers[0],
            "strict network, last layer": layers[-1],
        }
    return {k: {n: float(f"{v:.3g}") for n, v in row.items()} for k, row in found.items()}


def waiting() -> list[dict[str, float]]:
    """Share of a training's time that is spent in the sampler."""
    rows = []
    for width in (16, 32):
        for crop in (16, 32, 64):
            shares = []
            for lam in (None, 1e-3):
                model, settings = network(width), {}
                if lam is not None:
                    settings = {"regularizer": EquivarianceRegularizer(model, C4), "lam": lam}
                history = fit(
                    model, rain(crop, BATCH), steps=16, lr=1e-4, generator=seeded(4),
                    progress=False, symmetry=Symmetry(**settings),
                )  # fmt: skip
                shares.append(round(history.waiting / history.seconds, 4))
            rows.append({"width": width, "crop": crop, "plain": shares[0], "EQ-Reg": shares[1]})
    return rows


def checkpoints() -> list[dict[str, float]]:
    """Size of a checkpoint and the time to write it, in plain steps."""
    rows = []
    for width in WIDTHS:
        model = network(width)
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
        x = torch.rand(BATCH, 1, SIZE, SIZE)

        def plain(model: nn.Module = model, x: Tensor = x) -> None:
            F.mse_loss(model(x), x).backward()

        step = min(seconds(plain) for _ in range(4))
        optimizer.step()
        with tempfile.TemporaryDirectory() as folder:
            path, took = Path(folder, "c"), []
            for _ in range(9):
                start = time.perf_counter()  # waiting for the disk is no CPU time
                save_checkpoint(
                    path, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                )
                took.append(time.perf_counter() - start)
            size = path.stat().st_size
        rows.append(
            {"width": width, "bytes": size, "steps": round(statistics.median(took) / step, 2)}
        )
    return rows
