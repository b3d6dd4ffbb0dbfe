r"""The penalty of Berndt and Stuehmer on the two parts of every weight, by their norms and not their squares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import need_number, wide
from ..layers.plan import Fields, Selector
from ..layers.reynolds import projected
from ..layers.traced import weight_plan
from ..symmetry.groups import Group


class ProjectionNorms:
    r"""Norms of the asymmetric and of the symmetric part of the weights, to be added to a loss.

    .. math:: \frac1L\sum_\ell\big(\|W_\ell-\Pi W_\ell\|+a\,\|\Pi W_\ell\|\big)

    with the Frobenius norm over all tied parameters of a layer. A norm has a kink where its square is flat:
    at a finite weight the asymmetric part of a layer becomes exactly zero (chapter 11), which
    :class:`~eqreg.ProjectionPenalty` never reaches. It is absolute: it also shrinks what it is small for.

    Args:
        model, group, layers, fields, in_fields, example: as for :func:`~eqreg.equivariance_distance`.
        symmetric: the weight :math:`a\ge0` of the symmetric part, relative to that of the other.

    Raises:
        TypeError, ValueError: as for :class:`~eqreg.EquivarianceDecay`, or a negative ``symmetric``.

    Reference: Berndt & Stuehmer, Approximate Equivariance via Projection-Based Regularisation, 2026.

    >>> from eqreg import C4, soften
    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    >>> bool(ProjectionNorms(model, C4)() > 0.1)
    True
    >>> strict = soften(model, C4, 1.0, example=torch.rand(1, 1, 9, 9)).model
    >>> bool(ProjectionNorms(strict, C4)() < 1e-6)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        *,
        symmetric: float = 0.0,
        layers: Selector | Iterable[Selector] | None = None,
        fields: Fields | None = None,
        in_fields: Fields | None = None,
        example: Any = None,
    ) -> None:
        self.symmetric = need_number(symmetric, "ProjectionNorms: symmetric", 0)
        self.model, self.group = model, group
        self.plan = weight_plan(model, group, layers, fields, in_fields, example)

    def per_layer(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Norms of the asymmetric and of the symmetric part, 0-d tensors with their graph, by layer name."""
        found = {}
        for name, layer in self.plan.tied.items():
            rest, even = [], []
            for tensor, index in layer.tensors(trainable=False):
                whole = wide(tensor)
                mean = projected(whole, index)
                rest.append((whole - mean).flatten())
                even.append(mean.flatten())
            # vector_norm has the gradient 0 at 0; a square root of a sum would give NaN.
            found[name] = (
                torch.linalg.vector_norm(torch.cat(rest)), torch.linalg.vector_norm(torch.cat(even))
            )  # fmt: skip
        return found

    def __call__(self) -> Tensor:
        """The penalty, a 0-d tensor with its graph."""
        parts = [rest + self.symmetric * even for rest, even in self.per_layer().values()]
        return torch.stack(parts).mean()
