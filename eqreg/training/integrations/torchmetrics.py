"""torchmetrics: the equivariance error, collected over batches and processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...extras import require
from ...measure.errors import equivariance_error
from ...symmetry.groups import Group

_torchmetrics: Any = require("torchmetrics", extra="tasks")


class EquivarianceError(_torchmetrics.Metric):
    """Mean over all images of :func:`~eqreg.equivariance_error`.

    Args:
        group: the group.
        options: of :func:`~eqreg.equivariance_error`, for example ``field_out``.
        kwargs: of ``torchmetrics.Metric``.

    Example::

        metric = EquivarianceError(C4)
        for x in loader:
            metric.update(model, x)
        metric.compute()
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, group: Group, options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group, self.options = group, options or {}
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, f: Callable[[Tensor], Tensor], x: Tensor) -> None:
        """Take in a batch (B, C, H, W) of inputs of the map ``f``."""
        errors = equivariance_error(f, x, self.group, **self.options)
        self.total += errors.sum().to(self.total)
        self.images += len(errors)

    def compute(self) -> Tensor:
        """The mean, 0-d."""
        return self.total / self.images
