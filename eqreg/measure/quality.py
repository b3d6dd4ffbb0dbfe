"""How good images are: PSNR and SSIM, on RGB or on the luma of the deraining papers."""

from __future__ import annotations

import warnings

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
_SPAN = 1.2  # times the range: resized images overshoot a little, those in [-1, 1] span 2
_UNDERSHOOT = 0.1
_EIGHT_BITS = 254
_WHITE = 2.0  # far above what a network may overshoot


@typed
def luma(x: Tensor) -> Tensor:
    """BT.601 luma on the studio range, the Y of the deraining papers.

    Args:
        x: RGB images (..., 3, H, W), floating, in [0, 1].

    Returns:
        Images (..., 1, H, W) in [16/255, 235/255].

    Raises:
        TypeError: if the images are not floating point.
        ValueError: if there are not three channels, or values far above 1.

    >>> black, white = torch.zeros(3, 1, 1), torch.ones(3, 1, 1)
    >>> [round(255 * luma(x).item()) for x in (black, white)]
    [16, 235]
    """
    need_tensor(x, "luma: x", floating=True)
    if x.numel() and float(x.amax()) > _WHITE:
        raise ValueError(
            f"luma: expected RGB images in [0, 1], got values up to {float(x.amax()):.4g}; divide 8-bit images by 255"
        )
    return _luma(x)


def _luma(x: Tensor) -> Tensor:
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
        channel: ``"rgb"`` for all channels as they are, ``"y"`` for BT.601 luma (images that begin at 0).
        data_range: largest minus smallest possible value.
        mask: boolean, True where pixels count: (H, W), as of :func:`eqreg.valid_mask`, or what
            broadcasts to (B, 1, H, W). All pixels if not given.

    Returns:
        Tensor (B,); infinite for equal images.

    Raises:
        TypeError: ``mask`` is not boolean.
        ValueError: for shapes that differ or are no image batches, an unknown channel, a mask of
            another shape, or one that leaves no pixel of an image; a ground truth that spans more than
            ``data_range``, such as 8-bit numbers in a range of 1.

    An error of .1 everywhere is 20 dB, a tenth of it 20 dB more:

    >>> x = torch.zeros(2, 1, 4, 4)
    >>> psnr(x + torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1), x)
    tensor([20., 40.])
    """
    x, y = _comparable(x, y, channel, data_range, mask)
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
        channel: ``"rgb"`` for all channels as they are, ``"y"`` for BT.601 luma (images that begin at 0).
        data_range: largest minus smallest possible value.

    Returns:
        Tensor (B,).

    Raises:
        ValueError: for shapes that differ, are no image batches or too small, an unknown channel, or a ground
            truth that spans more than ``data_range``.
        ImportError: without torchmetrics (``pip install "eqreg[tasks]"``).

    Warns:
        UserWarning: the images do not begin at 0, as SSIM expects.

    Black against white: no structure to compare, and a constant of 1e-4 is left:

    >>> x = torch.rand(1, 1, 16, 16)
    >>> ssim(x, x), ssim(torch.zeros_like(x), torch.ones_like(x))
    (tensor([1.]), tensor([9.9990e-05]))
    """
    x, y = _comparable(x, y, channel, data_range)
    if float(y.amin()) < -_UNDERSHOOT * data_range:
        warnings.warn(
            f"ssim: the ground truth has values down to {float(y.amin()):.3g}; SSIM compares means too, so that images "
            "about zero get another number, often much lower: shift them to begin at 0",
            UserWarning,
            stacklevel=3,
        )
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


def _comparable(
    x: Tensor, y: Tensor, channel: str, data_range: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
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
    _need_span(y if mask is None else y[_mask_of(y, mask).expand_as(y)], data_range)
    if channel == "y":
        x, y = (_luma(t / data_range) * data_range for t in (x, y))  # the 16 belongs to the scale
    return x, y


def _need_span(y: Tensor, data_range: float) -> None:
    """A ground truth and a range of two scales have a score too, 48 dB off for 8-bit numbers."""
    low, high = float(y.amin()), float(y.amax())
    if high - low > _SPAN * data_range:
        raise ValueError(
            f"the ground truth spans {high - low:.3g}, more than data_range={data_range:g}, the largest minus the "
            "smallest possible value: scale the images, or give their data_range, 255 for 8-bit numbers"
        )
    if data_range > _EIGHT_BITS and 0 <= low < high <= 1:
        warnings.warn(
            f"the ground truth lies in [{low:.3g}, {high:.3g}] and data_range is {data_range:g}: for images in "
            "[0, 1] it is 1, and the score would be too high",
            UserWarning,
            stacklevel=4,
        )


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

    Raises:
        ValueError: the shapes differ, or are no batches of images.
    """
    if restored.shape != clean.shape or clean.ndim != IMAGE_DIMS:
        raise ValueError(
            f"rei_psnr: expected two batches (B, C, H, W) of one shape, got {tuple(restored.shape)} and "
            f"{tuple(clean.shape)}"
        )
    power = (restored - clean).square().sum(1).mean((1, 2))
    return 10 * torch.log10(clean.amax((1, 2, 3)).square() / power)
