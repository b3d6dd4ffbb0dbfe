"""Hugging Face: a callback for the decay, and a ``Trainer`` with the penalty in its loss."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...extras import require
from ...files import write_whole
from ...soft.projection import EquivarianceDecay
from ...soft.regularizer import EquivarianceRegularizer
from .optimizer import attach

_transformers: Any = require("transformers", extra=None)
_STATE = "equivariance_decay.pt"


class EquivarianceCallback(_transformers.TrainerCallback):
    """Let a decay follow the trainer's optimizer.

    The decay's state lies as ``equivariance_decay.pt`` in each of the trainer's checkpoints, so that a resumed run in
    half precision keeps what rounding took. The trainer does not tell callbacks from where it resumes: it is read from
    ``args.resume_from_checkpoint``, else from ``checkpoint-STEP`` of the output folder.

    Args:
        decay: made from the model, or from a part of it.

    Example::

        Trainer(model, args, train_dataset=data, callbacks=[EquivarianceCallback(EquivarianceDecay(model, C4))])
    """

    def __init__(self, decay: EquivarianceDecay) -> None:
        self.decay = decay
        self._handle: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach the decay; in a resumed run, with its state."""
        self._handle = attach(self.decay, kwargs["optimizer"])
        if state.global_step > 0:
            named = args.resume_from_checkpoint
            folder = Path(named) if isinstance(named, str) else _folder(args, state)
            if (folder / _STATE).exists():
                self.decay.load_state_dict(torch.load(folder / _STATE, weights_only=True))
            elif any(
                torch.finfo(t.dtype).bits < 32
                for layer in self.decay.plan.tied.values()
                for t, _ in layer.tensors()
            ):
                warnings.warn(
                    f"EquivarianceCallback: {folder} has no {_STATE}: what rounding took from the weights in half "
                    "precision is lost; name the checkpoint in TrainingArguments(resume_from_checkpoint=...)",
                    stacklevel=2,
                )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the decay's state beside what the trainer has saved."""
        if state.is_world_process_zero:
            content = io.BytesIO()
            torch.save(self.decay.state_dict(), content)
            write_whole(_folder(args, state) / _STATE, content.getvalue())

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Let go of the optimizer."""
        self._handle.remove()


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


class EquivarianceTrainer(_transformers.Trainer):
    """A ``Trainer`` whose loss is the model's own, on images and their turned copies, plus the penalty.

    Args:
        regularizer: makes a regularizer from the model, as the trainer has wrapped it.
        lam: weight of the penalty.
        args, kwargs: of ``transformers.Trainer``. The model has to put out its ``loss``.

    Raises:
        ValueError: a loss of the trainer's own is asked for, by ``compute_loss_func`` or label smoothing.

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
        if self.compute_loss_func is not None or self.label_smoother is not None:
            raise ValueError(
                "EquivarianceTrainer takes the loss that the model puts out; expected no compute_loss_func and "
                f"label_smoothing_factor=0, got {self.compute_loss_func} and {self.args.label_smoothing_factor:g}"
            )
        # A loss per batch: where gradients are accumulated it is the trainer that divides, also for models
        # that could have been told the number of items.
        self.model_accepts_loss_kwargs = False
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
        own = out.y["loss"] if isinstance(out.y, dict) else out.y[0]
        loss = own + self.lam * out.penalty
        return (loss, out.y) if return_outputs else loss
