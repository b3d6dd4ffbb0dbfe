"""deepinv: a loss and a metric for its ``Trainer``, beside its own such as ``EILoss``."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ...extras import require
from ...measure.errors import equivariance_error
from ...soft.regularizer import EquivarianceRegularizer
from ...symmetry.actions import rotate
from ...symmetry.groups import Group

_loss: Any = require("deepinv.loss", extra="tasks")
_metric: Any = require("deepinv.loss.metric", extra="tasks")
# Far above rounding, below what deepinv's own filters break.
_BENT = 1e-3


class EquivarianceLoss(_loss.Loss):
    """The penalty of :class:`~eqreg.EquivarianceRegularizer` on the features of a reconstruction network.

    The measurement is turned, so the physics has to commute with turns: noise, symmetric blur, inpainting
    with a mask that turns into itself; not tomography, whose measurements are no images. Where it does not, the
    network is asked two different questions, and a warning says by how much.

    Args:
        group: the group.
        weight: of the penalty.
        options: of the regularizer.

    Warns:
        UserWarning: once for a physics, if it does not commute with the turns of the group.

    Example::

        Trainer(model, physics, optimizer, losses=[SupLoss(), EquivarianceLoss(C4, weight=0.1)], ...)
    """

    def __init__(self, group: Group, weight: float = 1.0, **options: Any) -> None:
        super().__init__()
        self.group, self.weight, self.options = group, weight, options
        self._regularizer: EquivarianceRegularizer | None = None
        self._asked: Any = None  # the physics that was asked whether it commutes

    def forward(
        self, x_net: Tensor, x: Tensor, y: Tensor, physics: Any, model: nn.Module, **kwargs: Any
    ) -> Tensor:
        """The weighted penalty of ``model(y, physics)``, 0-d."""
        if self._regularizer is None or self._regularizer.model is not model:
            self._regularizer = EquivarianceRegularizer(model, self.group, turn=0, **self.options)
        if (
            self._asked is not physics
        ):  # not at every step: it costs as many measurements as the group is large
            self._asked = physics
            _tell_if_bent("EquivarianceLoss", physics, x_net, self.group)
        return self.weight * self._regularizer(y, physics).penalty


class EquivarianceMetric(_metric.Metric):
    """Relative equivariance error of ``y -> model(y, physics)``, for each image; less is better.

    Args:
        group: the group.
        kwargs: of deepinv's ``Metric``.

    Warns:
        UserWarning: once, as :class:`EquivarianceLoss` does.
    """

    def __init__(self, group: Group, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.group, self.lower_better = group, True
        self._asked: Any = None

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
        if self._asked is not physics:
            self._asked = physics
            _tell_if_bent("EquivarianceMetric", physics, x_net, self.group)
        return equivariance_error(lambda t: model(t, physics), y, self.group)


@torch.no_grad()
def _tell_if_bent(name: str, physics: Any, x: Tensor, group: Group) -> None:
    """Warn if the physics does not commute with the turns of the group on ``x``."""
    y = physics.A(x)
    if not isinstance(y, Tensor):
        return  # several measurements: which of them turn is not known here
    for g in group.elements[1:]:
        moved = physics.A(rotate(x, g, group))
        asked = rotate(y, g, group)
        error = (moved - asked).norm() / y.norm() if moved.shape == asked.shape else y.new_tensor(1)
        if error > _BENT:
            warnings.warn(
                f"{name}: {type(physics).__name__} does not commute with the turns of {group}: A(g x) differs from "
                f"g A(x) by {float(error):.2g} of its size for g = {tuple(g)}; the network is then compared with its "
                "answer to another question. Take a mask or a filter that turns into itself, or a smaller group",
                stacklevel=4,
            )
            return
