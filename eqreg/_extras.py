"""Optional dependencies, imported when used."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(name: str, *, extra: str) -> ModuleType:
    """Import ``name``, or say which extra of eqreg brings it.

    Raises:
        ImportError: if the module is not installed.

    >>> require("json", extra="tasks").dumps(1)
    '1'
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f'this part of eqreg needs {name.split(".")[0]}: pip install "eqreg[{extra}]"'
        ) from error
