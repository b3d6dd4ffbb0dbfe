r"""Residual pathways: each weight is a strict one plus a free one, and the free one decays faster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from ..checks import need_number
from ..layers.plan import Fields, Selector
from ..layers.reynolds import Index, projected
from ..layers.traced import weight_plan
from ..symmetry.groups import Group

_STRICT = 0.01  # decay of the strict path, as a share of that of the free one


class _Paths(nn.Module):
    """One parameter as the projection of its first original plus its second."""

    def __init__(self, index: Index) -> None:
        super().__init__()
        self.index = index

    def forward(self, strict: Tensor, free: Tensor) -> Tensor:
        self.index = self.index.to(strict.device)
        return projected(strict, self.index) + free

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """All in the strict path, with the norm that the weight had."""
        even = projected(weight, self.index)
        if weight.ndim > 1 and bool(norm := even.norm()):
            even = even * (weight.norm() / norm)
        return even, torch.zeros_like(weight)


class PathwayDecay:
    r"""Two paths in every layer, :math:`W=\Pi U+B`, and a decay after each step that is stronger on the free one.

    A decay is a Gaussian prior, and this one says: probably symmetric, possibly not. In the linear case the
    symmetric part of :math:`W` has the variance of both paths, the rest that of the free one alone. The
    network starts strict (:math:`B=0`), and has twice the parameters while it trains, none more in use.

    Args:
        model: changed in place: its tied parameters are parametrised.
        group, layers, fields, in_fields, example: as for :func:`~eqreg.equivariance_distance`.
        strength: of the decay of :math:`B`, by :math:`e^{-s\,\mathrm{lr}}` a step; that of :math:`U` is a
            hundredth of it.

    Raises:
        TypeError, ValueError: as for :class:`~eqreg.EquivarianceDecay`.

    Reference: Finzi, Benton & Wilson, Residual Pathway Priors for Soft Equivariance Constraints, NeurIPS 2021. The
    construction is our own: one convolution with the sum of the kernels, not two networks.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        strength: float | Mapping[str, float] = 40.0,
        *,
        layers: Selector | Iterable[Selector] | None = None,
        fields: Fields | None = None,
        in_fields: Fields | None = None,
        example: Any = None,
    ) -> None:
        self.model, self.group = model, group
        self.plan = weight_plan(model, group, layers, fields, in_fields, example)
        self._originals: dict[str, list[Any]] = {}
        for name, layer in self.plan.tied.items():
            named = [n for n in layer.names if getattr(layer.module, n, None) is not None]
            tensors = list(layer.tensors(trainable=False))
            self._originals[name] = []
            for n, (_, index) in zip(named, tensors, strict=True):
                register_parametrization(layer.module, n, _Paths(index))
                self._originals[name].append(layer.module.parametrizations[n])  # type: ignore[index]
        self.strengths: dict[str, float] = {}
        self.set_strength(strength)

    def set_strength(self, strength: float | Mapping[str, float]) -> None:
        """Change the strength of all layers, or of those that a mapping names (the others get 0).

        Raises:
            ValueError: for a negative or infinite strength, or an unknown layer.
        """
        given = (
            strength if isinstance(strength, Mapping) else dict.fromkeys(self.plan.tied, strength)
        )
        if unknown := sorted(set(given) - set(self.plan.tied)):
            raise ValueError(
                f"strength: expected names among {sorted(self.plan.tied)}, got {unknown[0]!r}"
            )
        self.strengths = {
            n: need_number(given.get(n, 0.0), f"strength of layer {n!r}", 0) for n in self.plan.tied
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Decay once; call it after ``optimizer.step()``.

        Args:
            lr: the optimizer's current learning rate; at 0 nothing moves.

        Raises:
            TypeError, ValueError: for what is no rate.
        """
        need_number(lr, "lr", 0)
        for name, strength in self.strengths.items():
            for paths in self._originals[name]:
                paths.original0.mul_(math.exp(-_STRICT * strength * lr))
                paths.original1.mul_(math.exp(-strength * lr))
