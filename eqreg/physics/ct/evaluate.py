"""How restored CT images are judged: the published protocol, and errors in HU.

The published numbers compare display images. Attenuation is clamped to [0, 0.5]/cm, stretched to 8 bit,
set to 0 in the metal, and compared over all pixels, metal included, with a peak of 255.

Reference: the evaluation that goes with Wang et al., "DICDNet", IEEE TMI 41(4), 2022.
Taught in: notebooks/14
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ...checks import given, need_number, need_same_device, need_tensor, wide
from ...measure.quality import ssim
from ...typed import typed
from .units import MU_WATER, check_scale

# 1/cm: white in the display images.
WINDOW = 0.5
_PEAK = 255.0
# Smallest area in pixels of each group, from large to small implants. The ten published test masks fall
# into pairs: (2061, 890), (881, 451), (254, 124), (118, 112), (53, 35).
SIZE_GROUPS = (886, 353, 121, 83, 0)


@typed
def display(mu: Tensor, metal: Tensor) -> Tensor:
    """Images as the protocol compares them: whole numbers from 0 to 255, 0 in the metal.

    Args:
        mu: (..., H, W) in 1/cm.
        metal: bool, broadcastable to ``mu``.

    Raises:
        TypeError: ``metal`` is not bool.
        ValueError: the shapes do not fit.

    >>> display(torch.tensor([[0.25, 0.9]]), torch.tensor([[False, True]]))
    tensor([[128.,   0.]])
    """
    metal = _fitting(metal, mu)
    # where, not a product: inside the metal the values may be NaN.
    return torch.where(metal, 0, torch.round(wide(mu).clamp(0, WINDOW) / WINDOW * _PEAK))


@typed
def mar_psnr(mu: Tensor, truth: Tensor, metal: Tensor) -> Tensor:
    """PSNR of the published protocol in dB.

    Args:
        mu: restored images (..., H, W) in 1/cm.
        truth: images without metal, same shape or broadcastable.
        metal: bool, broadcastable.

    Raises:
        TypeError, ValueError: ``metal`` is not bool, a shape does not fit, or ``truth`` is given in HU.

    Returns:
        (...,); infinite for equal display images.

    >>> truth, metal = torch.full((8, 8), 0.2), torch.zeros(8, 8, dtype=torch.bool)
    >>> round(mar_psnr(truth + 0.01, truth, metal).item(), 1)
    34.2
    """
    difference = display(mu, metal) - display(_truth(truth, mu), metal)
    return 10 * torch.log10(_PEAK**2 / difference.double().square().mean((-2, -1)))


@typed
def mar_ssim(mu: Tensor, truth: Tensor, metal: Tensor) -> Tensor:
    """SSIM of the protocol's display images; arguments as for :func:`mar_psnr`.

    >>> truth, metal = torch.rand(16, 16) / 2, torch.zeros(16, 16, dtype=torch.bool)
    >>> round(mar_ssim(truth, truth, metal).item(), 3)
    1.0
    """
    x, y = display(mu, metal), display(_truth(truth, mu), metal)
    flat = (t.reshape(-1, 1, *t.shape[-2:]) for t in (x, y))
    return ssim(*flat, data_range=_PEAK).reshape(mu.shape[:-2])


@typed
def rmse_hu(mu: Tensor, truth: Tensor, metal: Tensor) -> Tensor:
    """Root mean square error in HU over the pixels outside the metal; arguments as for :func:`mar_psnr`.

    Raises:
        ValueError: an image is all metal, or ``truth`` is given in HU.

    >>> truth, metal = torch.full((8, 8), MU_WATER), torch.zeros(8, 8, dtype=torch.bool)
    >>> round(rmse_hu(1.01 * truth, truth, metal).item(), 2)
    10.0
    """
    outside = ~_fitting(metal, mu)
    pixels = outside.sum((-2, -1))
    if not pixels.all():
        raise ValueError("rmse_hu: an image is all metal, so no pixel is left to compare")
    squares = ((mu - _truth(truth, mu)).double() * (1000 / MU_WATER)).square()
    return (torch.where(outside, squares, 0).sum((-2, -1)) / pixels).sqrt()


@typed
def size_group(area: int) -> int:
    """Group of an implant by its area in pixels of a 416 x 416 image: 0 (large) to 4 (small).

    >>> [size_group(a) for a in (2061, 890, 881, 451, 254, 124, 118, 112, 53, 35)]
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    """
    if need_number(area, "size_group: area") < 1:
        raise ValueError(f"size_group: expected a positive area, got {area}")
    return next(i for i, smallest in enumerate(SIZE_GROUPS) if area >= smallest)


@typed
def by_size(values: Iterable[float], areas: Iterable[int]) -> dict[int, float]:
    """Mean of ``values`` in each group of sizes that occurs; the table of the papers.

    Args:
        values: one number per case.
        areas: of their implants, in pixels of a 416 x 416 image.

    Raises:
        ValueError: not as many values as areas.

    >>> by_size([24.0, 26.0, 40.0], areas=[2061, 890, 35])
    {0: 25.0, 4: 40.0}
    """
    groups: dict[int, list[float]] = {}
    for value, area in zip(values, areas, strict=True):
        groups.setdefault(size_group(area), []).append(float(value))
    return {group: sum(found) / len(found) for group, found in sorted(groups.items())}


def _fitting(metal: Tensor, mu: Tensor) -> Tensor:
    need_tensor(mu, "mu", floating=True)
    if mu.ndim < 2 or 0 in mu.shape:
        raise ValueError(f"expected images (..., H, W), got {given(mu)}")
    if not isinstance(metal, Tensor) or metal.dtype != torch.bool:
        got = metal.dtype if isinstance(metal, Tensor) else given(metal)
        raise TypeError(f"expected a bool mask of the metal, got {got}")
    need_same_device((mu, metal), "mu and metal")
    return _expanded(metal, mu, "a mask")


def _truth(truth: Tensor, mu: Tensor) -> Tensor:
    need_tensor(mu, "mu", floating=True)
    need_tensor(truth, "truth", floating=True)
    need_same_device((mu, truth), "mu and truth")
    check_scale(truth, "truth")
    return _expanded(truth, mu, "a true image")


def _expanded(t: Tensor, mu: Tensor, what: str) -> Tensor:
    try:
        return t.expand(mu.shape)
    except RuntimeError:
        raise ValueError(
            f"{what} of shape {tuple(t.shape)} does not fit images of shape {tuple(mu.shape)}"
        ) from None
