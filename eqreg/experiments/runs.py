"""Runs of a task: train one method with one seed, and leave metrics and weights in a folder.

The folder of a run is ``OUT/<task>/<preset>/<method>/seed-<n>``. While the run goes on it holds
``checkpoint.safetensors`` and ``log.jsonl``; when it is done, ``weights.safetensors`` and ``result.json``
as well. Every file is written whole, so a run may be killed at any moment and called again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import seeded
from ..files import previous
from ..layers.wrappers import unwrapped
from ..tasks import Preset, Task, get_task
from ..training.checkpoint import save_weights, write_whole
from ..training.fit import History, fit
from ..training.methods import Row, prepare
from ..training.settings import Keeping, rewired
from .locks import locked
from .records import Log, read_result, rounded, thinned
from .silent import is_mute, told_silent_weights
from .stamp import code_version, device_name, today
from .stopping import Stopped

_DEPENDENT = 2000  # seeds of what a run draws beside its weights


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

    def __post_init__(self) -> None:
        for name, value, expected, good in (
            ("steps", self.steps, "at least 1, or None", self.steps is None or self.steps >= 1),
            ("lr", self.lr, "positive and finite", 0 < self.lr < math.inf),
            ("strength", self.strength, "at least 0 and finite", 0 <= self.strength < math.inf),
            ("seed", self.seed, "at least 0", self.seed >= 0),
        ):
            if not good:
                raise ValueError(f"Run: expected {name} {expected}, got {value}")

    def folder(self, out: Path) -> Path:
        """Where its files lie."""
        base = out / self.task / self.preset / self.method
        if self.split == "val":
            base = base / "tuning" / f"lr-{self.lr:g}-strength-{self.strength:g}"
        return base / f"seed-{self.seed}"

    def configuration(self) -> dict[str, Any]:
        """All settings, with those of the preset, and their hash."""
        preset = get_task(self.task).preset(self.preset)
        steps = preset.steps if self.steps is None else self.steps
        settings = {**asdict(self), "steps": steps, "images": preset.images}
        settings["sizes"] = dict(preset.sizes)
        settings = json.loads(json.dumps(settings))  # as it is read again: tuples are lists
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return {**settings, "hash": digest[:16]}


def prepared(
    run: Run, sizes: Mapping[str, Any] | None = None
) -> tuple[Task, Preset, nn.Module, dict[str, Any], Row]:
    """Task, preset, untrained model, settings of ``fit``, and row; no data is read.

    The weights come from torch's global generator. ``sizes`` are those of stored weights, if the preset
    has changed since.
    """
    task = get_task(run.task)
    preset = task.preset(run.preset)
    if sizes is not None:
        preset = replace(preset, sizes={**preset.sizes, **sizes})
    row = Row.parse(run.method, task.right, task.full, task.methods)
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
        stop: asked after each step, and before each image of the last evaluation.
        progress: show a bar; None: only to a reader.
        watch: called with step and numbers whenever the run looks at the validation images.

    Returns:
        The content of ``result.json``; read from there if the run is done.

    Raises:
        Stopped: ``stop`` answered True; a checkpoint was written.
        Busy: another process trains this run.
        ValueError: unknown task, preset or method, a strength for a method that has none, or the folder
            holds a run with other settings.
        FloatingPointError: as :func:`eqreg.training.fit`, or a metric is not finite.
        CheckpointError: as :func:`eqreg.training.fit`.
        OSError: the folder cannot be written to.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     result = train(Run("classification", "quick", "plain", seed=0, lr=0.01, steps=2), folder)
    >>> result["run"]["method"], "accuracy" in result["metrics"]
    ('plain', True)
    """
    folder, configuration = run.folder(Path(out)), run.configuration()
    if (done := _read_result(folder, configuration)) is not None:
        return done
    torch.manual_seed(run.seed)
    made = prepared(run)
    if run.strength and not made[-1].method.strengths:
        raise ValueError(f"method {run.method!r} has no strength, got {run.strength:g}")
    keeping = Keeping(folder / "checkpoint.safetensors", checkpoint_every, stop)
    first = fabric is None or fabric.is_global_zero
    with locked(folder / "result.json") if first else contextlib.nullcontext():
        if fabric is None and (done := _read_result(folder, configuration)) is not None:
            return done  # by a process that held the lock before
        return _trained(
            run, Path(out), configuration, made, root, device, fabric, keeping, progress, watch
        )


def _trained(
    run: Run, out: Path, configuration: dict[str, Any],
    made: tuple[Task, Preset, nn.Module, dict[str, Any], Row], root: str | Path | None,
    device: torch.device | str, fabric: Any, keeping: Keeping, progress: bool | None,
    watch: Callable[[int, dict[str, float]], None] | None,
) -> dict[str, Any]:  # fmt: skip
    """What :func:`train` does where no result is yet."""
    folder = run.folder(out)
    task, preset, model, settings, row = made
    model = model.to(device)
    if fabric is not None:
        model = fabric.setup_module(model)
        settings["symmetry"] = rewired(settings["symmetry"], model)
    sampler = task.sampler(preset, row.method, run.seed, root, next(model.parameters()).device)
    steps = configuration["steps"]
    data = sampler.fingerprint() if hasattr(sampler, "fingerprint") else None
    told = {**{k: v for k, v in configuration.items() if k != "hash"}, "data": data}
    looks = {steps * (i + 1) // preset.watch for i in range(preset.watch)}
    looks = set() if run.split == "val" else looks  # a tuning run is judged at its end alone
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
        keeping=replace(keeping, run=told), on_step=on_step, fabric=fabric, progress=progress,
        label=f"{run.method} {run.seed}", **settings,
    )  # fmt: skip
    decay = settings["symmetry"].decay
    if not history.finished:
        raise Stopped(f"stopped after {len(history.loss)} of {steps} steps; call again to go on")
    silent: list[str] = []
    if fabric is None:
        silent = told_silent_weights(
            f"{run.method} {run.seed} of {run.task}", model, sampler, settings, run.seed
        )
    images = _evaluate(task, model, preset, run.split, root, keeping.stop)
    metrics = {name: _mean(values) for name, values in images.items()}
    if bad := {name: value for name, value in metrics.items() if not math.isfinite(value)}:
        raise FloatingPointError(
            f"{run.method} {run.seed} of {run.task}: the metrics became {bad} with lr={run.lr:g}; try a "
            "smaller learning rate"
        )
    result = {
        "run": configuration,
        "stamp": {
            "device": device_name(next(model.parameters()).device), "date": today(),
            "version": code_version(), "seeds": [run.seed], "hours": history.seconds / 3600,
        },
        "data": data,
        "parameters": sum(p.numel() for p in model.parameters()),
        "silent": silent,
        "mute": fabric is None and is_mute(model, sampler, generator=seeded(run.seed)),
        "share": rounded(history.share(run.strength)),
        # Of the decay, by layer, at the end: an automatic one has moved them.
        "strengths": {k: rounded(v) for k, v in decay.strengths.items()} if decay else {},
        "metrics": metrics,
        "per_image": {name: [rounded(v) for v in values] for name, values in images.items()},
        "curves": {
            "loss": thinned(history.loss), "penalty": thinned(history.penalty),
            "val": log.complete(history.notes),
        },
        "cost": {
            "seconds_per_step": history.seconds / steps, "images": history.images,
            "waiting": history.waiting / history.seconds,
        },
    }  # fmt: skip
    if fabric is None or fabric.is_global_zero:
        _store(folder, model, result)
    return result


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
    result = read_result(path)
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
    task: Task, model: nn.Module, preset: Preset, split: str, root: str | Path | None,
    stop: Callable[[], bool] | None = None,
) -> dict[str, list[float]]:  # fmt: skip
    """In eval mode, and without touching the random numbers of the training.

    Raises:
        Stopped: ``stop`` answered True before an image.
    """

    def ask(*_: Any) -> None:
        if stop is not None and stop():
            raise Stopped("stopped in the last evaluation; call again to go on")

    was_training, core = model.training, unwrapped(model)
    devices = [p.device for p in model.parameters() if p.device.type == "cuda"][:1]
    hook = core.register_forward_pre_hook(ask)
    try:
        with torch.random.fork_rng(devices=devices):
            return task.evaluate(core.eval(), preset, split, root)
    finally:
        hook.remove()
        model.train(was_training)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
