"""A residual U-Net that can be exactly equivariant on the pixel grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import given
from ..symmetry.groups import Group
from ..typed import typed
from ._layers import End, convolution, draw


class UNet(nn.Module):
    """``f(x) = x + body(x)``, where ``body`` looks at the image on several scales.

    Two convolutions on each scale; maximum over 2x2 pixels on the way down, pixels doubled on the
    way up, where the features of the way down are put beside. No normalisation. Every choice keeps
    quarter turns exact on the grid (chapter 4): stride 2 divides H + 2P - K for the pooling (K = 2,
    P = 0, even H), doubling copies each pixel to a square, and circular padding has no corner. Shifts
    by multiples of ``2**levels`` pixels are exact, too, as there is no border.

    With ``strict=group`` the convolutions are strict ones of the same width, so that the network is
    equivariant whatever its weights, with about ``1 / group.order`` of the parameters.

    Args:
        channels: of the image, in and out.
        width: channels on the finest scale, doubled on each coarser one; divisible by
            ``strict.order``.
        levels: how often the size is halved; sides must be divisible by ``2**levels``.
        kernel_size: odd; 5 or more if ``strict`` holds angles other than quarter turns.
        strict: group of the twin; None for the plain network. Groups of other than quarter turns get
            Fourier filters: their quarter turns are exact, the angles between nearly so.

    Raises:
        ValueError: a size is out of range, ``width`` does not fit the group, or an image's sides
            cannot be halved ``levels`` times.

    >>> UNet(width=8, levels=1)(torch.rand(2, 1, 16, 16)).shape
    torch.Size([2, 1, 16, 16])

    Reference: Ronneberger, Fischer, Brox, "U-Net", MICCAI 2015; circular padding and the residual
    form as in Chen, Tachella, Davies, CVPR 2022.
    Taught in: notebooks/15_inpainting.ipynb
    """

    @typed
    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        levels: int = 2,
        *,
        kernel_size: int = 3,
        strict: Group | None = None,
    ) -> None:
        if channels < 1 or width < 1 or levels < 0:
            raise ValueError(
                "UNet: expected channels >= 1, width >= 1 and levels >= 0, got "
                f"{channels}, {width} and {levels}"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"UNet: kernel_size must be odd, got {kernel_size}")
        if strict is not None and width % strict.order:
            raise ValueError(
                f"UNet: width must be divisible by the {strict.order} elements of {strict}, got {width}"
            )
        super().__init__()
        self.channels, self.width, self.levels = channels, width, levels
        self.kernel_size, self.strict = kernel_size, strict
        self.body = _Body(channels, width, levels, kernel_size, strict)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights that keep the power of the signal, and start near ``f(x) = x``; no biases."""
        layers = list(_convolutions(self.body))
        draw(layers, small=layers[-1:])

    def forward(self, x: Tensor) -> Tensor:
        """Restore images (B, C, H, W)."""
        factor = 2**self.levels
        if (
            not isinstance(x, Tensor)
            or x.ndim != 4
            or any(n < factor or n % factor for n in x.shape[-2:])
        ):
            raise ValueError(
                f"UNet: expected (B, {self.channels}, H, W) with sides divisible by {factor}, got "
                f"{tuple(x.shape) if isinstance(x, Tensor) else given(x)}"
            )
        return x + self.body(x)

    def twin(self, group: Group, match: Literal["width", "parameters"] = "width") -> UNet:
        """The strict network of equal width, or of (as nearly as possible) equally many parameters.

        ``eqreg.strict.equivariant`` makes the first one, too. It cannot make the second: rounding the
        width on every scale, it would lose the two halves that are put side by side.

        Args:
            group: of the twin.
            match: what it has in common with this network.

        Returns:
            A new network with weights of its own.

        Raises:
            ValueError: unknown ``match``, or the group's order does not divide ``width``.
        """
        if match not in ("width", "parameters"):
            raise ValueError(f'UNet: match must be "width" or "parameters", got {match!r}')
        if match == "width":
            return self._like(self.width, group)
        wanted = _size(self)
        # Equally many parameters need about sqrt(|G|) times the width; look at the neighbours, too.
        guess = round(self.width / math.sqrt(group.order))
        twins = [self._like(n * group.order, group) for n in range(max(1, guess - 2), guess + 3)]
        return min(twins, key=lambda net: abs(_size(net) - wanted))

    def _like(self, width: int, group: Group) -> UNet:
        return UNet(self.channels, width, self.levels, kernel_size=self.kernel_size, strict=group)


class _Body(nn.Module):
    def __init__(
        self, channels: int, width: int, levels: int, kernel_size: int, strict: Group | None
    ) -> None:
        super().__init__()

        def block(c_in: int, c_out: int, image: End = None) -> nn.Sequential:
            """Padding, convolution, ReLU. The padding stands alone: strict layers know zeros only."""
            conv = convolution(c_in, c_out, kernel_size, strict, image=image, padding=0)
            return nn.Sequential(nn.CircularPad2d(kernel_size // 2), conv, nn.ReLU())

        widths = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList([block(channels, width, "in") + block(width, width)])
        for fine, coarse in zip(widths, widths[1:], strict=False):
            self.down.append(block(fine, coarse) + block(coarse, coarse))
        self.up, self.merge = nn.ModuleList(), nn.ModuleList()
        for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True):
            self.up.append(block(coarse, fine))
            self.merge.append(block(2 * fine, fine))
        self.last = block(width, channels, "out")[:-1]  # without its ReLU

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for i, stage in enumerate(self.down):
            x = stage(x if i == 0 else F.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            doubled = up(F.interpolate(x, scale_factor=2, mode="nearest"))
            x = merge(torch.cat([skips.pop(), doubled], 1))
        return self.last(x)


def _convolutions(module: nn.Module) -> Iterator[nn.Module]:
    for m in module.modules():
        if isinstance(m, nn.Conv2d) or hasattr(m, "expanded_weight"):
            yield m


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
