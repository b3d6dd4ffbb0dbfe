"""MONAI: one iteration of its ``SupervisedTrainer`` on images and their turned copies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from ...extras import require
from ...soft.regularizer import EquivarianceRegularizer


def regularized_iteration(
    regularizer: EquivarianceRegularizer, lam: float
) -> Callable[[Any, Any], dict[str, Any]]:
    """For ``SupervisedTrainer(iteration_update=...)``: the loss on both halves, plus the penalty.

    The decay needs no iteration of its own: :func:`~eqreg.training.integrations.optimizer.attach` it to the optimizer.

    Args:
        regularizer: made from the engine's network.
        lam: weight of the penalty.

    Returns:
        The function. The engine's output has ``PENALTY`` beside its own keys; its inferer is not used. Its mixed
        precision and its accumulation of gradients are.
    """
    keys: Any = require("monai.utils", extra=None).CommonKeys
    events: Any = require("monai.engines.utils", extra=None).IterationEvents

    def iteration(engine: Any, batch: Any) -> dict[str, Any]:
        prepared = engine.prepare_batch(
            batch, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        images, target, args, kwargs = (*prepared, (), {})[:4]
        first, last, parts = _accumulated(engine)
        scaler = engine.scaler if engine.amp else None
        engine.network.train()
        if first:
            engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
        with torch.autocast("cuda", **engine.amp_kwargs) if scaler else nullcontext():
            out = regularizer(images, *args, **kwargs)
            engine.state.output = {keys.IMAGE: images, keys.LABEL: target, keys.PRED: out.y}
            engine.fire_event(events.FORWARD_COMPLETED)
            halves = (
                engine.loss_function(out.y, target),
                engine.loss_function(out.y_g, out.act(target)),
            )
            loss = sum(half.mean() for half in halves) / len(halves) + lam * out.penalty
            engine.state.output |= {keys.LOSS: loss, "PENALTY": out.penalty.detach()}
            engine.fire_event(events.LOSS_COMPLETED)
        (scaler.scale(loss / parts) if scaler else loss / parts).backward()
        engine.fire_event(events.BACKWARD_COMPLETED)
        if last and scaler:
            scaler.step(engine.optimizer)
            scaler.update()
        elif last:
            engine.optimizer.step()
        engine.fire_event(events.MODEL_COMPLETED)
        output: dict[str, Any] = engine.state.output
        return output

    return iteration


def _accumulated(engine: Any) -> tuple[bool, bool, int]:
    """Whether gradients start anew with this batch, whether a step follows it, and over how many they gather."""
    parts = getattr(engine, "accumulation_steps", 1)  # not before MONAI 1.6
    done, length = engine.state.iteration - 1, engine.state.epoch_length
    at = done % length if length else done
    return at % parts == 0, (at + 1) % parts == 0 or at + 1 == length, parts
