"""What is measured: how equivariant a network is, and how good its images are."""

from .errors import equivariance_error, layer_errors
from .intervals import half_width, verdict
from .lie import lie_derivative, lie_error
from .quality import luma, psnr, ssim

__all__ = [
    "equivariance_error",
    "half_width",
    "layer_errors",
    "lie_derivative",
    "lie_error",
    "luma",
    "psnr",
    "ssim",
    "verdict",
]
