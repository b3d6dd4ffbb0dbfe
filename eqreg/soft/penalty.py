"""Soft symmetry in weight space as a term of the loss."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.plan import Fields, Selector
from ..layers.traced import weight_plan
from ..symmetry.groups import Group


class ProjectionPenalty:
    r"""Distance of a model's weights from the equivariant ones, to be added to a loss.

    .. math:: \frac1L\sum_\ell\frac{2|G|}{|G|-1}\,\frac{\|W_\ell-\Pi W_\ell\|^2}{\|W_\ell\|^2}

    with the denominator detached. The factor puts it on the scale of the regularizer's penalty: 0 for an
    equivariant network, about 2 for random weights. No second forward pass is needed.

    Args:
        model, group, layers, fields, in_fields, example: as for :func:`equivariance_distance`.

    Raises:
        TypeError, ValueError: as for :class:`EquivarianceDecay`.

    Of the energy 204 of the weights 0 to 8, 60 are outside, and :math:`2|G|/(|G|-1)` is 8/3:

    >>> from eqreg import C4
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False))
    >>> net[0].weight.data = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> penalty = ProjectionPenalty(net, C4)  # loss = mse(net(x), y) + lam * penalty()
    >>> round(penalty().item(), 4), round(8 / 3 * 60 / 204, 4)
    (0.7843, 0.7843)

    Under Adam its effect depends on ``lam`` over the size of the task's gradients, and a large one starves
    the task (chapter 10); :class:`EquivarianceDecay` does what its strength says.

    Reference: Berndt & Stuehmer, Approximate Equivariance via Projection-Based Regularisation, 2026.
    Taught in: notebooks/10.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        *,
        layers: Selector | Iterable[Selector] | None = None,
        fields: Fields | None = None,
        in_fields: Fields | None = None,
        example: Any = None,
    ) -> None:
        self.model, self.group = model, group
        self.plan = weight_plan(model, group, layers, fields, in_fields, example)

    def per_layer(self) -> dict[str, Tensor]:
        """The terms of the mean, 0-d tensors with their graph, by layer name."""
        scale = 2 * self.group.order / (self.group.order - 1)
        return {name: scale * layer.asymmetric_share() for name, layer in self.plan.tied.items()}

    def __call__(self) -> Tensor:
        """The penalty, a 0-d tensor with its graph."""
        return torch.stack(list(self.per_layer().values())).mean()
