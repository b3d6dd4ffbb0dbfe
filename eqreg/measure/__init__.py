"""What is measured: how equivariant a network is, and how good its images are."""

from .contrasts import Contrast, contrasts, holm, layout
from .errors import equivariance_error, layer_errors
from .intervals import half_width, verdict
from .lie import lie_derivative, lie_error
from .quality import luma, psnr, ssim

__all__ = [
    "Contrast",
    "contrasts",
    "equivariance_error",
    "half_width",
    "holm",
    "layout",
    "layer_errors",
    "lie_derivative",
    "lie_error",
    "luma",
    "psnr",
    "ssim",
    "verdict",
]
