"""What can be tied in the networks of others: shares, errors, and the operations that break the symmetry.

``python tests/zoo/measure.py --keep artifacts`` measures all and stores the table, ``artifacts/zoo.json``.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import time
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from networks import NETWORKS, Network
from torch import Tensor, nn

from eqreg import C4, EquivarianceDecay, EquivarianceRegularizer, equivariance_error
from eqreg.experiments.stamp import code_version, device_name, today
from eqreg.layers.trace import tie

EXACT = 1e-8  # relative error, in double precision, of what counts as exactly equivariant
_PACKAGES = (
    "torch",
    "timm",
    "torchvision",
    "spandrel",
    "segmentation_models_pytorch",
    "monai",
    "deepinv",
)


def perturbed(model: nn.Module) -> nn.Module:
    """A copy in double precision whose parameters and running statistics are all moved by noise."""
    model = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b += 0.05 * torch.randn(b.shape, generator=generator, dtype=b.dtype)
            elif name.endswith("running_var"):
                b *= 1 + 0.2 * torch.rand(b.shape, generator=generator, dtype=b.dtype)
    return model


def first(y: Any) -> Tensor:
    """The first tensor of an output."""
    while not isinstance(y, Tensor):
        y = next(iter(y.values())) if isinstance(y, dict) else y[0]
    return y


def error(model: nn.Module, x: Tensor) -> float:
    """Norm of ``f(g x) - g f(x)`` over that of ``f(x)``, root mean square over the turns."""
    return float(equivariance_error(lambda t: first(model(t)), x, C4).mean().sqrt())


def measure(network: Network) -> dict[str, Any]:
    """One row of the table."""
    warnings.simplefilter("ignore")  # theirs, and ours of strides, which the row has as breaks
    model, x = network.build(), network.example()
    _warm(model, network.example(4))
    parameters = sum(p.numel() for p in model.parameters())
    row: dict[str, Any] = {
        "kind": network.kind, "source": network.package, "size": network.size, "parameters": parameters,
    }  # fmt: skip
    try:
        EquivarianceRegularizer(model.eval(), C4)(x)
        row["runs"] = True
    except Exception as problem:  # whatever it is: the table shows it
        row |= {"runs": False, "why": f"{type(problem).__name__}: {problem}"[:200]}
    noisy, x = perturbed(model), x.double()
    try:
        row["error"] = error(noisy, x)
    except Exception as problem:
        return row | {"error": math.nan, "guess": _failed(problem), "trace": _failed(problem)}
    row["guess"] = _guessed(copy.deepcopy(noisy), x, parameters)
    row["trace"] = _traced(copy.deepcopy(noisy), x)
    return row


def _warm(model: nn.Module, x: Tensor) -> None:
    """Running statistics of noise: without, deep networks put out next to nothing but their biases."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the plain mean
    if norms:
        with torch.no_grad():
            model.train()(x)


def _guessed(model: nn.Module, x: Tensor, parameters: int) -> dict[str, Any]:
    try:
        decay = EquivarianceDecay(model, C4, math.inf)
    except ValueError as problem:
        return _failed(problem)
    known = {id(t) for layer in decay.plan.tied.values() for t, _ in layer.tensors()}
    decay.step(1.0)
    tied = sum(p.numel() for p in model.parameters() if id(p) in known)
    return {"tied": tied / parameters, "error": error(model, x)}


def _traced(model: nn.Module, x: Tensor) -> dict[str, Any]:
    try:
        ties = tie(model, x, C4)
    except Exception as problem:
        return _failed(problem)
    with torch.no_grad():
        ties.project_(model)
    return {
        "tied": ties.coverage, "error": error(model, x), "breaks": len(ties.breaks),
        "first": _told(ties.breaks[0]) if ties.breaks else None,
    }  # fmt: skip


def _failed(problem: Exception) -> dict[str, Any]:
    told = f"{type(problem).__name__}: {problem}".splitlines()[0]
    return {"tied": 0.0, "error": None, "why": told[:200]}


def _told(stop: Any) -> str:
    return f"{stop.path or '(model)'}: {stop.op}: {stop.reason}"[:300]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Measure and print, and store with ``--keep``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="folder in which zoo.json is written")
    parser.add_argument("--only", default="", help="parts of names, by commas; the other rows stay")
    parser.add_argument(
        "--missing", action="store_true", help="only those that the table does not have"
    )
    options = parser.parse_args()
    path = options.keep / "zoo.json" if options.keep else None
    rows: dict[str, Any] = json.loads(path.read_text())["rows"] if path and path.exists() else {}
    # A part of the networks is added to what the others took.
    part = bool(options.only or getattr(options, "missing", False))
    spent = json.loads(path.read_text())["stamp"]["hours"] if path and rows and part else 0.0
    # Now, since a checkout may move while this runs.
    start, code = time.perf_counter(), code_version()
    for network in NETWORKS:
        if not any(part in network.name.lower() for part in options.only.lower().split(",")):
            continue
        if options.missing and network.name in rows:
            continue
        row = rows[network.name] = measure(network) | {"version": code}
        gc.collect()
        guess, trace = row["guess"], row["trace"]
        print(
            f"{network.name:24} {row['parameters'] / 1e6:6.2f} M  {row['error']:.2f}  guess {guess['tied']:4.0%} "
            f"{_short(guess['error'])}  trace {trace['tied']:4.0%} {_short(trace['error'])} "
            f"{trace.get('first') or trace.get('why') or ''}"[:220],
            flush=True,
        )
        if path:  # after each network, so that a stopped run leaves what it has
            hours = round(spent + (time.perf_counter() - start) / 3600, 2)
            stamp = {
                "device": device_name(), "date": today(), "version": code, "seeds": [0, 1, 2], "hours": hours,
                "packages": {name: _version(name) for name in _PACKAGES}, "exact": EXACT,
            }  # fmt: skip
            ordered = {n.name: rows[n.name] for n in NETWORKS if n.name in rows}
            text = json.dumps({"rows": ordered, "stamp": stamp}, indent=1)
            path.write_text(text + "\n", encoding="utf8")
    errors = [row["trace"]["error"] for row in rows.values()]
    exact = sum(e is not None and e <= EXACT for e in errors)
    print(f"{exact} of {len(rows)} exactly equivariant after tying")


def _short(value: float | None) -> str:
    return "   -   " if value is None else f"{value:7.0e}"


if __name__ == "__main__":
    main()
