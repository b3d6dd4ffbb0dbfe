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
from .strength import AgreementStrength, SuggestedStrength, suggest_strength

__all__ = [
    "AgreementStrength",
    "EquivarianceDecay",
    "EquivarianceRegularizer",
    "ProjectionPenalty",
    "RegularizedOutput",
    "SuggestedStrength",
    "constant",
    "decreasing",
    "equivariance_distance",
    "equivariant_init_",
    "project",
    "suggest_strength",
    "warm_up",
]
