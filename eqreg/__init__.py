"""eqreg: rotation symmetry for image restoration, strict and soft.

>>> from eqreg import C4, EquivarianceRegularizer

The names here need torch and numpy alone. Tasks, data, strict layers, models, training and figures
are submodules (``eqreg.physics``, ``eqreg.data``, ``eqreg.strict``, ...) that you import by name.
"""

from .actions import act, permute_channels, rotate, valid_mask
from .fields import FieldType
from .groups import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup, Element
from .lie import lie_derivative, lie_error
from .metrics import equivariance_error, layer_errors, luma, psnr, ssim
from .pretrained import load_pretrained
from .projection import (
    EquivarianceDecay,
    ProjectionPenalty,
    equivariance_distance,
    equivariant_init_,
    project,
)
from .regularizer import EquivarianceRegularizer, RegularizedOutput
from .strength import AgreementStrength, SuggestedStrength, suggest_strength

__version__ = "0.1.0"

__all__ = [
    "AgreementStrength",
    "C1",
    "C2",
    "C4",
    "C8",
    "D4",
    "CyclicGroup",
    "DihedralGroup",
    "Element",
    "EquivarianceDecay",
    "EquivarianceRegularizer",
    "FieldType",
    "ProjectionPenalty",
    "RegularizedOutput",
    "SuggestedStrength",
    "act",
    "equivariance_distance",
    "equivariance_error",
    "equivariant_init_",
    "layer_errors",
    "lie_derivative",
    "lie_error",
    "load_pretrained",
    "luma",
    "permute_channels",
    "project",
    "psnr",
    "rotate",
    "ssim",
    "suggest_strength",
    "valid_mask",
]
