"""One training loop for every method of the book, so that methods differ where we say they do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._extras import require
from ._frontend import reader_present
from .actions import rotate
from .groups import Group
from .projection import EquivarianceDecay, ProjectionPenalty
from .regularizer import EquivarianceRegularizer
from .schedules import constant
from .strength import AgreementStrength

_AGREEMENT_EVERY = 4
SampleBatch = Callable[[torch.Generator | None], tuple[Tensor, Tensor]]


@dataclass
class History:
    """What a call of :func:`fit` saw, one entry per step.

    Attributes:
        loss: the task loss (without the penalty).
        penalty: the equivariance penalty before its weight; empty without a regularizer.
        images: images that went through the network, over all steps.
        seconds: wall time.
    """

    loss: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0


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
    loss: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
    warmup: int = 20,
    clip: float = 1.0,
    generator: torch.Generator | None = None,
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
        sample_batch: called with ``generator`` at each step; returns ``x`` and ``y``, (B, C, H, W)
            each.
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
        warmup: steps of linear warm-up, at most a quarter of ``steps``.
        clip: largest norm of the gradient.
        generator: source of the randomness of batches and augmentation; torch's global one if None.
            The regularizer has its own.
        progress: show a bar with loss and penalty. None: only if a reader is there to see it.
        label: name in front of the bar.

    Returns:
        The losses, the penalties and the cost.

    Raises:
        ValueError: a setting is out of range, ``lam`` comes without a regularizer, the regularizer
            belongs to another model, or prediction and label differ in shape.
        FloatingPointError: the loss is no longer finite; the message names step and learning rate.

    Taught in: notebooks/13.
    """
    _check(model, steps, lr, lam, regularizer, decay, automatic, warmup, clip)
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), lr)
    warmup = min(warmup, steps // 4)
    history, start, was_training = History(), time.perf_counter(), model.training
    hidden = not (reader_present() if progress is None else progress)
    tqdm = require("tqdm.auto", extra="tasks").tqdm
    model.train()
    with tqdm(range(steps), desc=label, disable=hidden, leave=False) as bar:
        for step in bar:
            x, y = (t.to(device) for t in sample_batch(generator))
            compared = automatic is not None and step % _AGREEMENT_EVERY == 0
            if augment is not None:
                # Two halves that were turned alike would agree about the direction of this batch.
                x, y = _turned(x, y, augment, 2 if compared else 1, generator)
            rate, factor = lr * _schedule(step, steps, warmup), schedule(step, steps)
            optimizer.zero_grad()
            if compared and automatic is not None:
                task = _halves(model, x, y, loss, automatic)
                history.images += len(x)
            else:
                task, penalty, images = _losses(model, x, y, loss, regularizer, label_pairs)
                history.images += images
                if penalty is not None:
                    history.penalty.append(float(penalty.detach()))
                (task if penalty is None else task + lam * factor * penalty).backward()
            history.loss.append(float(task.detach()))
            if not math.isfinite(history.loss[-1]):
                raise FloatingPointError(
                    f"fit: the loss became {history.loss[-1]} at step {step} with lr={lr:g}; "
                    "try a smaller learning rate"
                )
            for group in optimizer.param_groups:
                group["lr"] = rate
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if decay is not None:
                decay.step(rate * factor)
            if not hidden and step % 10 == 0:
                shown = {"loss": f"{history.loss[-1]:.2e}"}
                if history.penalty:
                    shown["penalty"] = f"{history.penalty[-1]:.2e}"
                bar.set_postfix(shown)
    model.train(was_training)
    history.seconds = time.perf_counter() - start
    return history


def _turned(
    x: Tensor, y: Tensor, group: Group, parts: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Input and label with each part of the batch turned by an element of its own."""
    turned = []
    for pair in zip(x.tensor_split(parts), y.tensor_split(parts), strict=True):
        g = int(torch.randint(group.order, (), generator=generator))
        turned.append([rotate(t, group.elements[g], group) for t in pair])
    inputs, labels = zip(*turned, strict=True)
    return torch.cat(inputs), torch.cat(labels)


def _losses(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    regularizer: EquivarianceRegularizer | ProjectionPenalty | None,
    label_pairs: bool,
) -> tuple[Tensor, Tensor | None, int]:
    """Task loss, penalty, and how many images went through the network."""
    if not isinstance(regularizer, EquivarianceRegularizer):
        penalty = regularizer() if regularizer is not None else None
        return _compare(loss, model(x), y), penalty, len(x)
    out = regularizer(x)
    task = _compare(loss, out.y, y)
    if label_pairs:
        task = task + _compare(loss, out.y_g, out.act(y))
    return task, out.penalty, len(out.y) + len(out.y_g)


def _halves(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    automatic: AgreementStrength,
) -> Tensor:
    """The gradient of the batch in two halves, compared on the way; the task loss."""
    half = (len(x) + 1) // 2  # as tensor_split does
    if len(x) == 1:
        raise ValueError(f"fit: automatic= needs batches of at least 2 images, got {len(x)}")
    first = _compare(loss, model(x[:half]), y[:half]) * (half / len(x))
    first.backward()
    automatic.mark()
    second = _compare(loss, model(x[half:]), y[half:]) * (1 - half / len(x))
    second.backward()
    automatic.update()
    return first.detach() + second.detach()


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate: linear up, half a cosine down."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


def _compare(loss: Callable[[Tensor, Tensor], Tensor], prediction: Tensor, y: Tensor) -> Tensor:
    # mse_loss would broadcast (B, 1, H, W) against (B, 3, H, W) and train on nonsense.
    if prediction.shape != y.shape:
        raise ValueError(
            f"fit: prediction and label must have one shape, got {tuple(prediction.shape)} and "
            f"{tuple(y.shape)}"
        )
    return loss(prediction, y)


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
    if lam and regularizer is None:
        raise ValueError(f"fit: lam={lam:g} needs a regularizer, got none")
    for name, built in (("regularizer", regularizer), ("decay", decay)):
        if built is not None and built.model is not model:
            raise ValueError(f"fit: the {name} was built on another model than the one to train")
    if automatic is not None and (decay is None or automatic.decay is not decay):
        raise ValueError("fit: automatic= needs the decay= that it was built on")
    if automatic is not None and regularizer is not None:
        raise ValueError("fit: automatic= and regularizer= cannot be combined")
