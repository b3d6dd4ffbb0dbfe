"""The small print of the training loop: clipping, reading losses, stopping, several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .batch import Pair, share
from .resume import History

_ASK_EVERY = 10
# Reading a loss waits for the GPU, so there it is read now and then.
_LOOK_EVERY = {"cpu": 1}
SampleBatch = Callable[[torch.Generator | None], Pair]


def world(fabric: Any) -> int:
    """Number of processes."""
    return 1 if fabric is None else fabric.world_size


def draw(sample_batch: SampleBatch, generator: torch.Generator | None, history: History) -> Pair:
    """A batch; the time it took is ``history.waiting``."""
    started = time.perf_counter()
    batch = sample_batch(generator)
    history.waiting += time.perf_counter() - started
    return batch


def own(batch: Pair, fabric: Any) -> Pair:
    """This process's part of the batch."""
    return batch if fabric is None else share(batch, fabric.global_rank, fabric.world_size)


def clip_gradient(model: nn.Module, optimizer: Any, largest: float, fabric: Any) -> None:
    """Shorten the gradient to a norm of at most ``largest``."""
    if fabric is None:
        nn.utils.clip_grad_norm_(model.parameters(), largest)
    else:  # float16 gradients are scaled and have to be unscaled first
        fabric.clip_gradients(model, optimizer, max_norm=largest, error_if_nonfinite=False)


class Losses:
    """The losses of the last steps, until they are read into the history."""

    def __init__(self, history: History, lr: float, device: torch.device, fabric: Any) -> None:
        self.history, self.lr, self.fabric = history, lr, fabric
        self.many = _LOOK_EVERY.get(device.type, 20)
        self.seen: list[tuple[Tensor, ...]] = []

    def add(self, terms: tuple[Tensor, ...]) -> None:
        """The task loss of a step and, with a regularizer, its penalty."""
        self.seen.append(terms)

    def read(self, step: int, now: bool) -> None:
        """Move them into the history if it is time, and stop if one is not finite.

        Raises:
            FloatingPointError: the message names the step and the learning rate.
        """
        if not now and len(self.seen) < self.many:
            return
        first = step + 1 - len(self.seen)
        for i, terms in enumerate(self.seen):
            if (
                world(self.fabric) > 1
            ):  # so that every process sees the whole batch, and all stop at once
                terms = self.fabric.all_reduce(torch.stack(terms), reduce_op="mean").unbind()
            task, *penalty = terms
            self.history.loss.append(float(task))
            self.history.penalty.extend(float(p) for p in penalty)
            if not math.isfinite(self.history.loss[-1]):
                raise FloatingPointError(
                    f"fit: the loss became {self.history.loss[-1]} at step {first + i} with "
                    f"lr={self.lr:g}; try a smaller learning rate"
                )
        self.seen.clear()


def refuse_non_finite(model: nn.Module, step: int, lr: float) -> None:
    """The loss of a step was read before its update: what the update made of the weights is seen here.

    Raises:
        FloatingPointError: a weight is not finite; the message names step and learning rate.
    """
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise FloatingPointError(
            f"fit: weights became infinite or NaN at step {step} with lr={lr:g}; try a smaller learning "
            "rate"
        )


def asked_to_stop(stop: Callable[[], bool] | None, fabric: Any, step: int) -> bool:
    """Whether the run shall end; several processes agree about it at every tenth step."""
    if stop is None:
        return False
    if world(fabric) == 1:
        return stop()
    if step % _ASK_EVERY:
        return False
    asked = fabric.all_reduce(torch.tensor(float(stop()), device=fabric.device), reduce_op="sum")
    return bool(asked > 0)


def shown(history: History) -> dict[str, str]:
    """What stands beside the progress bar."""
    told = {"loss": f"{history.loss[-1]:.2e}"} if history.loss else {}
    if history.penalty:
        told["penalty"] = f"{history.penalty[-1]:.2e}"
    return told
