"""Ctrl-C and the processes that we start."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def holding_ctrl_c() -> Iterator[None]:
    """A process that is started inside does not hear Ctrl-C until it asks for it, not even while it imports.

    A terminal sends Ctrl-C to children too, and Python answers it with a traceback for seconds.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
