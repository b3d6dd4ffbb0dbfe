"""Is someone watching? Progress bars and widgets are for readers, not for the logs of programs."""

from __future__ import annotations

import sys


def notebook_reader() -> bool | None:
    """Whether a person works in this notebook; None outside notebooks.

    Front ends with a person in front accept ``input()``; programs that execute notebooks (nbclient,
    nbval, the book) do not. A widget saved by those would be a slider that moves nothing.
    """
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    kernel = getattr(get_ipython() if get_ipython else None, "kernel", None)
    if kernel is None:
        return None
    request = kernel.get_parent().get("content", {})
    return bool(request.get("allow_stdin")) or "google.colab" in sys.modules


def reader_present() -> bool:
    """True in a terminal and in a notebook that a person works in."""
    reader = notebook_reader()
    return sys.stderr.isatty() if reader is None else reader
