r"""Weights that pass a gate: the asymmetric part comes through by a factor, fixed or learnt.

The network keeps its class and its cost of use; while it trains, what its layers see is
:math:`\Pi W+\gamma\,(W-\Pi W)` (``torch.nn.utils.parametrize``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from ..checks import need_number
from ..layers.plan import Fields, Selector
from ..layers.reynolds import Index, projected
from ..layers.traced import weight_plan
from ..layers.weights import WeightPlan
from ..symmetry.groups import Group


class _Gate(nn.Module):
    """One parameter, its asymmetric part times ``gamma``."""

    multiplier: Tensor
    slack: Tensor

    def __init__(self, index: Index, gamma: float, learnt: bool) -> None:
        super().__init__()
        self.index = index
        value = torch.tensor(float(gamma))
        self.gamma: Any = nn.Parameter(value) if learnt else gamma
        if learnt:
            self.register_buffer("multiplier", torch.zeros(()))
            self.register_buffer("slack", torch.zeros(()))

    def forward(self, weight: Tensor) -> Tensor:
        self.index = self.index.to(weight.device)
        even = projected(weight, self.index)
        return even + self.gamma * (weight - even)


def gated(model: nn.Module, plan: WeightPlan, gamma: float, *, learnt: bool) -> list[_Gate]:
    """Put a gate before every tied parameter of ``model``."""
    gates = []
    for layer in plan.tied.values():
        named = [n for n in layer.names if getattr(layer.module, n, None) is not None]
        tensors = list(layer.tensors(trainable=False))
        for name, (tensor, index) in zip(named, tensors, strict=True):
            gates.append(gate := _Gate(index, gamma, learnt).to(tensor.device))
            register_parametrization(layer.module, name, gate)
    return gates


def soft_projection_(
    model: nn.Module,
    group: Group,
    b: float,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    in_fields: Fields | None = None,
    example: Any = None,
) -> nn.Module:
    r"""Train under a soft projection: layers see :math:`\Pi W+(1-b)(W-\Pi W)`, with one ``b`` for all.

    A layer's asymmetry, :math:`\|W-T_gW\|`, is scaled by exactly :math:`1-b` for every element; ``b = 0`` changes
    nothing, ``b = 1`` is a strict network. (The paper's dial runs the other way: its 0 is strict.)

    Args:
        model: changed in place: its tied parameters are parametrised.
        group, layers, fields, in_fields, example: as for :func:`~eqreg.equivariance_distance`.
        b: in [0, 1].

    Returns:
        The model.

    Raises:
        TypeError, ValueError: as for :class:`~eqreg.EquivarianceDecay`, or ``b`` out of range.

    Reference: Rahman, Hao, Jiang, Lim & Yeh, Tunable Soft Equivariance with Guarantees, CVPR 2026, for the dial; on
    rotations of the grid the projection is the mean over the group.

    >>> from eqreg import C4, rotate
    >>> layer = nn.Conv2d(1, 1, 3)
    >>> free = layer.weight.detach().clone()
    >>> weight = soft_projection_(layer, C4, 0.75).weight
    >>> torch.allclose(weight - rotate(weight, 1), 0.25 * (free - rotate(free, 1)))
    True
    """
    need_number(b, "soft_projection_: b", 0, 1)
    gated(model, weight_plan(model, group, layers, fields, in_fields, example), 1 - b, learnt=False)
    return model


class AdaptiveConstraint:
    r"""Gates that a dual method closes as far as the data let it: Adaptive Constrained Equivariance.

    Layers see :math:`\Pi W_i+\gamma_i(W_i-\Pi W_i)` with learnt :math:`\gamma_i`, 1 at the start. The problem is

    .. math:: \min\ \ell(\theta,\gamma)+\tfrac\rho2\sum_iu_i^2\quad\text{so that}\quad|\gamma_i|\le u_i,

    and its multipliers :math:`\lambda_i=\rho\nu_i` are the strengths: they grow while a gate is wider open than its
    slack :math:`u_i`, which in turn follows them. At rest :math:`u_i=|\gamma_i|=\nu_i`: a gate stays open where
    closing it would cost more than :math:`\rho|\gamma_i|`.

    Add ``rho * constraint()`` to the loss and call :meth:`step` after the optimizer's.

    Args:
        model: changed in place: its tied parameters are parametrised, the gates are parameters of its own.
        group, layers, fields, in_fields, example: as for :func:`~eqreg.equivariance_distance`.

    Raises:
        TypeError, ValueError: as for :class:`~eqreg.EquivarianceDecay`.

    Reference: Manolache, Chamon & Niepert, Learning (Approximately) Equivariant Networks via Constrained
    Optimization, NeurIPS 2025; there the asymmetric part has parameters of its own.

    >>> from eqreg import C4
    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    >>> constraint = AdaptiveConstraint(model, C4)
    >>> constraint.step(lr=0.1)  # after the optimizer's
    >>> [round(gate.multiplier.item(), 2) for gate in constraint.gates]
    [0.1, 0.1, 0.1, 0.1]
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
        self.gates = gated(model, self.plan, 1.0, learnt=True)

    def __call__(self) -> Tensor:
        r"""The constraint's part of the Lagrangian, :math:`\sum_i\nu_i|\gamma_i|`, in units of :math:`\rho`."""
        return torch.stack([g.multiplier * g.gamma.abs() for g in self.gates]).sum()

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move slacks and multipliers; call it after ``optimizer.step()``.

        Args:
            lr: the optimizer's current learning rate; at 0 nothing moves.

        Raises:
            TypeError, ValueError: for what is no rate.
        """
        need_number(lr, "lr", 0)
        for g in self.gates:
            open_by = g.gamma.abs() - g.slack
            g.slack.add_(lr * (g.multiplier - g.slack)).clamp_(min=0)
            g.multiplier.add_(lr * open_by).clamp_(min=0)
