"""Optional dependencies, imported when used."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_USERS_OF_TORCHVISION = (
    "torchvision", "torchmetrics", "deepinv", "lightning", "transformers", "monai",
)  # fmt: skip
# Kept for the life of the process: operators go when their library object does.
_declared: list[torch.library.Library] = []


def require(name: str, *, extra: str | None) -> ModuleType:
    """Import ``name``, or say which extra of eqreg brings it; None for a framework that the user has.

    Raises:
        ImportError: if the module is not installed.

    >>> require("json", extra="tasks").dumps(1)
    '1'
    """
    try:
        if name.split(".")[0] in _USERS_OF_TORCHVISION:
            _make_torchvision_importable()
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        what = f'"eqreg[{extra}]"' if extra else package
        raise ImportError(f"this part of eqreg needs {package}: pip install {what}") from error


def _make_torchvision_importable() -> None:
    """Let torchvision be imported beside a CPU build of torch.

    PyPI's torchvision wheel links CUDA libraries. Without them its compiled operators do not load, and
    its import stops at an operator that nothing here uses. Declaring the two operators is enough
    for transforms and models. A torchvision that loads is not touched.
    """
    try:
        importlib.import_module("torchvision")
        return
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declared:
            raise
    for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[module]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    importlib.import_module("torchvision")
