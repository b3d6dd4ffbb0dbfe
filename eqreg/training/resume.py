"""Stop a training run at any step and go on as if nothing had happened."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..layers.wrappers import unwrapped
from ..soft.pathways import PathwayDecay
from ..soft.projection import EquivarianceDecay
from ..soft.regularizer import EquivarianceRegularizer
from .checkpoint import (
    CheckpointError,
    load_checkpoint,
    previous,
    random_states,
    save_checkpoint,
    set_random_states,
)

# What a state of another form raises when it is put back.
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError)


@dataclass
class History:
    """What :func:`eqreg.training.fit` saw, one entry per step, over all sittings of a run.

    Attributes:
        loss: the task loss (without the penalty).
        penalty: the equivariance penalty before its weight; empty without a regularizer.
        images: images that went through the network, over all steps.
        seconds: wall time.
        waiting: the part of it that was spent in ``sample_batch``.
        finished: False if ``stop`` ended the run before its last step.
        notes: what ``on_step`` wrote down; kept in checkpoints with the rest.

    >>> History(loss=[2.0, 1.0], images=16).loss[-1]
    1.0
    """

    loss: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    finished: bool = True
    notes: list[dict[str, float]] = field(default_factory=list)

    def share(self, strength: float) -> float:
        """What part of the loss the weighted penalty was, over the last tenth of the steps."""
        last = max(1, len(self.penalty) // 10)
        if not self.penalty or strength == 0:
            return 0.0
        task, penalty = sum(self.loss[-last:]), strength * sum(self.penalty[-last:])
        return penalty / (task + penalty)


@dataclass
class Sitting:
    """Everything that changes while a run goes on, and where it is kept between sittings.

    ``settings`` and ``run`` are what a resumed run must share with the one that wrote the checkpoint.
    """

    path: Path | None
    every: int
    model: nn.Module
    optimizer: Any
    history: History
    settings: Mapping[str, Any]
    run: Mapping[str, Any]
    generators: Mapping[str, torch.Generator | None]
    sampler: Any
    regularizer: Any
    decay: EquivarianceDecay | PathwayDecay | None
    fabric: Any

    def __post_init__(self) -> None:
        self._started = time.perf_counter()
        self._before = 0.0

    def start(self) -> int:
        """Put back the state of the checkpoint, if there is one; the number of steps done."""
        if self.path is None or not (self.path.exists() or previous(self.path).exists()):
            return 0
        state = load_checkpoint(self.path)
        try:
            self._refuse_another_run(state)
            self._put_back(state)
            return int(state["step"])
        except CheckpointError:
            raise
        except _WRONG as error:
            raise CheckpointError(
                f"{self.path} does not hold the state of this run: {error!r}"
            ) from error

    def _put_back(self, state: Mapping[str, Any]) -> None:
        core = unwrapped(self.model)
        core.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        seen = dict(state["history"])
        for part in fields(History):  # checkpoints of earlier versions lack the youngest
            setattr(self.history, part.name, seen.get(part.name, getattr(self.history, part.name)))
        if isinstance(self.regularizer, EquivarianceRegularizer):
            self.regularizer.calls = state["calls"]
        if self.decay is not None:
            # Checkpoints of earlier versions have no remainders.
            self.decay.load_state_dict(
                {"strengths": state["strengths"], "remainders": state.get("remainders", {})}
            )
        if hasattr(self.sampler, "load_state_dict"):
            self.sampler.load_state_dict(state["sampler"])
        if scaler := self._scaler():
            scaler.load_state_dict(state["scaler"])
        set_random_states(state["random"], self.generators)
        self._before = self.history.seconds

    def keep(self, step: int) -> None:
        """Write the checkpoint after ``step`` steps; by the first process only."""
        self.history.seconds = self._before + time.perf_counter() - self._started
        if self.path is None or (self.fabric is not None and not self.fabric.is_global_zero):
            return
        is_paired = isinstance(self.regularizer, EquivarianceRegularizer)
        scaler = self._scaler()
        decay = self.decay.state_dict() if self.decay is not None else {}
        state = {
            "step": step,
            "settings": dict(self.settings),
            "run": dict(self.run),
            "model": unwrapped(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": asdict(self.history),
            "calls": self.regularizer.calls if is_paired else 0,
            "strengths": decay.get("strengths", {}),
            "remainders": decay.get("remainders", {}),
            "sampler": self.sampler.state_dict() if hasattr(self.sampler, "state_dict") else {},
            "scaler": scaler.state_dict() if scaler else {},
            "random": random_states(self.generators),
        }
        save_checkpoint(self.path, state)

    def due(self, step: int) -> bool:
        """Whether a checkpoint is written after ``step`` steps."""
        return self.path is not None and step % self.every == 0

    def _scaler(self) -> Any:
        """What scales the loss in float16 training, if anything does."""
        precision = getattr(getattr(self.fabric, "strategy", None), "precision", None)
        return getattr(precision, "scaler", None)

    def _refuse_another_run(self, state: Mapping[str, Any]) -> None:
        then = {**state.get("settings", {}), **state.get("run", {})}
        now = {**self.settings, **self.run}
        if "run" not in state:  # written by an earlier version, which told less
            now = {k: v for k, v in now.items() if k in then}
        keys = [k for k in {**then, **now} if then.get(k) != now.get(k)]
        if keys:
            differences = ", ".join(
                f"{k} was {then.get(k)!r} and is now {now.get(k)!r}" for k in keys
            )
            raise CheckpointError(
                f"{self.path} belongs to another run: {differences}. Give another checkpoint= or "
                "move the file away"
            )
