"""From one run to a table: runs, tuning, campaigns, comparison, stored results, trained weights, command line.

The names are imported when they are asked for: whoever loads trained weights needs neither the tasks nor
the training loop.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .artifacts import load_artifact
    from .locks import Busy
    from .pretrained import load_pretrained
    from .runs import Run, train
    from .stopping import Stopped
    from .tuning import tune

__all__ = ["Busy", "Run", "Stopped", "load_artifact", "load_pretrained", "train", "tune"]

_HOME = {
    "Busy": "locks", "Run": "runs", "Stopped": "stopping", "load_artifact": "artifacts",
    "load_pretrained": "pretrained", "train": "runs", "tune": "tuning",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
