"""A plain residual network and its strictly equivariant twin."""

from __future__ import annotations

from torch import Tensor, nn

from ..symmetry.groups import Group
from ..typed import typed
from ._layers import End, convolution, draw


class ResidualNet(nn.Module):
    """``f(x) = x + body(x)``: convolutions and ReLUs, without normalisation, predict the change.

    With ``strict=group`` the convolutions are group convolutions of the same width: the features
    are regular fields of the group, and the network is equivariant whatever its weights. Its
    filters are shared between the channels of a field, so it has about ``1 / group.order`` of the
    parameters.

    Args:
        channels: of the image, in and out.
        width: channels of the hidden layers; divisible by ``strict.order``.
        depth: number of convolutions, at least 2.
        kernel_size: odd; images keep their size.
        strict: group of the twin; None for the plain network.

    Raises:
        ValueError: a size is out of range, or ``width`` does not fit the group.

    >>> import torch
    >>> ResidualNet(width=8, depth=3)(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 1, 16, 16])

    Taught in: notebooks/13.
    """

    @typed
    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        depth: int = 6,
        *,
        kernel_size: int = 3,
        strict: Group | None = None,
    ) -> None:
        if channels < 1 or width < 1:
            raise ValueError(
                f"ResidualNet: channels and width must be positive, got {channels} and {width}"
            )
        if depth < 2:
            raise ValueError(f"ResidualNet: depth must be at least 2, got {depth}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"ResidualNet: kernel_size must be odd, got {kernel_size}")
        if strict is not None and width % strict.order:
            raise ValueError(
                f"ResidualNet: width must be divisible by the {strict.order} elements of {strict}, "
                f"got {width}"
            )
        super().__init__()
        widths = [channels, *[width] * (depth - 1), channels]
        ends: list[End] = [
            "in",
            *[None] * (depth - 2),
            "out",
        ]  # of the image; between them are regular fields
        layers: list[nn.Module] = []
        for c_in, c_out, end in zip(widths, widths[1:], ends, strict=False):
            layers += [convolution(c_in, c_out, kernel_size, strict, image=end), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights that keep the power of the signal, and start near ``f(x) = x``; no biases."""
        layers = [layer for layer in self.body if not isinstance(layer, nn.ReLU)]
        draw(layers, small=layers[-1:])

    def forward(self, x: Tensor) -> Tensor:
        """Restore images (B, C, H, W)."""
        return x + self.body(x)
