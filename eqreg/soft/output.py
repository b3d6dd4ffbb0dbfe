"""What a step with EQ-Reg yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..layers.pairs import Pairing
from ..symmetry.groups import Element


@dataclass(frozen=True)
class RegularizedOutput:
    """What one call of :class:`EquivarianceRegularizer` returns.

    Attributes:
        y: output of the model for the images as given, in the model's own structure.
        y_g: output for the turned images, ``g x`` (the first ``fraction`` of the batch).
        penalty: 0-d tensor, the mean of ``per_layer``; with ``norm="reference"`` their sum. Times
            ``every``, so that lambda keeps its meaning.
        per_layer: relative equivariance error of each layer, 0-d tensors with their graph: 0 is
            equivariant, about 2 what random weights give. Empty on a step that ``every`` leaves out.
        invariant_share: with ``shares=True``, the share of each layer's regular-field energy that is equal in
            all channels of a field, detached, in [0, 1]. A share that rises towards 1 while the penalty falls
            is collapse: the network meets the penalty by making the channels of a field copies.
        g: the group element that was drawn; the identity on a step that ``every`` leaves out.

    >>> import torch
    >>> from eqreg import C4, EquivarianceRegularizer, rotate
    >>> x = torch.rand(2, 1, 8, 8)
    >>> out = EquivarianceRegularizer(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1)), C4)(x, g=1)
    >>> torch.equal(out.act(x), rotate(x, 1))  # for the labels of the turned images
    True
    """

    y: Any
    y_g: Any
    penalty: Tensor
    per_layer: dict[str, Tensor]
    invariant_share: dict[str, Tensor]
    pairing: Pairing

    @property
    def g(self) -> Element:
        """The group element of this call."""
        return self.pairing.g

    def act(self, target: Any) -> Any:
        """The target of ``y_g``: images (B, C, H, W) are turned by ``g``, labels (B,) or (B, K) stay.

        Maps of classes, whole numbers (B, H, W), are turned too.

        Raises:
            ValueError: if the batch size is another than the input's, or the shape is ambiguous.
        """
        return self.pairing.turn(target)
