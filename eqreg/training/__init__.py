"""One training loop for every method of the book, and what it needs: losses, methods, checkpoints."""

from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .fit import History, SampleBatch, fit
from .methods import METHODS, Method, Prepared, Row, prepare
from .settings import Keeping, Optimisation, Symmetry

__all__ = [
    "METHODS",
    "CheckpointError",
    "History",
    "Keeping",
    "Method",
    "Optimisation",
    "Prepared",
    "Row",
    "SampleBatch",
    "Symmetry",
    "fit",
    "load_checkpoint",
    "prepare",
    "save_checkpoint",
]
