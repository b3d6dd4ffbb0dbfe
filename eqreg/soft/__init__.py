"""Symmetry that a network is only encouraged to have: EQ-Reg, decay and projection, how strong, and when."""

from .agreement import AgreementStrength
from .gates import AdaptiveConstraint, soft_projection_
from .norms import ProjectionNorms
from .output import RegularizedOutput
from .pathways import PathwayDecay
from .penalty import ProjectionPenalty
from .projection import (
    EquivarianceDecay,
    equivariance_distance,
    equivariant_init_,
    project,
)
from .regularizer import EquivarianceRegularizer
from .schedules import constant, decreasing, warm_up
from .selections import eq_reg_t
from .soften import Softened, soften
from .strength import SuggestedStrength, suggest_strength

__all__ = [
    "AdaptiveConstraint",
    "AgreementStrength",
    "EquivarianceDecay",
    "EquivarianceRegularizer",
    "PathwayDecay",
    "ProjectionNorms",
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
    "soft_projection_",
    "soften",
    "suggest_strength",
    "warm_up",
]
