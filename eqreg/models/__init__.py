"""Small readable restoration networks."""

from .residual import ResidualNet

__all__ = ["ResidualNet"]
