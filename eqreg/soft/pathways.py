r"""Residual pathways: each weight is a strict one plus a free one, and the free one decays faster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from ..checks import need_number, wide
from ..layers.plan import Fields, Selector
from ..layers.reynolds import Index, projected
from ..layers.traced import weight_plan
from ..symmetry.groups import Group
from .remainders import Decay

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
        even = projected(wide(weight), self.index)
        if weight.ndim > 1 and bool(norm := even.norm()):
            even = even * (wide(weight).norm() / norm)
        return even.to(weight.dtype), torch.zeros_like(weight)


class PathwayDecay(Decay):
    r"""Two paths in every layer, :math:`W=\Pi U+B`, and a decay after each step that is stronger on the free one.

    A decay is a Gaussian prior, and this one says: probably symmetric, possibly not. In the linear case the
    symmetric part of :math:`W` has the variance of both paths, the rest that of the free one alone. The
    network starts strict (:math:`B=0`), and has twice the parameters while it trains, none more in use.

    Args:
        model: changed in place: its tied parameters are parametrised; frozen ones stay as they are.
        group, layers, fields, in_fields, example: as for :func:`~eqreg.equivariance_distance`.
        strength: of the decay of :math:`B`, by :math:`e^{-s\,\mathrm{lr}}` a step; that of :math:`U` is a
            hundredth of it.

    Raises:
        TypeError, ValueError: as for :class:`~eqreg.EquivarianceDecay`.

    Reference: Finzi, Benton & Wilson, Residual Pathway Priors for Soft Equivariance Constraints, NeurIPS 2021. The
    construction is our own: one convolution with the sum of the kernels, not two networks.

    >>> from eqreg import C4
    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    >>> count = sum(p.numel() for p in model.parameters())
    >>> decay = PathwayDecay(model, C4)
    >>> sum(p.numel() for p in model.parameters()) / count  # a symmetric and a free path
    2.0
    """

    finite = True

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
            named = [
                n
                for n in layer.names
                if getattr(getattr(layer.module, n, None), "requires_grad", False)
            ]
            tensors = list(layer.tensors())
            self._originals[name] = []
            for n, (_, index) in zip(named, tensors, strict=True):
                register_parametrization(layer.module, n, _Paths(index))
                self._originals[name].append(layer.module.parametrizations[n])  # type: ignore[index]
        if not any(self._originals.values()):
            raise ValueError("PathwayDecay: expected parameters that train, all are frozen")
        super().__init__(self.plan.tied, strength)

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
            strict, free = math.exp(-_STRICT * strength * lr), math.exp(-strength * lr)
            for key, tensor in self._paths(name):
                self.change_(key, tensor, partial(_scale_, strict if key.endswith("0") else free))

    def _paths(self, name: str) -> Iterator[tuple[str, Tensor]]:
        """The paths of a layer by name: those that end in 0 are strict, in 1 free."""
        for i, paths in enumerate(self._originals[name]):
            yield f"{name}/{i}/0", paths.original0
            yield f"{name}/{i}/1", paths.original1

    def _shapes(self) -> dict[str, torch.Size]:
        return {key: t.shape for name in self._originals for key, t in self._paths(name)}


def _scale_(factor: float, tensor: Tensor) -> None:
    tensor.mul_(factor)
