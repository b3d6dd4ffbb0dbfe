"""Symmetry that a network is only encouraged to have: EQ-Reg, decay and projection, how strong, and when."""

from .projection import (
    EquivarianceDecay,
    ProjectionPenalty,
    equivariance_distance,
    equivariant_init_,
    project,
)
from .regularizer import EquivarianceRegularizer, RegularizedOutput
from .schedules import constant, decreasing, warm_up
from .selections import eq_reg_t
from .soften import Softened, soften
from .strength import AgreementStrength, SuggestedStrength, suggest_strength

__all__ = [
    "AgreementStrength",
    "EquivarianceDecay",
    "EquivarianceRegularizer",
    "ProjectionPenalty",
    "RegularizedOutput",
    "Softened",
    "SuggestedStrength",
    "constant",
    "decreasing",
    "eq_reg_t",
    "equivariance_distance",
    "equivariant_init_",
    "project",
    "soften",
    "suggest_strength",
    "warm_up",
]
