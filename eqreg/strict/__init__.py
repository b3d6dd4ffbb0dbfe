"""Strictly equivariant layers: the symmetry holds for every value of the weights."""

from .conv import GroupConv2d

__all__ = ["GroupConv2d"]
