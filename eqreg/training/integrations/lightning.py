"""PyTorch Lightning: a callback."""

from __future__ import annotations

import zlib
from typing import Any

from ...extras import require
from ...soft.projection import EquivarianceDecay
from .optimizer import attach

_lightning: Any = require("lightning.pytorch", extra=None)


class EquivarianceCallback(_lightning.Callback):
    """Let a decay follow the optimizers that train its parameters, and log the distance after each epoch.

    For a penalty call the regularizer in ``training_step``, as in any loop. The decay's state is in Lightning's
    checkpoints, so that a resumed run in half precision keeps what rounding took; as with an optimizer's rate, it goes
    on with the strength of the checkpoint.

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

    @property
    def state_key(self) -> str:
        """Where checkpoints have the decay's state: callbacks of different layers are told apart."""
        layers = "\n".join(self.decay.strengths).encode()
        key: str = self._generate_state_key(name=self.name, layers=f"{zlib.crc32(layers):08x}")
        return key

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return self.decay.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From Lightning's checkpoints."""
        self.decay.load_state_dict(state_dict)

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
