"""What became of a call: fine, clear, unclear, silent or hung."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eqreg

PACKAGE = str(Path(eqreg.__file__).parent)
SECONDS = 20
_CALLERS = ("/torch/nn/modules/", "/tests/fuzz/")
KINDS = ("fine", "clear", "unclear", "silent", "hung")


class HungError(BaseException):
    """The call took too long; no code that catches Exception swallows it."""


@dataclass
class Tally:
    """Counts, and an example of each thing that went wrong."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, name: str, kind: str, what: str) -> None:
        self.counts[kind] += 1
        if kind not in ("fine", "clear"):
            self.examples.setdefault((kind, f"{name}: {what[:60]}"), what)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        return f"{total} calls: " + ", ".join(f"{k} {self.counts[k]}" for k in KINDS)


def judge(call: Callable[[], Any], right: Callable[[Any], bool]) -> tuple[str, str]:
    """Run a call and say what became of it.

    Args:
        call: the call.
        right: whether its result is right, by other means than the library's.
    """
    try:
        with warnings.catch_warnings(), _limit():
            warnings.simplefilter("ignore")
            result = call()
    except HungError:
        return "hung", f"no end after {SECONDS} s"
    except Exception as error:
        return ("clear" if _ours(error) else "unclear"), f"{type(error).__name__}: {error}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            good = bool(right(result))
    except Exception as error:  # the oracle cannot make sense of what the library took
        return "silent", f"taken, but the oracle says {type(error).__name__}: {error}"
    return ("fine", "") if good else ("silent", f"wrong: {str(result)[:200]}")


def _ours(error: Exception) -> bool:
    """Raised by a line of the library itself, with a sentence; or by the network or map that the caller gave."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [i for i, frame in enumerate(frames) if frame.filename.startswith(PACKAGE)]
    if not inside:
        return False
    if f"{PACKAGE}/models" not in frames[inside[-1]].filename and any(
        place in frame.filename for frame in frames[inside[-1] + 1 :] for place in _CALLERS
    ):
        return True
    raised = inside[-1] == len(frames) - 1 and "raise" in _statement(frames[-1])
    sentence = len(str(error).split()) >= 4
    return raised and sentence and not isinstance(error, AssertionError | KeyError)


def _statement(frame: traceback.FrameSummary) -> str:
    lines = Path(frame.filename).read_text(encoding="utf8").splitlines()
    end = frame.end_lineno or frame.lineno or 1
    return "\n".join(lines[(frame.lineno or 1) - 1 : end])


@contextlib.contextmanager
def _limit() -> Iterator[None]:
    """Stop after a while, where the system can."""
    if not hasattr(signal, "SIGALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise HungError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
