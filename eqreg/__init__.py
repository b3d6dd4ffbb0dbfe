"""eqreg: rotation symmetry for image restoration, strict and soft.

>>> from eqreg import C4, EquivarianceRegularizer

The names here need torch and numpy alone. Tasks, data, strict layers, models, training and figures
are submodules (``eqreg.physics``, ``eqreg.data``, ``eqreg.strict``, ...) that you import by name.
"""

from typing import TYPE_CHECKING, Any

from .measure.check import Report, check
from .measure.errors import equivariance_error, layer_errors
from .measure.lie import lie_derivative, lie_error
from .measure.quality import luma, psnr, ssim
from .soft.agreement import AgreementStrength
from .soft.output import RegularizedOutput
from .soft.penalty import ProjectionPenalty
from .soft.projection import (
    EquivarianceDecay,
    equivariance_distance,
    equivariant_init_,
    project,
)
from .soft.regularizer import EquivarianceRegularizer
from .soft.soften import Softened, soften
from .soft.strength import SuggestedStrength, suggest_strength
from .symmetry.actions import act, permute_channels, rotate, valid_mask
from .symmetry.fields import FieldType
from .symmetry.groups import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup, Element

if TYPE_CHECKING:
    from .experiments import load_pretrained

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
    "Report",
    "Softened",
    "SuggestedStrength",
    "act",
    "check",
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
    "soften",
    "ssim",
    "suggest_strength",
    "valid_mask",
]


def __getattr__(name: str) -> Any:
    if (
        name == "load_pretrained"
    ):  # it needs what the training needs, which is a quarter of the import
        from .experiments import load_pretrained

        return load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
