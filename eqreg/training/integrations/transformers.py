"""Hugging Face: a callback for the decay, and a ``Trainer`` with the penalty in its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ...extras import require
from ...soft.projection import EquivarianceDecay
from ...soft.regularizer import EquivarianceRegularizer
from .optimizer import attach

_transformers: Any = require("transformers", extra=None)


class EquivarianceCallback(_transformers.TrainerCallback):
    """Let a decay follow the trainer's optimizer.

    Args:
        decay: made from the model, or from a part of it.

    Example::

        Trainer(model, args, train_dataset=data, callbacks=[EquivarianceCallback(EquivarianceDecay(model, C4))])
    """

    def __init__(self, decay: EquivarianceDecay) -> None:
        self.decay = decay
        self._handle: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach the decay."""
        self._handle = attach(self.decay, kwargs["optimizer"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the optimizer."""
        self._handle.remove()


class EquivarianceTrainer(_transformers.Trainer):
    """A ``Trainer`` whose loss is the model's own, on images and their turned copies, plus the penalty.

    Args:
        regularizer: makes a regularizer from the model, as the trainer has wrapped it.
        lam: weight of the penalty.
        args, kwargs: of ``transformers.Trainer``. The model has to put out its ``loss``.

    Example::

        EquivarianceTrainer(
            model, args, train_dataset=data, lam=0.1,
            regularizer=lambda m: EquivarianceRegularizer(m, C4, turn=["pixel_values", "labels"]),
        )
    """

    def __init__(
        self,
        *args: Any,
        regularizer: Callable[[nn.Module], EquivarianceRegularizer],
        lam: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.make_regularizer, self.lam = regularizer, lam
        self._regularizer: EquivarianceRegularizer | None = None

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """The loss of a training step; the plain one in evaluation."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, **kwargs)
        if self._regularizer is None or self._regularizer.model is not model:
            self._regularizer = self.make_regularizer(model)
        out = self._regularizer(**inputs)
        loss = out.y["loss"] + self.lam * out.penalty
        return (loss, out.y) if return_outputs else loss
