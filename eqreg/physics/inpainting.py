r"""Inpainting with photon noise: some pixels are lost, the others count photons.

    x = gamma * Poisson(m * y / gamma)

``y`` is the clean image in [0, 1], ``m`` a mask of zeros (lost) and ones (kept), ``x`` what we
measure. ``gamma`` is the grey level that one photon adds: the mean of a kept pixel is ``y``, its
variance ``gamma * y``. A kept pixel may catch no photon, with probability ``exp(-y / gamma)``, and
then reads 0 like a lost one; the mask tells them apart. (Papers on inverse problems call the
measurement y and the image x. We keep the letters of the book: networks go from x to y.)

Reference: Chen, Tachella, Davies, "Robust Equivariant Imaging", CVPR 2022, for the task.
Taught in: notebooks/15_inpainting.ipynb
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checks import (
    given,
    need_generator,
    need_number,
    need_same_device,
    need_sizes,
    need_tensor,
    need_whole,
    wide,
)
from ..extras import require
from ..typed import typed

_IMAGE_DIMS = 4
_MOST_PHOTONS = 1e15  # torch.poisson turns negative above 2^63


@typed
def random_mask(
    shape: tuple[int, int, int],
    keep: float = 0.7,
    *,
    hole: int | tuple[int, int] = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Masks whose cells are kept with one probability, independently of each other.

    The law does not change when the image is turned by quarters, if holes are square and divide the
    sides.

    Args:
        shape: (B, H, W).
        keep: probability that a cell is kept, in (0, 1].
        hole: height and width of a cell in pixels, one number for a square. The last ones in a row
            or column may be cut.
        generator: source of the randomness; the masks lie on its device. None uses torch's global
            one, on the CPU.

    Returns:
        (B, 1, H, W) float32: 1 kept, 0 lost.

    Raises:
        ValueError: a size is not a positive integer, or ``keep`` leaves (0, 1].

    >>> m = random_mask((2, 64, 64), 0.7, generator=torch.Generator().manual_seed(0))
    >>> m.shape, round(float(m.mean()), 2)
    (torch.Size([2, 1, 64, 64]), 0.71)
    """
    batch, height, width = need_sizes(shape, "random_mask: shape", "B, H, W")
    need_number(keep, "random_mask: keep", 0, 1, above=True)
    pair = (hole, hole) if isinstance(hole, int) else hole
    cell = need_sizes(pair, "random_mask: hole", "height, width")
    need_generator(generator, "random_mask: generator")
    cells = (batch, 1, -(-height // cell[0]), -(-width // cell[1]))
    device = generator.device if generator is not None else torch.device("cpu")
    kept = (torch.rand(cells, generator=generator, device=device) < keep).float()
    grown = kept.repeat_interleave(cell[0], -2).repeat_interleave(cell[1], -1)
    return grown[..., :height, :width].contiguous()


@typed
def measure(
    y: Tensor,
    mask: Tensor,
    gamma: float = 0.05,
    *,
    saturation: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Take a picture: lose pixels, count photons in the others.

    Args:
        y: (B, C, H, W) float, at least 0: clean images, or what a network believes to be some.
        mask: (H, W), (1, H, W) or (B, 1 or C, H, W) of zeros and ones.
        gamma: grey level of one photon, positive. 0.05 is 20 photons in a white pixel.
        saturation: a sensor's largest value; what is above is cut. None: no limit. (Cut values no
            longer have mean ``y``, so that unbiased estimates of the risk lose their ground.)
        generator: source of the randomness, on the device of ``y``.

    Returns:
        x: (B, C, H, W), multiples of ``gamma``, 0 where the mask is. No gradient reaches ``y``.

    Raises:
        TypeError: ``y`` is not floating point.
        ValueError: ``y`` is no batch of images, not finite or negative; the mask has another size,
            other values than 0 and 1, or keeps nothing of an image; ``gamma`` or ``saturation`` is
            not positive.

    >>> measure(torch.full((1, 1, 1, 3), 0.5), torch.tensor([[1.0, 0.0, 1.0]]), 1e-9).round(decimals=3)
    tensor([[[[0.5000, 0.0000, 0.5000]]]])
    """
    mask = checked_mask(mask, y)
    check_gamma(gamma)
    if saturation is not None:
        need_number(saturation, "measure: saturation", 0, above=True, finite=False)
    need_generator(generator, "measure: generator")
    with torch.no_grad():
        photons = mask * wide(y) / gamma
        if photons.numel() and not float(photons.max()) <= _MOST_PHOTONS:
            raise ValueError(
                f"measure: gamma={gamma:g} asks for {float(photons.max()):.3g} photons in a pixel, more than 1e15 "
                "cannot be counted"
            )
        x = (gamma * torch.poisson(photons, generator=generator)).to(y.dtype)
    return x if saturation is None else x.clamp(max=saturation)


def checked_mask(mask: Tensor, y: Tensor) -> Tensor:
    """The mask as (1 or B, 1 or C, H, W) of the type of ``y``; errors as for :func:`measure`."""
    need_tensor(y, "measure: y")
    need_tensor(mask, "measure: mask")
    need_same_device((y, mask), "measure: y and mask")
    if not y.is_floating_point():
        raise TypeError(
            f"measure: expected a float image in [0, 1], got {y.dtype}; divide 8-bit images by 255"
        )
    if y.ndim != _IMAGE_DIMS:
        raise ValueError(
            f"measure: expected images of shape (B, C, H, W), got shape {tuple(y.shape)}"
        )
    if not torch.isfinite(y).all():
        raise ValueError("measure: expected finite images, got NaN or Inf")
    if y.numel() and y.min() < 0:
        raise ValueError(
            f"measure: a pixel cannot send fewer than no photons; expected values of at least 0, got "
            f"{float(y.min()):.3g}"
        )
    full = mask[(None,) * (_IMAGE_DIMS - mask.ndim)] if mask.ndim < _IMAGE_DIMS else mask
    fits = full.ndim == _IMAGE_DIMS and full.shape[-2:] == y.shape[-2:]
    if not fits or any(m not in (1, n) for m, n in zip(full.shape[:2], y.shape[:2], strict=True)):
        raise ValueError(
            f"measure: the mask {tuple(mask.shape)} does not fit images {tuple(y.shape)}; expected "
            f"(H, W) = {tuple(y.shape[-2:])}, or (B, 1, H, W)"
        )
    full = full.to(y)
    if not ((full == 0) | (full == 1)).all():
        raise ValueError("measure: expected a mask of zeros and ones, got other values")
    if full.numel() and not full.flatten(1).any(1).all():
        raise ValueError("measure: the mask keeps no pixel of an image, so there is nothing to see")
    return full


def check_gamma(gamma: float) -> None:
    """Reject what cannot be the grey level of a photon."""
    need_number(gamma, "gamma", 0, above=True)


@typed
def deepinv_operator(
    mask: Tensor, gamma: float, channels: int = 1, *, generator: torch.Generator | None = None
) -> Any:
    """The same measurement as an operator of deepinv, for its solvers and losses.

    Args:
        mask: (H, W) or (B, 1, H, W).
        gamma: grey level of one photon.
        channels: of the images.
        generator: source of the noise; with equal seeds it is that of :func:`measure`.

    Returns:
        ``deepinv.physics.Inpainting`` with ``PoissonNoise``. Negative values are cut before photons
        are drawn, as networks may return some.

    Raises:
        ImportError: without deepinv (``pip install "eqreg[tasks]"``).
        ValueError: ``gamma`` is not positive, or ``mask`` holds other values than 0 and 1, or no 1.
    """
    check_gamma(gamma)
    need_tensor(mask, "deepinv_operator: mask")
    need_whole(channels, "deepinv_operator: channels", 1)
    if mask.ndim not in (2, _IMAGE_DIMS) or not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"deepinv_operator: expected a mask (H, W) or (B, 1, H, W) of zeros and ones, got {given(mask)}"
        )
    if not mask.flatten(-2).any(-1).all():
        raise ValueError("deepinv_operator: the mask keeps no pixel of an image")
    physics = require("deepinv.physics", extra="tasks")
    full = mask[(None,) * (_IMAGE_DIMS - mask.ndim)] if mask.ndim < _IMAGE_DIMS else mask
    noise = physics.PoissonNoise(gain=gamma, clip_positive=True, rng=generator)
    size = (channels, *mask.shape[-2:])
    return physics.Inpainting(
        img_size=size, mask=full.float(), noise_model=noise, device=mask.device
    )
