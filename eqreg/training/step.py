"""What one step of the training loop minimises, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..soft import AgreementStrength, EquivarianceRegularizer
from ..symmetry import Element
from .batch import Batch, inputs, size, split
from .settings import Symmetry

Loss = Callable[[Any, Any], Tensor]
# Losses that compare place by place, and broadcast what differs in shape.
_ELEMENTWISE = (F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss, F.poisson_nll_loss)
_MODULES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.PoissonNLLLoss)
# (model, prediction, x, y, generator) -> scalar; for losses that run the model again.
Objective = Callable[[nn.Module, Any, Batch, Batch, torch.Generator | None], Tensor]


@dataclass
class StepLoss:
    """Task loss and penalty of a batch; ``backward`` adds their gradient to the parameters."""

    model: nn.Module
    loss: Loss
    objective: Objective | None
    symmetry: Symmetry
    parts: int  # in which a batch passes the network
    generator: torch.Generator | None
    fabric: Any = None
    images: int = 0  # that went through the network so far

    def backward(
        self, x: Batch, y: Batch, factor: float = 0.0, compared: bool = False
    ) -> tuple[Tensor, ...]:
        """Accumulate the gradient over the parts of the batch.

        Args:
            x, y: the batch.
            factor: on the weight of the penalty.
            compared: pass two halves, which the automatic strength compares on the way.

        Returns:
            The detached task loss and, with a regularizer, penalty; means over the batch.
        """
        if compared and self.symmetry.automatic is not None:
            return self._compare_halves(x, y, self.symmetry.automatic)
        regularizer, lam = self.symmetry.regularizer, self.symmetry.lam
        # One element for the whole batch, in how many parts it may pass.
        g = None
        if isinstance(regularizer, EquivarianceRegularizer) and self.parts > 1:
            g = regularizer.draw()
        seen = []
        pieces = split((x, y), self.parts)
        for i, (part_x, part_y) in enumerate(pieces):
            weight = size(part_x) / size(x)
            with self._later(wait=i + 1 < len(pieces)):
                task, penalty = self._forward(part_x, part_y, g)
                total = task if penalty is None else task + lam * factor * penalty
                self._backward(total * weight)
            terms = [task] if penalty is None else [task, penalty]
            seen.append(torch.stack([t.detach().float() * weight for t in terms]))
        return torch.stack(seen).sum(0).unbind()

    def _compare_halves(self, x: Batch, y: Batch, automatic: AgreementStrength) -> tuple[Tensor]:
        if size(x) < 2:
            raise ValueError(f"fit: automatic= needs batches of at least 2 images, got {size(x)}")
        total = torch.zeros((), device=inputs(x)[0].device)
        for half, told in zip(split((x, y), 2), (automatic.mark, automatic.update), strict=True):
            task = self.task(self.model(*inputs(half[0])), *half) * (size(half[0]) / size(x))
            self._backward(task)
            told()
            self.images += size(half[0])
            total = total + task.detach()
        return (total,)

    def _forward(self, x: Batch, y: Batch, g: Element | None) -> tuple[Tensor, Tensor | None]:
        regularizer = self.symmetry.regularizer
        if not isinstance(regularizer, EquivarianceRegularizer):
            penalty = regularizer() if regularizer is not None else None
            self.images += size(x)
            return self.task(self.model(*inputs(x)), x, y), penalty
        out = regularizer(*inputs(x), g=g)
        turned_too = out.pairing.pairs if out.g != out.pairing.group.identity else 0
        self.images += size(x) + turned_too
        task = self.task(out.y, x, y)
        if self.symmetry.label_pairs:
            turned = [tuple(out.act(t) for t in inputs(b)) for b in (x, y)]
            x_g, y_g = (
                t if isinstance(b, tuple) else t[0] for t, b in zip(turned, (x, y), strict=True)
            )
            task = (task + self.task(out.y_g, x_g, y_g)) / 2
        return task, out.penalty

    def task(self, prediction: Any, x: Batch, y: Batch) -> Tensor:
        """The task loss; images are never compared with images of another shape."""
        if self.objective is not None:
            return self.objective(self.model, prediction, x, y, self.generator)
        # mse_loss would broadcast (B, 1, H, W) against (B, 3, H, W), or (B, 1) against (B,), and train on nonsense.
        if (
            isinstance(prediction, Tensor)
            and isinstance(y, Tensor)
            and (y.dim() == 4 or self.loss in _ELEMENTWISE or isinstance(self.loss, _MODULES))
            and prediction.shape != y.shape
        ):
            raise ValueError(
                f"fit: prediction and label must have one shape, got {tuple(prediction.shape)} and "
                f"{tuple(y.shape)}"
            )
        return self.loss(prediction, y)

    def _later(self, wait: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients after the last part only."""
        if self.fabric is None:
            return nullcontext()
        return self.fabric.no_backward_sync(self.model, enabled=wait)

    def _backward(self, total: Tensor) -> None:
        if self.fabric is None:
            total.backward()
        else:
            self.fabric.backward(total)
