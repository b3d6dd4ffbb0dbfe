"""How good images are: PSNR and SSIM, on RGB or on the luma of the deraining papers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..checks import given, need_number, need_same_device, need_tensor, outside_autocast, wide
from ..extras import require
from ..layers.inputs import IMAGE_DIMS
from ..typed import typed

_RGB = 3
# BT.601 luma of R, G, B in [0, 1] on the studio range [16, 235] / 255, as in MATLAB's rgb2ycbcr.
_BT601 = (65.481, 128.553, 24.966)
_BT601_OFFSET = 16.0
_SSIM_WINDOW = 11
_LARGE = 1e9


@typed
def luma(x: Tensor) -> Tensor:
    """BT.601 luma on the studio range, the Y of the deraining papers.

    Args:
        x: RGB images (..., 3, H, W), floating, in [0, 1].

    Returns:
        Images (..., 1, H, W) in [16/255, 235/255].

    Raises:
        TypeError: if the images are not floating point.
        ValueError: if there are not three channels.

    >>> black, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    >>> [round(255 * luma(x).item()) for x in (black, white)]
    [16, 235]
    """
    need_tensor(x, "luma: x", floating=True)
    if x.ndim < _RGB or x.shape[-3] != _RGB:
        raise ValueError(f"luma needs RGB images (..., 3, H, W), got shape {tuple(x.shape)}")
    with outside_autocast(x):
        whole = wide(x)
        weights = torch.tensor(_BT601, dtype=whole.dtype, device=x.device).reshape(_RGB, 1, 1)
        return (((whole * weights).sum(-3, keepdim=True) + _BT601_OFFSET) / 255).to(x.dtype)


@typed
def psnr(
    x: Tensor,
    y: Tensor,
    *,
    channel: str = "rgb",
    data_range: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB.

    Args:
        x: estimates (B, C, H, W); half precision is compared in float32.
        y: ground truth, same shape.
        channel: ``"rgb"`` for all channels as they are, ``"y"`` for BT.601 luma (images in [0, 1]).
        data_range: largest minus smallest possible value.
        mask: boolean, True where pixels count: (H, W), as of :func:`eqreg.valid_mask`, or what
            broadcasts to (B, 1, H, W). All pixels if not given.

    Returns:
        Tensor (B,); infinite for equal images.

    Raises:
        TypeError: ``mask`` is not boolean.
        ValueError: for shapes that differ or are no image batches, an unknown channel, a mask of
            another shape, or one that leaves no pixel of an image.

    An error of .1 everywhere is 20 dB, a tenth of it 20 dB more:

    >>> x = torch.zeros(2, 1, 4, 4)
    >>> psnr(x + torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1), x)
    tensor([20., 40.])
    """
    x, y = _comparable(x, y, channel, data_range)
    error = (x - y).square()
    if mask is None:
        return 10 * torch.log10(float(data_range) ** 2 / error.mean((1, 2, 3)))
    kept = _mask_of(error, mask)
    # where, not a product: what is left out may be NaN.
    mean = torch.where(kept, error, 0).sum((1, 2, 3)) / (kept.sum((1, 2, 3)) * error.shape[1])
    return 10 * torch.log10(float(data_range) ** 2 / mean)


@typed
def ssim(x: Tensor, y: Tensor, *, channel: str = "rgb", data_range: float = 1.0) -> Tensor:
    """Structural similarity of each image: Gaussian window, sigma 1.5 (Wang et al., 2004).

    Args:
        x: estimates (B, C, H, W), at least 11 pixels high and wide.
        y: ground truth, same shape.
        channel: ``"rgb"`` for all channels as they are, ``"y"`` for BT.601 luma (images in [0, 1]).
        data_range: largest minus smallest possible value.

    Returns:
        Tensor (B,).

    Raises:
        ValueError: for shapes that differ, are no image batches or too small, or an unknown channel.
        ImportError: without torchmetrics (``pip install "eqreg[tasks]"``).

    Black against white: no structure to compare, and a constant of 1e-4 is left:

    >>> x = torch.rand(1, 1, 16, 16)
    >>> ssim(x, x), ssim(torch.zeros_like(x), torch.ones_like(x))
    (tensor([1.]), tensor([9.9990e-05]))
    """
    x, y = _comparable(x, y, channel, data_range)
    if min(x.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(f"ssim needs images of at least 11 x 11 pixels, got {tuple(x.shape[-2:])}")
    if data_range > _LARGE:  # its square would overflow
        x, y, data_range = x / data_range, y / data_range, 1.0
    functional = require("torchmetrics.functional.image", extra="tasks")
    with outside_autocast(x):  # inside it identical images would get .82
        _, local = functional.structural_similarity_index_measure(
            x, y, data_range=float(data_range), reduction="none", return_full_image=True
        )
    # Only windows that lie inside the image count, as in the original code and in scikit-image.
    border = _SSIM_WINDOW // 2
    inside: Tensor = local[..., border : x.shape[-2] - border, border : x.shape[-1] - border]
    return inside.mean((1, 2, 3))


def _comparable(x: Tensor, y: Tensor, channel: str, data_range: float) -> tuple[Tensor, Tensor]:
    need_tensor(x, "x")
    need_tensor(y, "y")
    need_same_device((x, y), "x and y")
    if x.shape != y.shape or x.ndim != IMAGE_DIMS or 0 in x.shape:
        raise ValueError(
            f"expected two batches (B, C, H, W) with pixels, of one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not (x.is_floating_point() and y.is_floating_point()):
        raise TypeError(f"expected floating point images, got {x.dtype} and {y.dtype}")
    if channel not in ("rgb", "y"):
        raise ValueError(f'channel must be "rgb" or "y", got {channel!r}')
    need_number(data_range, "data_range", 0, above=True)
    x, y = wide(x), wide(y)
    return (luma(x), luma(y)) if channel == "y" else (x, y)


def _mask_of(images: Tensor, mask: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError(f"expected a boolean mask, got {given(mask)}")
    need_same_device((images, mask), "images and mask")
    shape = (images.shape[0], 1, *images.shape[-2:])
    try:
        kept = mask.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"expected a mask that broadcasts to {shape}, got shape {tuple(mask.shape)}"
        ) from None
    empty = (~kept.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"the mask leaves no pixel of image {empty[0]}")
    return kept


def rei_psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """PSNR as the code published with REI defines it: (B,), in dB.

    The peak is the largest value of the clean image, and the error is summed over colours before it is
    averaged over pixels, so that an RGB image loses 10 log10(3) = 4.77 dB to the usual definition.
    """
    power = (restored - clean).square().sum(1).mean((1, 2))
    return 10 * torch.log10(clean.amax((1, 2, 3)).square() / power)
