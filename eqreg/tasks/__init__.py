"""The tasks of the book, ready to be trained: ``eqreg train rain --method eqreg --preset quick``.

>>> from eqreg.tasks import get_task
>>> get_task("rain").right
C2
"""

from __future__ import annotations

from importlib import import_module

from .task import Preset, Task

__all__ = ["NAMES", "Preset", "Task", "get_task"]

# name -> class, in the module of that name; modules are imported when a task is asked for.
NAMES = {
    "rain": "Rain",
    "deraining": "Deraining",
    "inpainting": "Inpainting",
    "classification": "Classification",
    "textures": "Textures",
    "mar": "Mar",
}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        ValueError: there is none; the message lists those that exist.

    >>> get_task("rain").margin
    0.15
    """
    if name not in NAMES:
        raise ValueError(f"unknown task {name!r}; expected one of {', '.join(NAMES)}")
    return getattr(import_module(f".{name}", __name__), NAMES[name])()
