"""PyTorch Lightning: a callback."""

from __future__ import annotations

from typing import Any

from ...extras import require
from ...soft.projection import EquivarianceDecay
from .optimizer import attach

_lightning: Any = require("lightning.pytorch", extra=None)


class EquivarianceCallback(_lightning.Callback):
    """Let a decay follow the optimizers that train its parameters, and log the distance after each epoch.

    For a penalty call the regularizer in ``training_step``, as in any loop.

    Args:
        decay: made from the module, or the part of it, that is to become symmetric.
        name: under which the mean of the layers' distances is logged; see :func:`~eqreg.equivariance_distance`.

    Example::

        callback = EquivarianceCallback(EquivarianceDecay(module.net, C4, strength=40))
        Trainer(callbacks=[callback]).fit(module, loader)
    """

    def __init__(self, decay: EquivarianceDecay, name: str = "equivariance_distance") -> None:
        self.decay, self.name = decay, name
        self._handles: list[Any] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach the decay."""
        trained = {id(t) for layer in self.decay.plan.tied.values() for t, _ in layer.tensors()}
        for optimizer in trainer.optimizers:
            if any(id(p) in trained for g in optimizer.param_groups for p in g["params"]):
                self._handles.append(attach(self.decay, optimizer))
        if not self._handles:
            raise ValueError("EquivarianceCallback: no optimizer trains the decay's parameters")

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the distance."""
        shares = [float(layer.asymmetric_share()) for layer in self.decay.plan.tied.values()]
        pl_module.log(self.name, sum(shares) / len(shares))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Let go of the optimizers."""
        self._detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Let go of the optimizers."""
        self._detach()

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
