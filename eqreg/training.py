"""One training loop for every method of the book, so that methods differ where we say they do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._batch import Pair, move, share, turn
from ._extras import require
from ._frontend import reader_present
from ._resume import History, Sitting
from ._step import Loss, Objective, StepLoss
from ._wrappers import unwrapped
from .groups import Group
from .projection import EquivarianceDecay, ProjectionPenalty
from .regularizer import EquivarianceRegularizer
from .schedules import constant
from .strength import AgreementStrength

__all__ = ["History", "fit"]

_AGREEMENT_EVERY = 4
_ASK_EVERY = 10
# Reading a loss waits for the GPU, so there it is read now and then.
_LOOK_EVERY = {"cpu": 1}
SampleBatch = Callable[[torch.Generator | None], Pair]


def fit(
    model: nn.Module,
    sample_batch: SampleBatch,
    *,
    steps: int,
    lr: float,
    augment: Group | None = None,
    regularizer: EquivarianceRegularizer | ProjectionPenalty | None = None,
    lam: float = 0.0,
    label_pairs: bool = True,
    decay: EquivarianceDecay | None = None,
    automatic: AgreementStrength | None = None,
    schedule: Callable[[int, int], float] = constant,
    loss: Loss = F.mse_loss,
    objective: Objective | None = None,
    warmup: int = 20,
    clip: float = 1.0,
    accumulate: int = 1,
    generator: torch.Generator | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    stop: Callable[[], bool] | None = None,
    on_step: Callable[[int, History], None] | None = None,
    fabric: Any = None,
    progress: bool | None = None,
    label: str = "",
) -> History:
    r"""Train ``model`` to map ``x`` to ``y``: Adam, warm-up, cosine schedule, gradient clipping.

    The methods of the book are settings of this loop:

    * plain: nothing else. Strict: the same with an equivariant model.
    * augmentation: ``augment=group`` turns each batch, input and label, by one random element.
    * EQ-Reg: ``regularizer=`` and ``lam=``. The loss is
      ``loss(f(x), y) + loss(f(gx), gy) + lam * penalty``, so that ``lam=0`` is augmentation with
      pairs. A step passes the batch twice: halve the batch for equal cost.
    * projection penalty: ``regularizer=ProjectionPenalty(...)``, ``loss(f(x), y) + lam * penalty``.
    * decay: ``decay=``, a step of shrinkage after each step of Adam; ``automatic=`` moves its
      strengths at every fourth step. Both combine with the others.

    Args:
        model: trained in place; batches are moved to its device.
        sample_batch: called with ``generator`` at each step; returns ``x`` and ``y``, each a tensor or
            a tuple of tensors. The model is called as ``model(*x)``. Tensors (B, C, H, W) are images and
            turn; those of other dimensions, such as class labels (B,), do not.
        steps: number of optimizer steps.
        lr: peak learning rate.
        augment: group of the augmentation; one element a batch, or a half batch where ``automatic``
            compares them.
        regularizer: built on ``model``.
        lam: weight of its penalty.
        label_pairs: whether the turned images of EQ-Reg carry labels; False: they serve the penalty
            alone.
        decay: built on ``model``.
        automatic: built on ``decay``; a batch must hold two images.
        schedule: factor on ``lam`` and on the decay at (step, steps); see ``eqreg.schedules``.
        loss: of a prediction and its label.
        objective: in place of ``loss``, called as (model, prediction, x, y, generator): for losses
            that run the model again.
        warmup: steps of linear warm-up, at most a quarter of ``steps``.
        clip: largest norm of the gradient.
        accumulate: parts in which a batch passes the network, for less memory. The task gradient is that
            of the whole batch; the penalty becomes the mean of the parts' penalties.
        generator: source of the randomness of batches and augmentation; torch's global one if None.
            The regularizer has its own.
        checkpoint: file to go on from if it is there, and to write. On the CPU a run that was killed
            at any moment and called again ends with the same weights, to the last bit.
        checkpoint_every: steps between two writings; the last step and a stop write too.
        stop: asked after each step; True ends the run (``finished`` is False then).
        on_step: called after each step with the number of steps done and the history.
        fabric: a ``lightning_fabric.Fabric`` for several processes and half precision; ``model`` is
            then the result of its ``setup_module``. Each process takes its share of the same batch, so
            that their number does not change the result.
        progress: show a bar with loss and penalty. None: only if a reader is there to see it.
        label: name in front of the bar.

    Returns:
        The losses, the penalties and the cost.

    Raises:
        ValueError: a setting is out of range, ``lam`` comes without a regularizer, the regularizer
            belongs to another model, or prediction and label differ in shape.
        FloatingPointError: the loss is no longer finite; the message names step and learning rate.
        CheckpointError: the checkpoint belongs to another run, cannot be read or cannot be written.

    Taught in: notebooks/13, notebooks/19.
    """
    _check(model, steps, lr, lam, regularizer, decay, automatic, warmup, clip, accumulate)
    device = next(model.parameters()).device
    optimizer: Any = torch.optim.Adam(model.parameters(), lr)
    if fabric is not None:
        optimizer = fabric.setup_optimizers(optimizer)
    warmup = min(warmup, steps // 4)
    history, was_training = History(), model.training
    step_loss = StepLoss(model, loss, objective, regularizer, lam, label_pairs, generator, fabric)
    sitting = Sitting(
        None if checkpoint is None else Path(checkpoint), checkpoint_every, model, optimizer, history,
        {
            "model": _signature(model), "steps": steps, "lr": lr, "lam": lam, "warmup": warmup,
            "clip": clip, "accumulate": accumulate, "augment": str(augment), "label_pairs": label_pairs,
            "regularizer": _told(regularizer), "decay": _told(decay), "automatic": automatic is not None,
        },
        {"generator": generator, "regularizer": getattr(regularizer, "generator", None)},
        sample_batch, regularizer, decay, fabric,
    )  # fmt: skip
    done = sitting.start()
    images_before = history.images
    seen: list[tuple[Tensor, ...]] = []
    hidden = not (reader_present() if progress is None else progress)
    tqdm = require("tqdm.auto", extra="tasks").tqdm
    model.train()
    history.finished = True
    with tqdm(
        range(done, steps), desc=label, disable=hidden, leave=False, initial=done, total=steps
    ) as bar:
        for step in bar:
            waiting = time.perf_counter()
            x, y = sample_batch(generator)
            history.waiting += time.perf_counter() - waiting
            compared = automatic is not None and step % _AGREEMENT_EVERY == 0
            if augment is not None:
                # Two halves that were turned alike would agree about the direction of this batch.
                x, y = turn((x, y), augment, 2 if compared else 1, generator)
            x, y = move(_own((x, y), fabric), device)
            rate, factor = lr * _schedule(step, steps, warmup), schedule(step, steps)
            optimizer.zero_grad()
            if compared and automatic is not None:
                seen.append(step_loss.compare_halves(x, y, automatic))
            else:
                seen.append(step_loss.backward(x, y, factor, accumulate))
            for group in optimizer.param_groups:
                group["lr"] = rate
            _clip(model, optimizer, clip, fabric)
            optimizer.step()
            if decay is not None:
                decay.step(rate * factor)
            history.images = images_before + step_loss.images * _world(fabric)
            over = step + 1 == steps or _asked(stop, fabric, step)
            if over or sitting.due(step + 1) or len(seen) >= _LOOK_EVERY.get(device.type, 20):
                _look(seen, history, step, lr, fabric)
            if on_step is not None:
                on_step(step + 1, history)
            if not hidden and step % 10 == 0:
                bar.set_postfix(_shown(history))
            if over or sitting.due(step + 1):
                history.finished = step + 1 == steps
                sitting.keep(step + 1)
            if over:
                break
    model.train(was_training)
    return history


def _own(batch: Pair, fabric: Any) -> Pair:
    return batch if fabric is None else share(batch, fabric.global_rank, fabric.world_size)


def _clip(model: nn.Module, optimizer: Any, clip: float, fabric: Any) -> None:
    if fabric is None:
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    else:  # float16 gradients are scaled and have to be unscaled first
        fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)


def _look(
    seen: list[tuple[Tensor, ...]], history: History, step: int, lr: float, fabric: Any
) -> None:
    """Move the losses of the last steps into the history, and stop if one is not finite."""
    first = step + 1 - len(seen)
    for i, terms in enumerate(seen):
        if _world(fabric) > 1:  # so that every process sees the whole batch, and all stop at once
            terms = fabric.all_reduce(torch.stack(terms), reduce_op="mean").unbind()
        task, *penalty = terms
        history.loss.append(float(task))
        history.penalty.extend(float(p) for p in penalty)
        if not math.isfinite(history.loss[-1]):
            raise FloatingPointError(
                f"fit: the loss became {history.loss[-1]} at step {first + i} with lr={lr:g}; "
                "try a smaller learning rate"
            )
    seen.clear()


def _asked(stop: Callable[[], bool] | None, fabric: Any, step: int) -> bool:
    """Whether the run shall end; several processes agree about it at every tenth step."""
    if stop is None:
        return False
    if _world(fabric) == 1:
        return stop()
    if step % _ASK_EVERY:
        return False
    asked = fabric.all_reduce(torch.tensor(float(stop()), device=fabric.device), reduce_op="sum")
    return bool(asked > 0)


def _world(fabric: Any) -> int:
    return 1 if fabric is None else fabric.world_size


def _shown(history: History) -> dict[str, str]:
    shown = {"loss": f"{history.loss[-1]:.2e}"} if history.loss else {}
    if history.penalty:
        shown["penalty"] = f"{history.penalty[-1]:.2e}"
    return shown


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: linear up, half a cosine down."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def _told(part: Any) -> str:
    """Kind, group and number of layers."""
    if part is None:
        return "none"
    layers: Any = getattr(part.plan, "fields", None) or part.plan.tied
    return f"{type(part).__name__}, {part.group}, {len(layers)} layers"


def _signature(model: nn.Module) -> str:
    core = unwrapped(model)
    return f"{type(core).__name__} with {sum(p.numel() for p in core.parameters())} parameters"


def _check(
    model: nn.Module,
    steps: int,
    lr: float,
    lam: float,
    regularizer: EquivarianceRegularizer | ProjectionPenalty | None,
    decay: EquivarianceDecay | None,
    automatic: AgreementStrength | None,
    warmup: int,
    clip: float,
    accumulate: int,
) -> None:
    if next(model.parameters(), None) is None:
        raise ValueError(f"fit: expected a model with parameters, {type(model).__name__} has none")
    if steps < 1:
        raise ValueError(f"fit: steps must be at least 1, got {steps}")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"fit: lr must be positive and finite, got {lr}")
    if not (math.isfinite(lam) and lam >= 0):
        raise ValueError(f"fit: lam must be at least 0 and finite, got {lam}")
    if warmup < 0 or not clip > 0:
        raise ValueError(f"fit: expected warmup >= 0 and clip > 0, got {warmup} and {clip}")
    if accumulate < 1:
        raise ValueError(f"fit: accumulate must be at least 1, got {accumulate}")
    if accumulate > 1 and (automatic is not None or getattr(regularizer, "every", 1) > 1):
        raise ValueError(
            "fit: accumulate= cannot be combined with automatic= or a lazy regularizer"
        )
    if lam and regularizer is None:
        raise ValueError(f"fit: lam={lam:g} needs a regularizer, got none")
    for name, built in (("regularizer", regularizer), ("decay", decay)):
        if built is not None and unwrapped(built.model) is not unwrapped(model):
            raise ValueError(f"fit: the {name} was built on another model than the one to train")
    if automatic is not None and (decay is None or automatic.decay is not decay):
        raise ValueError("fit: automatic= needs the decay= that it was built on")
    if automatic is not None and regularizer is not None:
        raise ValueError("fit: automatic= and regularizer= cannot be combined")
