"""One training loop for every method of the book, so that methods differ where we say they do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..extras import require
from ..layers import unwrapped
from ..typed import typed
from ..viz.frontend import reader_present
from .batch import move
from .loop import (
    Losses,
    SampleBatch,
    asked_to_stop,
    clip_gradient,
    draw,
    own,
    refuse_non_finite,
    shown,
    world,
)
from .resume import History, Sitting
from .settings import NOT_KEPT, PLAIN, USUAL, Keeping, Optimisation, Symmetry
from .step import Loss, Objective, StepLoss

__all__ = ["History", "SampleBatch", "fit"]
# Adam's first step divides the rate by 0.1, and beyond float32 torch stops with an error of its own.
_LARGEST = 1e37


@typed
def fit(
    model: nn.Module,
    sample_batch: SampleBatch,
    *,
    steps: int,
    lr: float,
    symmetry: Symmetry = PLAIN,
    optimisation: Optimisation = USUAL,
    keeping: Keeping = NOT_KEPT,
    loss: Loss = F.mse_loss,
    objective: Objective | None = None,
    generator: torch.Generator | None = None,
    on_step: Callable[[int, History], None] | None = None,
    fabric: Any = None,
    progress: bool | None = None,
    label: str = "",
) -> History:
    """Train ``model`` to map ``x`` to ``y``: Adam, warm-up, cosine schedule, gradient clipping.

    Args:
        model: trained in place; batches are moved to its device.
        sample_batch: called with ``generator`` at each step; returns ``x`` and ``y``, each a tensor or
            a tuple of tensors. The model is called as ``model(*x)``. Images (B, C, H, W) turn, and maps of
            classes, whole numbers (B, H, W), with them; labels (B,) or (B, K) do not.
        steps: number of optimizer steps.
        lr: peak learning rate.
        symmetry: augmentation, EQ-Reg, decay: what makes the methods of the book differ.
        optimisation: warm-up, clipping, accumulation.
        keeping: where checkpoints are written, and who may stop the run.
        loss: of a prediction and its label.
        objective: in place of ``loss``, called as (model, prediction, x, y, generator): for losses
            that run the model again.
        generator: source of the randomness of batches and augmentation; torch's global one if None.
            The regularizer has its own.
        on_step: called after each step with the number of steps done and the history.
        fabric: a ``lightning_fabric.Fabric`` for several processes and half precision; ``model`` is
            then the result of its ``setup_module``. Each process takes its share of the same batch, so
            that their number does not change the result.
        progress: show a bar with loss and penalty. None: only if a reader is there to see it.
        label: name in front of the bar.

    Returns:
        The losses, the penalties and the cost.

    Raises:
        ValueError: a setting is out of range, a part of ``symmetry`` belongs to another model, or
            prediction and label differ in shape.
        FloatingPointError: the loss is no longer finite; the message names step and learning rate.
        CheckpointError: the checkpoint belongs to another run, cannot be read or cannot be written.

    Taught in: notebooks/13, notebooks/19.

    >>> x = torch.rand(8, 1, 16, 16)
    >>> history = fit(nn.Conv2d(1, 1, 3, padding=1), lambda generator: (x, x), steps=20, lr=0.05)
    >>> len(history.loss), history.loss[-1] < history.loss[0], history.finished
    (20, True, True)
    """
    _check(model, steps, lr)
    symmetry.belongs_to(model, optimisation)
    device = next(model.parameters()).device
    optimizer: Any = torch.optim.Adam(model.parameters(), lr)
    if fabric is not None:
        optimizer = fabric.setup_optimizers(optimizer)
    history, was_training = History(), model.training
    step_loss = StepLoss(
        model, loss, objective, symmetry, optimisation.accumulate, generator, fabric
    )
    sitting = Sitting(
        None if keeping.checkpoint is None else Path(keeping.checkpoint), keeping.every,
        model, optimizer, history, _told(model, steps, lr, symmetry, optimisation), keeping.run,
        {"generator": generator, "regularizer": getattr(symmetry.regularizer, "generator", None)},
        sample_batch, symmetry.regularizer, symmetry.decay, fabric,
    )  # fmt: skip
    done = sitting.start()
    losses, images_before = Losses(history, lr, device, fabric), history.images
    hidden = not (reader_present() if progress is None else progress)
    bar = require("tqdm.auto", extra="tasks").tqdm(
        range(done, steps), desc=label, disable=hidden, leave=False, initial=done, total=steps
    )
    model.train()
    history.finished = True
    with bar:
        for step in bar:
            rate, factor = lr * optimisation.rate(step, steps), symmetry.schedule(step, steps)
            batch = draw(sample_batch, generator, history)
            batch = symmetry.turned(batch, generator)
            x, y = move(own(batch, fabric), device)
            optimizer.zero_grad()
            losses.add(step_loss.backward(x, y, factor, symmetry.compares(step)))
            clip_gradient(model, optimizer, optimisation.clip, fabric)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            symmetry.shrink(rate * factor)
            if step + 1 == steps:
                symmetry.finish()
            history.images = images_before + step_loss.images * world(fabric)
            over = step + 1 == steps or asked_to_stop(keeping.stop, fabric, step)
            kept = over or sitting.due(step + 1)
            losses.read(step, now=kept)
            if on_step is not None:
                on_step(step + 1, history)
            if not hidden and step % 10 == 0:
                bar.set_postfix(shown(history))
            if kept:
                refuse_non_finite(model, step, lr)
                history.finished = step + 1 == steps
                sitting.keep(step + 1)
            if over:
                break
    model.train(was_training)
    return history


def _check(model: nn.Module, steps: int, lr: float) -> None:
    if next(model.parameters(), None) is None:
        raise ValueError(f"fit: expected a model with parameters, {type(model).__name__} has none")
    if steps < 1:
        raise ValueError(f"fit: steps must be at least 1, got {steps}")
    if not 0 < lr <= _LARGEST:
        raise ValueError(f"fit: lr must be positive and at most {_LARGEST:g}, got {lr}")


def _told(
    model: nn.Module, steps: int, lr: float, symmetry: Symmetry, optimisation: Optimisation
) -> dict[str, Any]:
    """What a resumed run must share with the one that wrote the checkpoint."""
    return {
        "model": _signature(model), "steps": steps, "lr": lr, "lam": symmetry.lam,
        "warmup": min(optimisation.warmup, steps // 4), "clip": optimisation.clip,
        "accumulate": optimisation.accumulate, "augment": str(symmetry.augment),
        "label_pairs": symmetry.label_pairs, "regularizer": _part(symmetry.regularizer),
        "decay": _part(symmetry.decay), "automatic": symmetry.automatic is not None,
        "strengths": sorted(set(symmetry.decay.strengths.values())) if symmetry.decay else [],
        # Only where it is so: checkpoints of earlier versions do not know it.
        **({"ends_strict": True} if symmetry.ends_strict else {}),
    }  # fmt: skip


def _part(part: Any) -> str:
    """Kind, group and number of layers."""
    if part is None:
        return "none"
    layers: Any = getattr(part.plan, "fields", None) or part.plan.tied
    return f"{type(part).__name__}, {part.group}, {len(layers)} layers"


def _signature(model: nn.Module) -> str:
    core = unwrapped(model)
    return f"{type(core).__name__} with {sum(p.numel() for p in core.parameters())} parameters"
