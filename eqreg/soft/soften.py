"""From a trained network to a strictly equivariant one, by any part of the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import nn

from ..layers.wrappers import unwrapped
from ..symmetry.groups import Group
from ..typed import typed

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Softened(Generic[M]):
    r"""What :func:`soften` returns.

    Attributes:
        model: a copy with weights :math:`(1-b)W+b\,\Pi W`, of the same class and cost.
        b: the share of the way, in [0, 1].
        defect: relative equivariance error of the copy on the example, in float64, measured.
        before: that of the model.
        parameters: share of the parameters that could be moved, in [0, 1].

    >>> import torch
    >>> from eqreg import C4
    >>> found = soften(nn.Conv2d(1, 1, 3, padding=1), C4, 1.0, example=torch.rand(1, 1, 8, 8))
    >>> found.parameters, found.before > 1e-3, found.defect < 1e-10
    (1.0, True, True)
    """

    model: M
    b: float
    defect: float
    before: float
    parameters: float


@typed
def soften(model: M, group: Group, b: float, *, example: Any) -> Softened[M]:
    r"""Move all weights a share of the way to the nearest equivariant ones.

    ``b=0`` is the model, ``b=1`` a strictly equivariant one, if tracing covers it: a plain module that runs
    as fast as before. How large the error is between, no formula says; it is measured.

    Args:
        model: any module; it is copied, not changed.
        group: C2, C4, D2 or D4.
        b: in [0, 1].
        example: an input, as for :func:`~eqreg.check`.

    Raises:
        ValueError: for ``b`` out of range, or an example that cannot be turned.

    Half of the way from the weights 0 to 8 to nine fours:

    >>> import torch
    >>> from eqreg import C4
    >>> net = nn.Conv2d(1, 1, 3, bias=False)
    >>> net.weight.data = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> soften(net, C4, 0.5, example=torch.rand(1, 1, 8, 8)).model.weight.data.flatten()
    tensor([2.0000, 2.5000, 3.0000, 3.5000, 4.0000, 4.5000, 5.0000, 5.5000, 6.0000])

    Reference: arXiv:2603.26657, which interpolates so for classifiers.
    """
    # Imported here, so that the package loads fast.
    from ..layers.trace import tie
    from ..layers.trace.defect import defect, single
    from ..layers.trace.ties import copied

    if not 0 <= b <= 1:
        raise ValueError(f"b must lie in [0, 1], got {b}")
    ties = tie(model, example, group)
    moved = copied(model)
    ties.project_(moved, b)
    x = single(example)
    before, after = (
        defect(copied(unwrapped(m)).cpu().double().eval(), x, ties.action) for m in (model, moved)
    )
    return Softened(moved, b, after, before, ties.coverage)
