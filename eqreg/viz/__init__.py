"""Figures and tables that stand without a kernel: alt text, captions, colours for everyone, static sliders.

matplotlib is imported when a figure is drawn, never when this package is imported, and neither
pyplot's state nor the global settings are touched.
"""

from ._closeup import closeup
from ._figure import COLORS, Picture, grid, show, subplots
from ._slider import Slider, explore
from ._table import Table, table
from ._wipe import wipe

__all__ = [
    "COLORS",
    "Picture",
    "Slider",
    "Table",
    "closeup",
    "explore",
    "grid",
    "show",
    "subplots",
    "table",
    "wipe",
]
