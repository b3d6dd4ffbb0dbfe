"""Runs of a task: train one method with one seed, and leave metrics and weights in a folder.

The folder of a run is ``OUT/<task>/<preset>/<method>/seed-<n>``. While the run goes on it holds
``checkpoint.safetensors`` and ``log.jsonl``; when it is done, ``weights.safetensors`` and ``result.json``
as well. Every file is written whole, so a run may be killed at any moment and called again.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..extras import require
from ..files import previous
from ..layers.wrappers import unwrapped
from ..tasks import Preset, Task, get_task
from ..training.checkpoint import save_weights, write_whole
from ..training.fit import History, SampleBatch, fit
from ..training.methods import Row, prepare, rewired
from ..training.settings import Keeping
from .records import Log, read_record
from .silent import silent_weights
from .stamp import code_version, device_name, today

_CURVE_POINTS = 100
# What a result holds, whatever version wrote it.
RESULT = {
    "run": dict,
    "stamp": dict,
    "metrics": dict,
    "per_image": dict,
    "curves": dict,
    "cost": dict,
}
_DEPENDENT = 2000  # seeds of what a run draws beside its weights


class Stopped(Exception):
    """The run was asked to stop before its last step; called again it goes on."""


@dataclass(frozen=True)
class Run:
    """What is trained; two runs with equal fields on one device end with equal weights."""

    task: str
    preset: str
    method: str
    seed: int
    lr: float
    strength: float = 0.0
    steps: int | None = None  # None: as the preset says
    split: str = "test"

    def folder(self, out: Path) -> Path:
        """Where its files lie."""
        base = out / self.task / self.preset / self.method
        if self.split == "val":
            base = base / "tuning" / f"lr-{self.lr:g}-strength-{self.strength:g}"
        return base / f"seed-{self.seed}"

    def configuration(self) -> dict[str, Any]:
        """All settings, with those of the preset, and their hash."""
        preset = get_task(self.task).preset(self.preset)
        settings = {**asdict(self), "steps": self.steps or preset.steps, "images": preset.images}
        settings["sizes"] = dict(preset.sizes)
        settings = json.loads(json.dumps(settings))  # as it is read again: tuples are lists
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return {**settings, "hash": digest[:16]}


def prepared(
    run: Run, sizes: Mapping[str, Any] | None = None
) -> tuple[Task, Preset, nn.Module, dict[str, Any], Row]:
    """Task, preset, untrained model, settings of ``fit``, and row; no data is read.

    ``sizes`` are those of stored weights, if the preset has changed since.
    """
    task = get_task(run.task)
    preset = task.preset(run.preset)
    if sizes is not None:
        preset = replace(preset, sizes={**preset.sizes, **sizes})
    row = Row.parse(run.method, task.right, task.full, task.methods)
    torch.manual_seed(run.seed)
    other = row.method.network
    model = task.model(preset) if other is None else task.network(other, preset)
    made = prepare(
        row, model, run.strength, twin=task.twin, layers=task.layers, fields=task.fields,
        seed=run.seed + _DEPENDENT,
    )  # fmt: skip
    settings: dict[str, Any] = {"symmetry": made.symmetry, "loss": task.loss}
    if row.method.objective is not None:
        settings["objective"] = task.objective(row.method.objective, preset)
    return task, preset, made.model, settings, row


def train(
    run: Run,
    out: str | Path,
    *,
    root: str | Path | None = None,
    device: torch.device | str = "cpu",
    fabric: Any = None,
    checkpoint_every: int = 500,
    stop: Callable[[], bool] | None = None,
    progress: bool | None = None,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train, evaluate and store a run; go on where an earlier call was stopped or killed.

    Args:
        run: what to train.
        out: folder of all runs.
        root: folder of published data, for tasks that need it.
        device: of the model and the data.
        fabric: for several processes or half precision; see :func:`eqreg.training.fit`.
        checkpoint_every: steps between two checkpoints.
        stop: asked after each step.
        progress: show a bar; None: only to a reader.
        watch: called with step and numbers whenever the run looks at the validation images.

    Returns:
        The content of ``result.json``; read from there if the run is done.

    Raises:
        Stopped: ``stop`` answered True; a checkpoint was written.
        ValueError: unknown task, preset or method, or the folder holds a run with other settings.
        CheckpointError, FloatingPointError: as :func:`eqreg.training.fit`.
    """
    folder, configuration = run.folder(Path(out)), run.configuration()
    if (done := _read_result(folder, configuration)) is not None:
        return done
    task, preset, model, settings, row = prepared(run)
    model = model.to(device)
    if fabric is not None:
        model = fabric.setup_module(model)
        settings["symmetry"] = rewired(settings["symmetry"], model)
    batch = preset.images // 2 if row.method.pairs else preset.images
    sampler = task.batches(preset, run.seed, batch, root, next(model.parameters()).device)
    if row.method.data is not None:
        sampler = task.variant(row.method.data, sampler)
    steps, data = configuration["steps"], None
    if hasattr(sampler, "fingerprint"):
        data = sampler.fingerprint()
    told = {**{k: v for k, v in configuration.items() if k != "hash"}, "data": data}
    looks = {steps * (i + 1) // preset.watch for i in range(preset.watch)} - {steps}
    log = Log(folder / "log.jsonl")

    def on_step(step: int, history: History) -> None:
        if step not in looks or not (fabric is None or fabric.is_global_zero):
            return
        seen = {"loss": history.loss[-1] if history.loss else math.nan}
        seen[f"val_{task.score}"] = _mean(_evaluate(task, model, preset, "val", root)[task.score])
        history.notes.append({"step": step, **seen})
        log.write(step, seen)
        if watch is not None:
            watch(step, seen)

    history = fit(
        model, sampler, steps=steps, lr=run.lr,
        generator=torch.Generator().manual_seed(run.seed + _DEPENDENT // 2),
        keeping=Keeping(folder / "checkpoint.safetensors", checkpoint_every, stop, told),
        on_step=on_step, fabric=fabric, progress=progress, label=f"{run.method} {run.seed}", **settings,
    )  # fmt: skip
    if not history.finished:
        raise Stopped(f"stopped after {len(history.loss)} of {steps} steps; call again to go on")
    silent = [] if fabric is not None else _silent(run, model, sampler, settings)
    images = _evaluate(task, model, preset, run.split, root)
    result = {
        "run": configuration,
        "stamp": {
            "device": device_name(next(model.parameters()).device), "date": today(),
            "version": code_version(), "seeds": [run.seed], "hours": history.seconds / 3600,
        },
        "data": data,
        "parameters": sum(p.numel() for p in model.parameters()),
        "silent": silent,
        "metrics": {name: _mean(values) for name, values in images.items()},
        "per_image": {name: [_short(v) for v in values] for name, values in images.items()},
        "curves": {"loss": _thin(history.loss), "penalty": _thin(history.penalty), "val": log.complete(history.notes)},
        "cost": {
            "seconds_per_step": history.seconds / steps, "images": history.images,
            "waiting": history.waiting / history.seconds,
        },
    }  # fmt: skip
    if fabric is None or fabric.is_global_zero:
        _store(folder, model, result)
    return result


def _silent(run: Run, model: nn.Module, sampler: SampleBatch, settings: Any) -> list[str]:
    """Weights without any effect; whoever reads the scores of the run should know."""
    found = silent_weights(
        model, sampler, settings["loss"], settings.get("objective"),
        generator=torch.Generator().manual_seed(run.seed),
    )  # fmt: skip
    if found:
        warnings.warn(
            f"{run.method} {run.seed} of {run.task}: {len(found)} weights have no effect any more, "
            f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}; a smaller lr may keep them alive",
            stacklevel=3,
        )
    return found


def _store(folder: Path, model: nn.Module, result: dict[str, Any]) -> None:
    about = {k: result[k] for k in ("run", "stamp", "metrics", "data")}
    save_weights(folder / "weights.safetensors", unwrapped(model).state_dict(), about)
    write_whole(folder / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    checkpoint = folder / "checkpoint.safetensors"
    for path in (previous(checkpoint), checkpoint):
        path.unlink(missing_ok=True)


def _read_result(folder: Path, configuration: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / "result.json"
    if not path.is_file():
        return None
    result = read_record(path, "the result of a run", RESULT)
    then = result["run"]
    if then["hash"] != configuration["hash"]:
        keys = [k for k in {**then, **configuration} if then.get(k) != configuration.get(k)]
        differences = ", ".join(
            f"{k} was {then.get(k)!r} and is now {configuration.get(k)!r}"
            for k in keys
            if k != "hash"
        )
        raise ValueError(f"{folder} holds another run: {differences}. Give another --out")
    return result


def _evaluate(
    task: Task, model: nn.Module, preset: Preset, split: str, root: str | Path | None
) -> dict[str, list[float]]:
    """In eval mode, and without touching the random numbers of the training."""
    was_training = model.training
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    with torch.random.fork_rng(devices=devices):
        metrics = task.evaluate(unwrapped(model).eval(), preset, split, root)
    model.train(was_training)
    return metrics


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _thin(values: list[float]) -> list[float]:
    """Means over at most ``_CURVE_POINTS`` equal stretches."""
    width = max(1, math.ceil(len(values) / _CURVE_POINTS))
    return [_short(_mean(values[i : i + width])) for i in range(0, len(values), width)]


def tensorboard(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """A ``watch`` for :func:`train` that writes event files into ``folder``."""
    writer = require("tensorboardX", extra="scale").SummaryWriter(str(folder))

    def write(step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return write
