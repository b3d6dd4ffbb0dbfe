r"""How much symmetry? Two ways to a strength without a sweep.

:func:`suggest_strength` looks at finished pilot networks, :class:`AgreementStrength` moves the strengths
of an :class:`~eqreg.EquivarianceDecay` during training. Both ask the same: do two samples of the data
agree about the asymmetry?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import given, need_callable, need_number, need_tensor, outside_autocast, wide
from ..layers.inputs import IMAGE_DIMS, checked_images
from ..layers.reynolds import Index, reynolds
from ..symmetry.actions import quarter_turns, rotate
from ..symmetry.groups import Group, need_group
from ..typed import typed
from .projection import EquivarianceDecay

_RESAMPLES = 1000
_PAIR = 2
_DEAD = 0.02  # share of the asymmetry's amplitude below which a trial says nothing


@dataclass(frozen=True)
class SuggestedStrength:
    r"""What :func:`suggest_strength` found.

    Attributes:
        asymmetry: mean of :math:`(f(g x)-g f(x))^2` over the pilots, the elements but the identity, and
            all values; in squared units of the output.
        agreed: the part of it that the pilots have in common, an estimate of the task's own asymmetry.
            Noise can make it negative.
        shrink: factor in [0, 1] by which the asymmetric part of a network trained on all data should be
            shrunk: 1 for an asymmetric task with many data, 0 for a symmetric one.
        interval: 95 % bootstrap interval of ``shrink`` over the images.
        lam: weight of ``mse(f(g x), g f(x))`` beside ``mse(f(x), y)``; ``math.inf`` for ``shrink == 0``.
        decay: strength for :class:`~eqreg.EquivarianceDecay`, or None without ``trial``. ``math.inf`` asks for
            a strict network, or for :func:`~eqreg.equivariant_init_` and a strong decay.
    """

    asymmetry: float
    agreed: float
    shrink: float
    interval: tuple[float, float]
    lam: float
    decay: float | None


@typed
@torch.no_grad()
def suggest_strength(
    pilots: Sequence[Callable[[Tensor], Tensor]],
    x: Tensor,
    group: Group,
    *,
    share: float = 0.5,
    trial: tuple[Callable[[Tensor], Tensor], float] | None = None,
) -> SuggestedStrength:
    r"""Estimate how strong symmetry should be from pilots that saw different data.

    Let :math:`D_i=f_i(gx)-g f_i(x)` be the asymmetry of pilot :math:`i`. What pilots trained on disjoint data have
    in common is the task's asymmetry, :math:`\langle D_1,D_2\rangle=2\beta^2`; the rest, :math:`2V`, is variance, which
    falls with the number of training images. The optimal factor on the asymmetric part is that of
    a Wiener filter, :math:`\beta^2/(\beta^2+V)`.

    Args:
        pilots: two or more networks trained alike, without penalty, each on its own part of the data.
        x: validation inputs (B, C, H, W), degraded as in training.
        group: the rotations.
        share: part of all training images that each pilot saw, in (0, 1].
        trial: a network trained like the pilots, with a decay, and the strength of that decay.
            From how much it shrank the asymmetry follows how much strength the suggested factor needs.

    Returns:
        The estimates. The theory behind them is for linear models and for inputs whose law does not change
        under the group: take them for the right order, and try a factor 4 on either side.

    Raises:
        ValueError: for fewer than two pilots, ``share`` out of range, inputs that are no batch of images, a
            trial whose strength is not positive and finite, or one that left almost no asymmetry.

    Taught in: notebooks/11, notebooks/11b.
    """
    need_group(group)
    if not isinstance(pilots, Sequence):
        raise TypeError(
            f"suggest_strength: expected a list of at least 2 pilots, got {given(pilots)}"
        )
    for f in pilots:
        need_callable(f, "suggest_strength: a pilot")
    if len(pilots) < _PAIR:
        raise ValueError(f"suggest_strength: expected at least 2 pilots, got {len(pilots)}")
    need_number(share, "suggest_strength: share", 0, 1, above=True)
    if trial is not None:
        if not isinstance(trial, tuple) or len(trial) != _PAIR:
            raise TypeError(
                f"suggest_strength: trial must be (network, strength), got {given(trial)}"
            )
        need_callable(trial[0], "suggest_strength: the trial's network")
        need_number(trial[1], "suggest_strength: the trial's strength", 0, above=True)
    need_tensor(x, "suggest_strength: x", floating=True)
    if x.ndim != IMAGE_DIMS or 0 in x.shape:
        raise ValueError(
            f"suggest_strength: expected images (B, C, H, W), got shape {tuple(x.shape)}"
        )
    checked_images(x, pilots[0], group)
    if not bool(x.isfinite().all()):
        raise ValueError("suggest_strength: expected finite images, got NaN or Inf")
    if group.order == 1:
        raise ValueError(
            f"suggest_strength: {group} holds the identity alone, so there is no asymmetry to measure; use C4"
        )
    if any(quarter_turns(g, group) is None for g in group.elements):
        raise ValueError(
            f"suggest_strength: expected a group of quarter turns such as C4, got {group}"
        )
    differences = torch.stack([_asymmetry(f, x, group) for f in pilots])
    own = differences.square().flatten(2).mean(2)  # pilots x images
    total = differences.sum(0).square().flatten(1).mean(1)
    n = len(pilots)
    common = (total - own.sum(0)) / (n * (n - 1))  # mean product of two different pilots, by image
    own = own.mean(0)
    shrink = _factor(own.mean(), common.mean(), share)
    drawn = torch.randint(
        len(x), (_RESAMPLES, len(x)), generator=torch.Generator().manual_seed(0)
    ).to(x.device)
    resampled = _factor(own[drawn].mean(1), common[drawn].mean(1), share)
    low, high = resampled.quantile(resampled.new_tensor([0.025, 0.975])).tolist()
    s = float(shrink)
    lam = (group.order - 1) / group.order * (1 - s) / (2 * s) if s > 0 else math.inf
    decay = None
    if trial is not None:
        realised = float((_asymmetry(trial[0], x, group).square().mean() / own.mean()).sqrt())
        if realised < _DEAD:
            raise ValueError(
                f"suggest_strength: the trial kept {realised:.1%} of the pilots' asymmetry, too little to tell its "
                f"strength from a larger one (or the network is dead); try a smaller one than {trial[1]:g}"
            )
        decay = _strength(s, realised, trial[1])
    return SuggestedStrength(
        float(own.mean()), float(common.mean()), s, (float(low), float(high)), lam, decay
    )


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

    Example, at every fourth step::

        loss(x[:n], y[:n]).backward()
        auto.mark()                    # the gradients of the first half
        loss(x[n:], y[n:]).backward()
        auto.update()                  # moves decay.strengths
        optimizer.step()
        decay.step(lr)

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


def _asymmetry(f: Callable[[Tensor], Tensor], x: Tensor, group: Group) -> Tensor:
    """``f(g x) - g f(x)`` for all elements but the identity: (B, |G| - 1, C, H, W)."""
    # Copies: a network may write into its input, and give out the same memory at every call.
    y = _image(f(x.clone()), x).clone()
    turned = [_image(f(rotate(x, g, group)), x).clone() for g in group.elements[1:]]
    with outside_autocast(x):
        moved = [rotate(wide(y), g, group) for g in group.elements[1:]]
        for z, m in zip(turned, moved, strict=True):
            if z.shape != m.shape:
                raise ValueError(
                    f"suggest_strength: a network returned {tuple(y.shape)}, and {tuple(z.shape)} for turned images"
                )
        return torch.stack([wide(z) - m for z, m in zip(turned, moved, strict=True)], 1)


def _image(y: object, x: Tensor) -> Tensor:
    if not isinstance(y, Tensor) or y.ndim != IMAGE_DIMS or len(y) != len(x):
        raise ValueError(
            f"suggest_strength: expected networks that return images (B, C, H, W) with B = {len(x)}, got {given(y)}"
        )
    return y


def _factor(own: Tensor, common: Tensor, share: float) -> Tensor:
    """The Wiener factor; the pilots' variance is ``1 / share`` times that of a training on all data."""
    common = common.clamp_min(0)
    variance = share * (own - common).clamp_min(0)
    return common / (common + variance).clamp_min(torch.finfo(own.dtype).tiny)


def _strength(wanted: float, realised: float, strength: float) -> float:
    """Where shrinkage is h / (h + strength), one trial gives h, and h the strength of another factor."""
    if wanted == 0:
        return math.inf
    if realised >= 1:
        return 0.0 if wanted == 1 else strength
    return strength * realised / (1 - realised) * (1 - wanted) / wanted
