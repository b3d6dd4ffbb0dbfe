"""Groups, field types, and how both act on images and features."""

from .actions import act, permute_channels, quarter_turns, rotate, valid_mask
from .elements import Element, Group
from .fields import FieldType
from .groups import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup

__all__ = [
    "C1",
    "C2",
    "C4",
    "C8",
    "D4",
    "CyclicGroup",
    "DihedralGroup",
    "Element",
    "FieldType",
    "Group",
    "act",
    "permute_channels",
    "quarter_turns",
    "rotate",
    "valid_mask",
]
