"""eqreg: rotation symmetry for image restoration, strict and soft.

>>> from eqreg import C4, EquivarianceRegularizer

The names here need torch and numpy alone. Tasks, data, strict layers, models, training and figures
are submodules (``eqreg.physics``, ``eqreg.data``, ``eqreg.strict``, ...) that you import by name.
"""

from .actions import act, permute_channels, rotate, valid_mask
from .fields import FieldType
from .groups import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup, Element
from .metrics import equivariance_error, layer_errors, luma, psnr, ssim
from .regularizer import EquivarianceRegularizer, RegularizedOutput

__version__ = "0.1.0"

__all__ = [
    "C1",
    "C2",
    "C4",
    "C8",
    "D4",
    "CyclicGroup",
    "DihedralGroup",
    "Element",
    "EquivarianceRegularizer",
    "FieldType",
    "RegularizedOutput",
    "act",
    "equivariance_error",
    "layer_errors",
    "luma",
    "permute_channels",
    "psnr",
    "rotate",
    "ssim",
    "valid_mask",
]
