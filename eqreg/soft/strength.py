r"""How much symmetry? Two ways to a strength without a sweep.

:func:`suggest_strength` looks at finished pilot networks, :class:`AgreementStrength` moves the strengths
of an :class:`~eqreg.EquivarianceDecay` during training. Both ask the same: do two samples of the data
agree about the asymmetry?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import given, need_callable, need_number, need_tensor, outside_autocast, wide
from ..layers.inputs import IMAGE_DIMS, checked_images
from ..symmetry.actions import quarter_turns, rotate
from ..symmetry.groups import Group, need_group
from ..typed import typed

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

    >>> SuggestedStrength(0.03, 0.02, shrink=0.75, interval=(0.6, 0.9), lam=0.125, decay=None).shrink
    0.75
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

    Both pilots brighten the right half, by .3 and by .1; what they agree on is kept, :math:`.02/(.02+\frac12.0133)`:

    >>> from eqreg import C4
    >>> right = torch.tensor([0.0, 1.0])
    >>> pilots = [lambda x: x + 0.3 * right, lambda x: x + 0.1 * right]
    >>> found = suggest_strength(pilots, torch.zeros(4, 1, 2, 2), C4)
    >>> round(found.agreed, 4), round(found.shrink, 4)
    (0.02, 0.75)

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
