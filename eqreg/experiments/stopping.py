"""When a run shall stop: a signal came, or the campaign that started it is gone."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType
from typing import Any

# The campaign tells its children its process number here.
PARENT = "EQREG_PARENT"
_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")  # Windows has no SIGHUP


class Stopped(Exception):
    """The run was asked to stop before it was done; called again it goes on."""


class Stop:
    """Asked after each step of a run, and before each image of its last evaluation.

    Inside ``with``, SIGTERM, SIGHUP and Ctrl-C make the answer True; a second Ctrl-C ends the process at
    once. A process that a campaign started also stops when the campaign is gone, whatever killed it.
    Signals that are ignored, as ``nohup`` ignores SIGHUP, stay ignored.
    """

    def __init__(self) -> None:
        self.asked = False
        self._parent = os.environ.get(PARENT)
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.asked or (self._parent is not None and self._parent != str(os.getppid()))

    def __enter__(self) -> Stop:
        for number in (getattr(signal, n) for n in _SIGNALS if hasattr(signal, n)):
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        if self._parent is not None and hasattr(signal, "pthread_sigmask"):
            # The campaign started it in signals.holding_ctrl_c.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
