"""How strong, found while training: by whether two halves of a batch agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..checks import given, need_number, wide
from ..layers.reynolds import Index, reynolds
from ..typed import typed
from .projection import EquivarianceDecay

_PAIR = 2


class AgreementStrength:
    r"""Moves the strengths of a decay while training, layer by layer, by whether two half batches agree.

    Split the gradient of each half in its symmetric part :math:`\Pi g` and the rest :math:`g^\perp`. If the halves
    agree clearly less about the asymmetric direction than about the symmetric one,

    .. math:: \cos(g_1^\perp,g_2^\perp)<\kappa\,\cos(\Pi g_1,\Pi g_2),

    what the data say about asymmetry is mostly noise, and the strength grows; else it falls.

    Args:
        decay: its strengths are changed; start it near 40, not near 0.
        kappa: agreement asked for, relative to the symmetric part's, in (0, 1].
        rate: change of log strength per update.
        bounds: smallest and largest strength.

    Raises:
        ValueError: for arguments out of range.

    Here the halves ask for opposite weights, so that they agree about the mean weight alone. In training the
    gradients come from ``backward()`` of each half, at every fourth step, say:

    >>> from eqreg import C4, EquivarianceDecay
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, bias=False))
    >>> decay = EquivarianceDecay(net, C4, strength=40)
    >>> auto = AgreementStrength(decay, rate=math.log(2))
    >>> w = torch.arange(9.0).reshape(1, 1, 3, 3) - 4  # its mean over the turns is 0
    >>> net[0].weight.grad = 1 + w
    >>> auto.mark()
    >>> net[0].weight.grad = (1 + w) + (1 - w)  # of both halves
    >>> auto.update()
    >>> decay.strengths
    {'0': 80.0}

    Taught in: notebooks/11b.
    """

    @typed
    def __init__(
        self,
        decay: EquivarianceDecay,
        *,
        kappa: float = 0.75,
        rate: float = 0.05,
        bounds: tuple[float, float] = (0.5, 2000.0),
    ) -> None:
        if not isinstance(decay, EquivarianceDecay):
            raise TypeError(f"decay must be an EquivarianceDecay, got {given(decay)}")
        need_number(kappa, "kappa", 0, 1, above=True)
        need_number(rate, "rate", 0, above=True)
        if not isinstance(bounds, Sequence) or len(bounds) != _PAIR:
            raise TypeError(f"bounds must be a pair (low, high), got {given(bounds)}")
        low, high = (need_number(b, "each of bounds", finite=False) for b in bounds)
        if not 0 < low <= high < math.inf:
            raise ValueError(f"bounds must be 0 < low <= high < inf, got {bounds}")
        self.decay, self.kappa, self.rate, self.bounds = decay, kappa, rate, (low, high)
        self._first: dict[str, list[Tensor]] | None = None

    @torch.no_grad()
    def mark(self) -> None:
        """Remember the gradients of the first half.

        Raises:
            RuntimeError: if there are none yet.
        """
        first = {name: [g.clone() for g, _ in parts] for name, parts in self._gradients()}
        if not any(first.values()):
            raise RuntimeError("mark: expected gradients, found none; call backward() first")
        self._first = first

    @torch.no_grad()
    def update(self) -> None:
        """Compare with the gradients that the second half added, and move the strengths.

        Raises:
            RuntimeError: without a :meth:`mark` before.
        """
        if self._first is None:
            raise RuntimeError("update: call mark() after the first half's backward()")
        strengths = self.decay.strengths
        for name, parts in self._gradients():
            if len(before := self._first[name]) != len(parts):
                raise RuntimeError(
                    f"update: {len(before)} parameters of layer {name!r} had gradients at mark(), now "
                    f"{len(parts)} have; both halves must go through the same layers"
                )
            if not before:
                continue
            agreement = _agreement(parts, before)
            sign = 1 if agreement[1] < self.kappa * agreement[0] else -1
            low, high = self.bounds
            moved = max(strengths[name], low) * math.exp(sign * self.rate)
            strengths[name] = min(max(moved, low), high)
        self._first = None

    def _gradients(self) -> Iterator[tuple[str, list[tuple[Tensor, Index]]]]:
        for name, layer in self.decay.plan.tied.items():
            yield name, [(t.grad, i) for t, i in layer.tensors() if t.grad is not None]


def _agreement(parts: list[tuple[Tensor, Index]], before: list[Tensor]) -> tuple[float, float]:
    """Cosines between the halves' gradients of a layer: of the symmetric and of the other part."""
    products = torch.zeros(2, 3, dtype=torch.float64)
    for (whole, index), first in zip(parts, before, strict=True):
        # Differences and sums of half precision would be mostly rounding.
        halves = torch.stack([wide(first), wide(whole) - wide(first)])
        even = torch.stack([reynolds(half, index) for half in halves])
        for row, (a, b) in enumerate((even, halves - even)):
            products[row] += (
                torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()]).double().cpu()
            )
    cosines = products[:, 0] / (products[:, 1] * products[:, 2]).sqrt().clamp_min(1e-300)
    return float(cosines[0]), float(cosines[1])
