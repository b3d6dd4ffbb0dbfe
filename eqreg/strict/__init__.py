"""Strictly equivariant layers: the symmetry holds for every value of the weights.

``eqreg.strict.escnn`` adapts the layers of the library escnn; it is imported by name, as it needs it.
"""

from .conv import GroupConv2d
from .convert import equivariant, to_plain
from .fourier import FourierConv2d, fourier_basis

__all__ = ["FourierConv2d", "GroupConv2d", "equivariant", "fourier_basis", "to_plain"]
