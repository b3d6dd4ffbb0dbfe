"""Rain as a layer of streaks added to a clean image: O = B + R.

    R = sum_n  C_n * M_n

``M_n`` is a sparse map of drops, ``C_n`` the oriented line that a drop draws while the shutter is
open, and ``*`` is convolution. Lengths are in pixels. Angles are in degrees from the vertical,
counter-clockwise as displayed, the direction in which :func:`eqreg.symmetry.actions.rotate` turns: the
streaks of ``angle=0`` turned by one quarter are those of ``angle=90``.

The default law is simple, one shape of rain for all images. ``RAIN100H`` is fitted to published
rain and differs from image to image.

Reference: the convolutional form of R follows Wang, Xie, Zhao, Meng, "A Model-Driven Deep Neural
Network for Single Image Rain Removal", CVPR 2020, eq. (2). The streak shapes and their law are
ours.
Taught in: notebooks/13_rain.ipynb, notebooks/13b_rain_unfolding.ipynb
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import given, need_generator, need_number, need_sizes, need_tensor, need_whole
from ..typed import typed

# Drops at different distances draw streaks of different lengths: equal parts of these fractions of
# `length`.
LENGTH_FRACTIONS = (0.5, 0.75, 1.0)
# Kernels at least this wide are convolved by FFT. Narrower ones keep the sums, to the last bit, that
# stored results were made with.
_FFT_FROM = 33

_LONGEST = 4096.0  # pixels; a kernel of this side takes 67 MB

Range = float | tuple[float, float]


@dataclass(frozen=True)
class RainModel:
    """The law of a rain layer.

    Every image gets one direction, drawn uniformly from ``angle ± spread``: the wind changes from
    picture to picture. Within a picture all drops fall alike, unless ``sway`` tells otherwise.
    Length, width, density, intensity and sway are numbers, or pairs ``(low, high)`` from which every
    image draws its own, uniformly on the logarithmic scale.

    Args:
        angle: mean direction, degrees counter-clockwise from the vertical.
        spread: half-width of the range of directions, degrees, at least 0.
        length: longest streak in pixels, at least 0; see ``LENGTH_FRACTIONS`` for the shorter ones.
        width: thickness of a streak in pixels, positive.
        density: expected number of drops per pixel, in [0, 1].
        intensity: brightness of the brightest drop, at least 0; drops are uniform in
            [``faintest``, 1] times this.
        faintest: in [0, 1].
        sway: half-width of the range of directions within an image, degrees, at least 0. Every
            kernel, three in an image, has a direction of its own.

    Raises:
        ValueError: a parameter is not finite or outside its range, or a pair is not ascending and
            positive; the message names it.

    >>> RainModel(density=(0.002, 0.02)).density
    (0.002, 0.02)
    """

    angle: float = 0.0
    spread: float = 20.0
    length: Range = 14.0
    width: Range = 1.2
    density: Range = 0.01
    intensity: Range = 0.45
    sway: Range = 0.0
    faintest: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("angle", -math.inf, math.inf),
            ("spread", 0.0, 180.0),
            ("length", 0.0, _LONGEST),
            ("width", 0.0, _LONGEST),
            ("density", 0.0, 1.0),
            ("intensity", 0.0, math.inf),
            ("sway", 0.0, 180.0),
            ("faintest", 0.0, 1.0),
        ):
            value = getattr(self, name)
            pair = isinstance(value, tuple) and name not in ("angle", "spread", "faintest")
            for number in value if pair else (value,):
                need_number(number, f"RainModel: {name}", low, high)
            if pair and not (len(value) == 2 and 0 < value[0] <= value[1]):
                raise ValueError(
                    f"RainModel: a pair for {name} must be (low, high) with 0 < low <= high, got "
                    f"{value}"
                )
        if self.width == 0:
            raise ValueError("RainModel: width must be positive, got 0")

    @property
    def kernel_size(self) -> int:
        """Side of the square kernels, odd, wide enough for the longest streak at any angle."""
        return 2 * math.ceil((_largest(self.length) + _largest(self.width)) / 2 + 0.5) + 1


# Fitted to twelve training pairs of Rain100H: over images, the quantiles of brightness, length, width
# and direction agree (artifacts/rain_statistics.json). Its streaks end more abruptly than theirs.
RAIN100H = RainModel(
    spread=9,
    length=(35, 90),
    width=(2.1, 2.9),
    density=(0.005, 0.033),
    intensity=(0.15, 0.35),
    sway=(0.5, 12),
    faintest=0.2,
)


@typed
def streak_kernel(angle: Tensor, length: Tensor, width: float | Tensor, size: int) -> Tensor:
    """Anti-aliased line segments through the centre of a square patch.

    The value of a pixel is the part of it that a pen of the given width covers, approximated by
    the distance ``d`` of its centre to the segment: ``clamp(width/2 + 1/2 - d, 0, 1)``. The
    distance turns with the grid, so a kernel turned by 90° is the kernel of ``angle + 90``, and
    turned by 180° it is itself.

    Args:
        angle: (...,) degrees counter-clockwise from the vertical.
        length: (...,) pixels, broadcast against ``angle``.
        width: pixels, a number or (...,) like the others.
        size: odd side of the patch in pixels.

    Returns:
        (..., size, size) with values in [0, 1].

    Raises:
        ValueError: ``size`` is not a positive odd number.
    """
    need_tensor(angle, "streak_kernel: angle", floating=True)
    need_tensor(length, "streak_kernel: length", floating=True)
    if isinstance(width, Tensor):
        need_tensor(width, "streak_kernel: width", floating=True)
    else:
        need_number(width, "streak_kernel: width", 0)
    need_whole(size, "streak_kernel: size", 0)
    if size < 1 or size % 2 == 0:
        raise ValueError(f"streak_kernel: size must be a positive odd number, got {size}")
    theta = torch.deg2rad(angle)[..., None, None]
    half = length[..., None, None] / 2
    pen = width[..., None, None] if isinstance(width, Tensor) else width
    grid = torch.arange(size, dtype=theta.dtype, device=theta.device) - size // 2
    y, x = -grid[:, None], grid[None, :]  # y points up, rows count down
    # Counter-clockwise from the vertical: the direction of the streak is (-sin, cos) in (x, y).
    along = y * torch.cos(theta) - x * torch.sin(theta)
    across = x * torch.cos(theta) + y * torch.sin(theta)
    distance = torch.hypot((along.abs() - half).clamp(min=0), across)
    return (pen / 2 + 0.5 - distance).clamp(0, 1)


@typed
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
    batch, height, width = need_sizes(shape, "rain_streaks: shape", "B, H, W")
    need_generator(generator, "rain_streaks: generator")
    if model is not None and not isinstance(model, RainModel):
        raise TypeError(f"rain_streaks: model must be a RainModel, got {given(model)}")
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"rain_streaks: dtype must be torch.float32 or torch.float64, got {dtype}")
    model = model or RainModel()
    device = generator.device if generator is not None else torch.device("cpu")

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=device, dtype=dtype)

    def of_image(given: Range) -> Tensor | float:
        # A plain number draws nothing, so that the seeds of simple laws give what they always gave.
        if not isinstance(given, tuple):
            return given
        low, high = given
        return low * (high / low) ** uniform(batch, 1)

    def per_pixel(value: Tensor | float) -> Tensor | float:
        return value[..., None, None] if isinstance(value, Tensor) else value

    n, k = len(LENGTH_FRACTIONS), model.kernel_size
    angle = model.angle + model.spread * (2 * uniform(batch, 1) - 1)
    if model.sway:
        angle = angle + of_image(model.sway) * (2 * uniform(batch, n) - 1)
    length = of_image(model.length) * torch.tensor([LENGTH_FRACTIONS], device=device, dtype=dtype)
    kernels = streak_kernel(angle, length, of_image(model.width), k)  # (B, N, k, k)
    density, intensity = (per_pixel(of_image(v)) for v in (model.density, model.intensity))

    frame = (batch, n, height + k - 1, width + k - 1)
    falls = uniform(*frame) < density / n
    drops = falls * intensity * (model.faintest + (1 - model.faintest) * uniform(*frame))
    return _convolved(drops, kernels).clamp(min=0)


@typed
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
    need_tensor(b, "add_rain: b")
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
    # In half precision drops would come out at 256 places a side, and rain is added up.
    dtype = torch.promote_types(b.dtype, torch.float32)
    r = rain_streaks((b.shape[0], *b.shape[-2:]), model, generator=generator, dtype=dtype).to(b)
    r = r.expand_as(b)
    if clip:
        r = torch.minimum(r, 1 - b)
    return b + r, r


def _convolved(drops: Tensor, kernels: Tensor) -> Tensor:
    """Sum over n of ``kernels[b, n] * drops[b, n]`` where the kernel lies inside: (B, 1, h, w)."""
    k = kernels.shape[-1]
    if k < _FFT_FROM:
        # One group per image: every image has kernels of its own. flip: conv2d correlates (no matter
        # here, kernels are symmetric under 180 degrees, but the formula above is a convolution).
        streaks = F.conv2d(drops.flatten(0, 1)[None], kernels.flip(-1, -2), groups=drops.shape[0])
        return streaks.transpose(0, 1)
    # What the circular convolution wraps falls on the first k - 1 rows and columns, which are cut.
    # Multiples of 16, because a side with a large prime factor takes three times as long.
    height, width = drops.shape[-2:]
    size = [-(-side // 16) * 16 for side in (height, width)]
    product = torch.fft.rfft2(drops, s=size) * torch.fft.rfft2(kernels, s=size)
    streaks = torch.fft.irfft2(product.sum(1, keepdim=True), s=size)
    return streaks[..., k - 1 : height, k - 1 : width]


def _largest(given: Range) -> float:
    return max(given) if isinstance(given, tuple) else given
