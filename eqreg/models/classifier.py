"""A small convolutional classifier, made so that its strict twin is exactly invariant."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..typed import typed

SLOPE = 0.1  # of the activations below 0


class Classifier(nn.Module):
    """Images to logits: convolutions, halving between them, a maximum over space, a head.

    ``eqreg.strict.equivariant(Classifier(...), group)`` is its strict twin, of equal width or of equal
    parameters. Three choices make the twin's logits exactly invariant:

    * ``halve`` pools 2 x 2 on even sizes and 3 x 3 on odd ones, so that the grid stays centred.
    * The last features are pooled over space. The maximum, not the mean: the twin also averages over the
      group, and after both means little is left that tells classes apart.
    * The head is a 1 x 1 convolution to one trivial channel for each class: in the twin it has the same
      weights for all channels of a field, which is a sum over the group.

    There is no normalisation layer: statistics of single channels would break the twin's fields. The
    ReLUs leak (slope ``SLOPE`` below 0): behind a plain one and a maximum over space, a few large steps
    at the start can leave every channel at 0 for ever.

    Args:
        channels: of the images.
        classes: number of logits.
        width: channels of the hidden layers; the last one has twice as many.
        depth: number of hidden convolutions; behind each but the last the size is halved.
        kernel_size: odd. 5 or more, if the twin is to turn its filters by less than 90 degrees.

    Raises:
        ValueError: a size is out of range.

    >>> Classifier(classes=3, width=8)(torch.rand(2, 1, 29, 29)).shape
    torch.Size([2, 3])

    Taught in: notebooks/16.
    """

    @typed
    def __init__(
        self,
        channels: int = 1,
        classes: int = 10,
        width: int = 16,
        depth: int = 3,
        *,
        kernel_size: int = 5,
    ) -> None:
        for name, value in (
            ("channels", channels),
            ("classes", classes),
            ("width", width),
            ("depth", depth),
        ):
            if value < 1:
                raise ValueError(f"Classifier: {name} must be at least 1, got {value}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"Classifier: kernel_size must be odd, got {kernel_size}")
        super().__init__()
        widths = [channels, *[width] * (depth - 1), 2 * width]
        self.body = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size, padding=kernel_size // 2)
            for c_in, c_out in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Conv2d(2 * width, classes, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights that keep the power of the signal (He et al., 2015); no biases.

        The kernel of a strict layer is linear in its parameters but has another variance than
        torch's default, so what is measured and scaled is the kernel.
        """
        gain = 2 / (1 + SLOPE**2)
        for layer in [*self.body, self.head]:
            strict: Any = layer
            strict.reset_parameters()
            with torch.no_grad():
                kernel = strict.weight if isinstance(layer, nn.Conv2d) else strict.to_plain().weight
                power = float(kernel.square().mean()) * kernel[0].numel()
                for name, parameter in layer.named_parameters():
                    parameter.mul_(0.0 if name.endswith("bias") else math.sqrt(gain / power))

    def features(self, x: Tensor) -> Tensor:
        """The last hidden layer, (B, 2 * width, H', W')."""
        for i, layer in enumerate(self.body):
            x = F.leaky_relu(layer(halve(x) if i else x), SLOPE)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.features(x).amax((-2, -1), keepdim=True))
        return logits[..., 0, 0]


@typed
def halve(x: Tensor) -> Tensor:
    """Average pooling by about 2 that stays centred on the image at every size.

    A window K at stride 2 with padding P is exact under quarter turns if and only if 2 divides
    H + 2P - K: windows of 2 on even sizes, of 3 with padding 1 on odd ones (chapter 4).

    Args:
        x: (..., H, W).

    Returns:
        (..., ceil(H / 2), ceil(W / 2)).

    >>> halve(torch.rand(1, 1, 28, 7)).shape
    torch.Size([1, 1, 14, 4])
    """
    kernel = [2 + size % 2 for size in x.shape[-2:]]
    padding = [size % 2 for size in x.shape[-2:]]
    return F.avg_pool2d(x, kernel, 2, padding, count_include_pad=False)
