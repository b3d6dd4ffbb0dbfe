"""Rain as a layer of streaks added to a clean image: O = B + R.

    R = sum_n  C_n * M_n

``M_n`` is a sparse map of drops, ``C_n`` the oriented line that a drop draws while the shutter is
open, and ``*`` is convolution. Lengths are in pixels. Angles are in degrees from the vertical,
counter-clockwise as displayed, the direction in which :func:`eqreg.actions.rotate` turns: the
streaks of ``angle=0`` turned by one quarter are those of ``angle=90``.

Reference: the convolutional form of R follows Wang, Xie, Zhao, Meng, "A Model-Driven Deep Neural
Network for Single Image Rain Removal", CVPR 2020, eq. (2). The streak shapes and their law are
ours.
Taught in: notebooks/13_rain.ipynb
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Drops at different distances draw streaks of different lengths: equal parts of these fractions of
# `length`.
LENGTH_FRACTIONS = (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class RainModel:
    """The law of a rain layer.

    Every image gets one direction, drawn uniformly from ``angle ± spread``: the wind changes from
    picture to picture, within a picture all drops fall alike.

    Args:
        angle: mean direction, degrees counter-clockwise from the vertical.
        spread: half-width of the range of directions, degrees, at least 0.
        length: longest streak in pixels, at least 0; see ``LENGTH_FRACTIONS`` for the shorter ones.
        width: thickness of a streak in pixels, positive.
        density: expected number of drops per pixel, in [0, 1].
        intensity: brightness of the brightest drop; drops are uniform in [0.5, 1] times this, at
            least 0.

    Raises:
        ValueError: a parameter is not finite or outside its range; the message names it.
    """

    angle: float = 0.0
    spread: float = 20.0
    length: float = 14.0
    width: float = 1.2
    density: float = 0.01
    intensity: float = 0.45

    def __post_init__(self) -> None:
        for name, low, high in (
            ("angle", -math.inf, math.inf),
            ("spread", 0.0, 180.0),
            ("length", 0.0, math.inf),
            ("width", 0.0, math.inf),
            ("density", 0.0, 1.0),
            ("intensity", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise ValueError(
                    f"RainModel: {name} must be a finite number in [{low:g}, {high:g}], got {value}"
                )
        if self.width == 0:
            raise ValueError("RainModel: width must be positive, got 0")

    @property
    def kernel_size(self) -> int:
        """Side of the square kernels, odd, wide enough for the longest streak at any angle."""
        return 2 * math.ceil((self.length + self.width) / 2 + 0.5) + 1


def streak_kernel(angle: Tensor, length: Tensor, width: float, size: int) -> Tensor:
    """Anti-aliased line segments through the centre of a square patch.

    The value of a pixel is the part of it that a pen of the given width covers, approximated by
    the distance ``d`` of its centre to the segment: ``clamp(width/2 + 1/2 - d, 0, 1)``. The
    distance turns with the grid, so a kernel turned by 90° is the kernel of ``angle + 90``, and
    turned by 180° it is itself.

    Args:
        angle: (...,) degrees counter-clockwise from the vertical.
        length: (...,) pixels, broadcast against ``angle``.
        width: pixels.
        size: odd side of the patch in pixels.

    Returns:
        (..., size, size) with values in [0, 1].

    Raises:
        ValueError: ``size`` is not a positive odd number.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"streak_kernel: size must be a positive odd number, got {size}")
    theta = torch.deg2rad(angle)[..., None, None]
    half = length[..., None, None] / 2
    grid = torch.arange(size, dtype=theta.dtype, device=theta.device) - size // 2
    y, x = -grid[:, None], grid[None, :]  # y points up, rows count down
    # Counter-clockwise from the vertical: the direction of the streak is (-sin, cos) in (x, y).
    along = y * torch.cos(theta) - x * torch.sin(theta)
    across = x * torch.cos(theta) + y * torch.sin(theta)
    distance = torch.hypot((along.abs() - half).clamp(min=0), across)
    return (width / 2 + 0.5 - distance).clamp(0, 1)


def rain_streaks(
    shape: tuple[int, int, int],
    model: RainModel | None = None,
    *,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw rain layers R >= 0.

    Drops are also drawn outside the frame, so the law of R is the same at the border as in the
    middle.

    Args:
        shape: (B, H, W).
        model: the law; ``RainModel()`` if None.
        generator: source of the randomness; the layers lie on its device. None uses torch's global
            one, on the CPU.
        dtype: of the result.

    Returns:
        (B, 1, H, W), in grey levels to be added to an image in [0, 1].

    Raises:
        ValueError: ``shape`` is not three positive integers.

    >>> r = rain_streaks((2, 32, 32), generator=torch.Generator().manual_seed(0))
    >>> r.shape, bool((r >= 0).all())
    (torch.Size([2, 1, 32, 32]), True)
    """
    if len(shape) != 3 or any(int(n) != n or n < 1 for n in shape):
        raise ValueError(
            f"rain_streaks: shape must be three positive integers (B, H, W), got {tuple(shape)}"
        )
    model = model or RainModel()
    batch, height, width = shape
    device = generator.device if generator is not None else torch.device("cpu")

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device, dtype=dtype)

    angle = model.angle + model.spread * (2 * uniform(batch, 1) - 1)
    length = model.length * torch.tensor([LENGTH_FRACTIONS], device=device, dtype=dtype)
    k = model.kernel_size
    kernels = streak_kernel(angle, length, model.width, k)  # (B, N, k, k)

    n = len(LENGTH_FRACTIONS)
    frame = (batch, n, height + k - 1, width + k - 1)
    falls = uniform(*frame) < model.density / n
    drops = falls * model.intensity * (0.5 + 0.5 * uniform(*frame))
    # One group per image: every image has kernels of its own. flip: conv2d correlates (no matter
    # here, kernels are symmetric under 180 degrees, but the formula above is a convolution).
    streaks = F.conv2d(drops.flatten(0, 1)[None], kernels.flip(-1, -2), groups=batch)
    return streaks.transpose(0, 1).clamp(min=0)


def add_rain(
    b: Tensor,
    model: RainModel | None = None,
    *,
    clip: bool = True,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Let it rain on clean images: returns ``o`` and ``r`` with ``o = b + r``.

    Rain is grey: all channels of an image get the same layer. With ``clip`` the observation is cut
    at 1, as in an 8-bit file, and the ``r`` returned is what was left of the rain, so ``o = b +
    r`` holds either way.

    Args:
        b: (B, C, H, W) float, clean images in [0, 1].
        model: the law; ``RainModel()`` if None.
        clip: cut ``o`` at 1.
        generator: source of the randomness.

    Returns:
        o: (B, C, H, W), rainy images. r: (B, C, H, W), the rain in them.

    Raises:
        TypeError: ``b`` is not floating point.
        ValueError: ``b`` is not four-dimensional, not finite, or leaves [0, 1].
    """
    if not b.is_floating_point():
        raise TypeError(
            f"add_rain: expected a float image in [0, 1], got {b.dtype}; divide 8-bit images by 255"
        )
    if b.ndim != 4:
        raise ValueError(
            f"add_rain: expected images of shape (B, C, H, W), got shape {tuple(b.shape)}"
        )
    if not torch.isfinite(b).all():
        raise ValueError("add_rain: expected finite images, got NaN or Inf")
    if b.numel() and not (0 <= b.min() and b.max() <= 1):
        raise ValueError(
            f"add_rain: expected images in [0, 1], got values in [{b.min():.3g}, {b.max():.3g}]"
        )
    r = rain_streaks((b.shape[0], *b.shape[-2:]), model, generator=generator, dtype=b.dtype).to(
        b.device
    )
    r = r.expand_as(b)
    if clip:
        r = torch.minimum(r, 1 - b)
    return b + r, r
