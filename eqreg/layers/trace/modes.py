"""Modes that look at operations, without waking the compiler."""

from __future__ import annotations

import sys
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Looking(TorchDispatchMode):
    """A mode whose first operation does not import ``torch._dynamo``, which takes seconds.

    torch keeps its compiler out of every mode, and imports it for that. What was never imported needs no keeping out.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def awake(mode: type[Looking]) -> type[Any]:
    """The mode, kept from the compiler if a program uses it already."""
    if "torch._dynamo" not in sys.modules:
        return mode
    kept = {
        "__torch_dispatch__": mode.__dict__["__torch_dispatch__"],
        "_should_skip_dynamo": classmethod(lambda cls: True),
    }
    return type(mode.__name__, (mode,), kept)
