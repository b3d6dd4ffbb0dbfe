"""A decay that follows every step of an optimizer, in whatever loop the optimizer runs."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from ...soft.projection import EquivarianceDecay


def attach(decay: EquivarianceDecay, optimizer: Optimizer) -> RemovableHandle:
    """Call ``decay.step(lr)`` after each step of an optimizer, with the rate of that step.

    It also counts rightly where loops do not step at every batch: with gradient accumulation, and when a
    gradient scaler leaves a step out.

    Args:
        decay: the decay.
        optimizer: one that trains the decay's parameters; also as wrapped by accelerate or Fabric.

    Returns:
        A handle: ``handle.remove()`` ends it.

    Raises:
        ValueError: the optimizer has none of the parameters, or groups of them with different rates at a step.

    A loop in the manner of BasicSR::

        attach(EquivarianceDecay(net_g, C4, strength=40), optimizer_g)
    """
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    tied = {id(t) for layer in decay.plan.tied.values() for t, _ in layer.tensors()}

    def groups() -> list[dict[str, Any]]:
        return [g for g in optimizer.param_groups if any(id(p) in tied for p in g["params"])]

    if not groups():
        raise ValueError("attach: the optimizer trains none of the decay's parameters")

    def after(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        rates = {float(group["lr"]) for group in groups()}
        if len(rates) > 1:
            raise ValueError(
                f"attach: expected one learning rate for the decay's parameters, got {sorted(rates)}; attach a decay "
                "for each group, with layers="
            )
        decay.step(rates.pop())

    return optimizer.register_step_post_hook(after)
