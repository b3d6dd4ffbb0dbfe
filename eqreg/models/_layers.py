"""What the networks share: convolutions with or without a group, and how their weights are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from torch import nn

from ..symmetry import FieldType, Group

End = Literal["in", "out"] | None  # of a layer, where the image is
_SMALL = 0.1  # of what is added to something that is good already


def convolution(
    c_in: int,
    c_out: int,
    kernel_size: int,
    strict: Group | None,
    *,
    image: End = None,
    bias: bool = True,
    padding: int | None = None,
) -> nn.Module:
    """An ordinary convolution, or a strict one between regular fields.

    At the end that ``image`` names are trivial fields. ``padding`` keeps the size if it is None.
    """
    padding = kernel_size // 2 if padding is None else padding
    if strict is None:
        return nn.Conv2d(c_in, c_out, kernel_size, padding=padding, bias=bias)
    from ..strict import FourierConv2d, GroupConv2d
    from ..strict.conv import exact_on_grid

    field_in, field_out = (
        FieldType(strict, f"{c}t" if image == end else f"{c // strict.order}r")
        for c, end in ((c_in, "in"), (c_out, "out"))
    )
    layer = GroupConv2d if exact_on_grid(strict) else FourierConv2d
    return layer(field_in, field_out, kernel_size, padding=padding, bias=bias)


def draw(
    layers: Iterable[nn.Module], *, small: Iterable[nn.Module] = (), linear: nn.Module | None = None
) -> None:
    """Draw weights that keep the power of the signal; no biases.

    He et al. (2015) ask for variance 2 / fan-in beside a ReLU. With torch's default, 1 / (3 fan-in), each such layer
    divides the power by 6, and a few layers on the output is nothing but biases.

    Args:
        layers: in the order in which they are drawn.
        small: those of them whose output is added to something: ten times smaller.
        linear: one beside no ReLU: variance 1 / fan-in.
    """
    small = list(small)
    for layer in layers:
        layer.reset_parameters()  # type: ignore[operator]
        gain = math.sqrt(3 if layer is linear else 6)
        gain *= _SMALL if any(layer is s for s in small) else 1.0
        for name, parameter in layer.named_parameters():
            parameter.data.mul_(0.0 if name == "bias" else gain)
