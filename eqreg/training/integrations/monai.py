"""MONAI: one iteration of its ``SupervisedTrainer`` on images and their turned copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
        The function. The engine's output has ``PENALTY`` beside its own keys; its inferer is not used.
    """
    keys: Any = require("monai.utils", extra=None).CommonKeys
    events: Any = require("monai.engines.utils", extra=None).IterationEvents

    def iteration(engine: Any, batch: Any) -> dict[str, Any]:
        prepared = engine.prepare_batch(
            batch, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        images, target, args, kwargs = (*prepared, (), {})[:4]
        engine.network.train()
        engine.optimizer.zero_grad(set_to_none=engine.optim_set_to_none)
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
        loss.backward()
        engine.fire_event(events.BACKWARD_COMPLETED)
        engine.optimizer.step()
        engine.fire_event(events.MODEL_COMPLETED)
        output: dict[str, Any] = engine.state.output
        return output

    return iteration
