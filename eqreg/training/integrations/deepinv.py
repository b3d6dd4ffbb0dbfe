"""deepinv: a loss and a metric for its ``Trainer``, beside its own such as ``EILoss``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ...extras import require
from ...measure.errors import equivariance_error
from ...soft.regularizer import EquivarianceRegularizer
from ...symmetry.groups import Group

_loss: Any = require("deepinv.loss", extra="tasks")
_metric: Any = require("deepinv.loss.metric", extra="tasks")


class EquivarianceLoss(_loss.Loss):
    """The penalty of :class:`~eqreg.EquivarianceRegularizer` on the features of a reconstruction network.

    The measurement is turned, so the physics has to commute with turns: noise, symmetric blur, inpainting
    with a mask that turns into itself; not tomography, whose measurements are no images.

    Args:
        group: the group.
        weight: of the penalty.
        options: of the regularizer.

    Example::

        Trainer(model, physics, optimizer, losses=[SupLoss(), EquivarianceLoss(C4, weight=0.1)], ...)
    """

    def __init__(self, group: Group, weight: float = 1.0, **options: Any) -> None:
        super().__init__()
        self.group, self.weight, self.options = group, weight, options
        self._regularizer: EquivarianceRegularizer | None = None

    def forward(
        self, x_net: Tensor, x: Tensor, y: Tensor, physics: Any, model: nn.Module, **kwargs: Any
    ) -> Tensor:
        """The weighted penalty of ``model(y, physics)``, 0-d."""
        if self._regularizer is None or self._regularizer.model is not model:
            self._regularizer = EquivarianceRegularizer(model, self.group, turn=0, **self.options)
        return self.weight * self._regularizer(y, physics).penalty


class EquivarianceMetric(_metric.Metric):
    """Relative equivariance error of ``y -> model(y, physics)``, for each image; less is better.

    Args:
        group: the group.
        kwargs: of deepinv's ``Metric``.
    """

    def __init__(self, group: Group, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group, self.lower_better = group, True

    def metric(
        self,
        x_net: Tensor,
        x: Tensor,
        y: Tensor,
        physics: Any,
        model: nn.Module,
        **kwargs: Any,
    ) -> Tensor:
        """The errors (B,)."""
        return equivariance_error(lambda t: model(t, physics), y, self.group)
