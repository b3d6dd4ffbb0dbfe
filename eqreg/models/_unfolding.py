"""What the unfolded networks share: the two proximal maps, and the norm of a dictionary."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..symmetry.groups import Group
from ._layers import convolution, draw


class Blocks(nn.Module):
    """Residual blocks ``h + conv(relu(conv(h)))`` and the length of the gradient step before them."""

    def __init__(
        self, channels: int, blocks: int, kernel_size: int, strict: Group | None, step: float = 0.5
    ) -> None:
        super().__init__()
        self.start = step
        self.step = nn.Parameter(torch.tensor(step))
        self.blocks = nn.ModuleList(
            nn.Sequential(
                convolution(channels, channels, kernel_size, strict),
                nn.ReLU(),
                convolution(channels, channels, kernel_size, strict),
            )
            for _ in range(blocks)
        )

    def reset_parameters(self) -> None:
        """Draw weights; what is added starts small."""
        nn.init.constant_(self.step, self.start)
        read = getattr(self, "read", None)  # reads features of both signs, and no ReLU follows
        draw(
            (m for m in self.modules() if m is not self and hasattr(m, "reset_parameters")),
            small=[*(block[-1] for block in self.blocks), *([read] if read else [])],  # type: ignore[index]
            linear=read,
        )

    def refine(self, h: Tensor) -> Tensor:
        """The residual blocks, one after the other."""
        for block in self.blocks:
            h = h + block(h)
        return h


class MapNet(Blocks):
    """The proximal map of the maps: residual blocks, then they are made sparse.

    The soft threshold ``sign(m) max(|m| - t, 0)`` is the proximal map of ``t |m|_1``; ``t`` is learned.
    With ``positive`` it is that of ``t |m|_1`` for ``m >= 0``: ``max(m - t, 0)``.
    """

    def __init__(
        self,
        maps: int,
        blocks: int,
        kernel_size: int,
        strict: Group | None,
        *,
        positive: bool = False,
    ) -> None:
        super().__init__(maps, blocks, kernel_size, strict)
        self.positive = positive
        self.threshold = nn.Parameter(torch.tensor(1e-3))

    def reset_parameters(self) -> None:
        """Draw weights; the threshold starts at 1e-3."""
        super().reset_parameters()
        nn.init.constant_(self.threshold, 1e-3)

    def forward(self, m: Tensor, gradient: Tensor) -> Tensor:
        """One step of the maps (B, maps, H, W)."""
        m = self.refine(m - self.step * gradient)
        threshold = self.threshold.clamp(min=0)
        return (m - threshold).relu() if self.positive else m.sign() * (m.abs() - threshold).relu()


class ImageNet(Blocks):
    """The proximal map of the image: a residual net whose features go on to the next stage.

    The image reads the features as they are, not their positive part: features that drift below zero, as they
    may over many stages, cannot fall silent.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        kernel_size: int,
        strict: Group | None,
        *,
        channels: int = 1,
        step: float = 0.5,
    ) -> None:
        super().__init__(width, blocks, kernel_size, strict, step)
        self.lift = convolution(channels, width, kernel_size, strict, image="in")
        self.read = convolution(width, channels, kernel_size, strict, image="out")

    def forward(self, x: Tensor, gradient: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the image (B, channels, H, W); the features (B, width, H, W) go with it."""
        return self.prox(x - self.step * gradient, features)

    def prox(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """What follows the gradient step, same shapes."""
        features = self.refine(features + self.lift(x))
        return x + self.read(features), features


def strict_size(channels: int, kernel_size: int, group: Group) -> int:
    """Channels of a strict layer with as many parameters as a plain one, a multiple of the group's order."""
    # One strict layer tells how many parameters stand for the c_in c_out K^2 of a plain one.
    order = group.order
    layer = convolution(order, order, kernel_size, group, bias=False)
    share = sum(p.numel() for p in layer.parameters()) / (order * kernel_size) ** 2
    return max(1, round(channels / math.sqrt(share) / order)) * order


def largest_gain(kernel: Tensor) -> Tensor:
    """The largest factor by which convolution can stretch maps: the norm of a dictionary, 0-d.

    Args:
        kernel: (channels, maps, K, K).
    """
    # In the Fourier domain the dictionary is one matrix (channels, maps) for each frequency.
    spectrum = torch.fft.fft2(kernel, s=(64, 64)).permute(2, 3, 0, 1)
    return torch.linalg.matrix_norm(spectrum, ord=2).max()


def check_sizes(name: str, positive: dict[str, int], odd: dict[str, int]) -> None:
    """Reject sizes out of range.

    Raises:
        ValueError: the message says which network, which size and its value.
    """
    for key, value in positive.items():
        if value < 1:
            raise ValueError(f"{name}: {key} must be positive, got {value}")
    for key, value in odd.items():
        if value < 1 or value % 2 == 0:
            raise ValueError(f"{name}: {key} must be odd, got {value}")
