"""What goes on inside a trained network: the errors of its layers, and whether their channels are all alike."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.plan import own_field
from ..soft import EquivarianceRegularizer
from ..symmetry.groups import Group


@torch.no_grad()
def in_layers(model: nn.Module, x: Tensor, group: Group) -> dict[str, Tensor]:
    """Two metrics for each image, means over the compared layers and all elements but the identity.

    Args:
        model: in eval mode.
        x: (B, C, H, W).
        group: the group.

    Returns:
        ``layers_C4`` (for C4), the relative error that EQ-Reg penalises, and ``invariant_share_C4``, the
        share of the features' energy that all channels of a field have in common: (B,) each. Nothing for
        strict networks of another group, whose features are no fields of this one, and for networks
        without a layer that could be compared.
    """
    fields = [own_field(module) for module in model.modules()]
    if any(field is not None and field.group != group for field in fields):
        return {}
    try:
        compare = EquivarianceRegularizer(model, group, shares=True)
    except ValueError:
        return {}
    passes = [[compare(image, g=g) for g in group.elements[1:]] for image in x.split(1)]
    found = {
        f"layers_{group}": [[out.per_layer for out in outs] for outs in passes],
        f"invariant_share_{group}": [[out.invariant_share for out in outs] for outs in passes],
    }
    # No share without a regular field.
    return {name: _means(values) for name, values in found.items() if values[0][0]}


def _means(values: list[list[dict[str, Tensor]]]) -> Tensor:
    """Of images, elements and layers, by image."""
    return torch.stack(
        [torch.stack([v for layers in image for v in layers.values()]).mean() for image in values]
    )
