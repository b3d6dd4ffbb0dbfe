"""Is someone watching? Progress bars are for readers, not for the logs of programs."""

from __future__ import annotations

import sys


def reader_present() -> bool:
    """True in a terminal and in a notebook that a person works in.

    Front ends with a person in front accept ``input()``; programs that execute notebooks (nbclient,
    nbval, the book) do not.
    """
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    kernel = getattr(get_ipython() if get_ipython else None, "kernel", None)
    if kernel is None:
        return sys.stderr.isatty()
    request = kernel.get_parent().get("content", {})
    return bool(request.get("allow_stdin")) or "google.colab" in sys.modules
