"""What belongs together in a call of ``fit``: how the weights move, which symmetry, what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..layers import unwrapped
from ..soft import (
    AdaptiveConstraint,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    PathwayDecay,
    ProjectionNorms,
    ProjectionPenalty,
)
from ..soft.schedules import constant
from ..symmetry import Group
from ..typed import check_fields
from .batch import Pair, turn

_AGREEMENT_EVERY = 4


@dataclass(frozen=True)
class Optimisation:
    """How the weights move: Adam, linear warm-up, half a cosine down to zero, clipped gradients.

    Attributes:
        warmup: steps of linear warm-up, at most a quarter of all steps.
        clip: largest norm of the gradient.
        accumulate: parts in which a batch passes the network, for less memory. The task gradient is that
            of the whole batch; the penalty becomes the mean of the parts' penalties.

    Raises:
        ValueError: a setting is out of range.

    >>> rates = [Optimisation(warmup=2).rate(step, steps=10) for step in (0, 1, 5, 10)]
    >>> [round(rate, 2) for rate in rates]
    [0.5, 0.98, 0.5, 0.0]
    """

    warmup: int = 20
    clip: float = 1.0
    accumulate: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        if self.warmup < 0 or not self.clip > 0:
            raise ValueError(
                f"fit: expected warmup >= 0 and clip > 0, got {self.warmup} and {self.clip}"
            )
        if self.accumulate < 1:
            raise ValueError(f"fit: accumulate must be at least 1, got {self.accumulate}")

    def rate(self, step: int, steps: int) -> float:
        """Share of the peak learning rate at a step."""
        rise = min(1.0, (step + 1) / max(min(self.warmup, steps // 4), 1))
        return rise * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class Symmetry:
    r"""What a training run does for the symmetry; the methods of the book are values of this.

    * plain: ``Symmetry()``. Strict: the same with an equivariant model.
    * augmentation: ``augment=group`` turns each image, input and label, by a random element of its own.
    * EQ-Reg: ``regularizer=`` and ``lam=``. The loss is
      ``(loss(f(x), y) + loss(f(gx), gy)) / 2 + lam * penalty``, so that ``lam=0`` is augmentation with
      pairs, and its loss, gradient and clipping are of the size that they have without pairs. A step
      passes the batch twice: halve the batch for equal cost.
    * projection penalty: ``regularizer=ProjectionPenalty(...)`` or ``ProjectionNorms(...)``,
      ``loss(f(x), y) + lam * penalty``. ``AdaptiveConstraint(...)`` also moves its multipliers after each step.
    * decay: ``decay=``, a step of shrinkage after each step of Adam; ``automatic=`` moves its
      strengths at every fourth step. Both combine with the others. ``ends_strict=`` projects the weights
      after the last step, whatever the strength before.

    Attributes:
        augment: group of the augmentation.
        regularizer: built on the model.
        lam: weight of its penalty.
        label_pairs: whether the turned images of EQ-Reg carry labels; False: they serve the penalty
            alone.
        decay: built on the model.
        automatic: built on ``decay``; a batch must hold two images.
        ends_strict: project the weights by ``decay`` after the last step.
        schedule: factor on ``lam`` and on the decay at (step, steps); see ``eqreg.soft.schedules``.

    Raises:
        ValueError: ``lam`` is negative, not finite, or comes without a regularizer; ``automatic``
            belongs to another decay or is combined with a regularizer.

    >>> from eqreg import C4, EquivarianceRegularizer
    >>> reg = EquivarianceRegularizer(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3)), C4)
    >>> Symmetry(regularizer=reg, lam=0.01).lam, Symmetry(augment=C4).regularizer
    (0.01, None)
    """

    augment: Group | None = None
    regularizer: (
        EquivarianceRegularizer | ProjectionPenalty | ProjectionNorms | AdaptiveConstraint | None
    ) = None
    lam: float = 0.0
    label_pairs: bool = True
    decay: EquivarianceDecay | PathwayDecay | None = None
    automatic: AgreementStrength | None = None
    schedule: Callable[[int, int], float] = constant
    ends_strict: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.ends_strict and not isinstance(self.decay, EquivarianceDecay):
            raise ValueError("fit: ends_strict=True needs a decay= of strength 0 or more, got none")
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"fit: lam must be at least 0 and finite, got {self.lam}")
        if self.lam and self.regularizer is None:
            raise ValueError(f"fit: lam={self.lam:g} needs a regularizer, got none")
        if self.automatic is not None and self.automatic.decay is not self.decay:
            raise ValueError("fit: automatic= needs the decay= that it was built on")
        if self.automatic is not None and self.regularizer is not None:
            raise ValueError("fit: automatic= and regularizer= cannot be combined")

    def belongs_to(self, model: nn.Module, optimisation: Optimisation) -> None:
        """Check the parts against the model that will be trained.

        Raises:
            ValueError: a part was built on another model, or cannot work on parts of a batch.
        """
        lazy = getattr(self.regularizer, "every", 1) > 1
        if optimisation.accumulate > 1 and (self.automatic is not None or lazy):
            raise ValueError(
                "fit: accumulate= cannot be combined with automatic= or a lazy regularizer"
            )
        for name, built in (("regularizer", self.regularizer), ("decay", self.decay)):
            if built is not None and unwrapped(built.model) is not unwrapped(model):
                raise ValueError(
                    f"fit: the {name} was built on another model than the one to train"
                )

    def compares(self, step: int) -> bool:
        """Whether ``automatic`` looks at the two halves of this step's batch."""
        return self.automatic is not None and step % _AGREEMENT_EVERY == 0

    def turned(self, batch: Pair, generator: torch.Generator | None) -> Pair:
        """The batch after augmentation."""
        if self.augment is None:
            return batch
        return turn(batch, self.augment, generator)

    def shrink(self, rate: float) -> None:
        """Let the weights decay towards symmetry, if they do, and the multipliers of a constraint follow."""
        if self.decay is not None:
            self.decay.step(rate)
        if isinstance(self.regularizer, AdaptiveConstraint):
            self.regularizer.step(rate)

    def finish(self) -> None:
        """What happens to the weights after the last step."""
        if self.ends_strict and isinstance(self.decay, EquivarianceDecay):
            before = self.decay.strengths
            self.decay.set_strength(math.inf)
            self.decay.step(1.0)
            self.decay.set_strength(before)


def rewired(symmetry: Symmetry, model: nn.Module) -> Symmetry:
    """The same symmetry on the wrapped ``model``: a regularizer that ran the bare one would not exchange gradients."""
    old = symmetry.regularizer
    if not isinstance(old, EquivarianceRegularizer):
        return symmetry
    planned = old.plan.fields  # whatever layers the method or the task had asked for
    new = EquivarianceRegularizer(
        model, old.group, layers=list(planned), fields=planned, norm=old.norm, generator=old.generator,
        fraction=old.fraction, every=old.every,
    )  # fmt: skip
    return replace(symmetry, regularizer=new)


@dataclass(frozen=True)
class Keeping:
    """How a run survives being stopped.

    Attributes:
        checkpoint: file to go on from if it is there, and to write. On the CPU a run that was killed
            at any moment and called again ends with the same weights, to the last bit.
        every: steps between two writings; the last step and a stop write too.
        stop: asked after each step; True ends the run (``History.finished`` is False then).
        run: what else makes it this run, such as its seed and a fingerprint of its data: numbers and
            words by name. A checkpoint with other ones is refused.

    Raises:
        ValueError: ``every`` is below 1.

    >>> keeping = Keeping("runs/mine.safetensors", every=100, run={"seed": 3})
    >>> keeping.every
    100
    """

    checkpoint: str | Path | None = None
    every: int = 500
    stop: Callable[[], bool] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.every < 1:
            raise ValueError(f"fit: every must be at least 1 step, got {self.every}")


PLAIN, USUAL, NOT_KEPT = Symmetry(), Optimisation(), Keeping()
