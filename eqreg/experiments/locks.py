"""One process at a time works on a run: a lock that the system takes back when its holder dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ..extras import require

WAITING = -1.0  # until the lock is free, however long
_PATIENCE = 1.0  # seconds; a campaign that looks whether a run is free holds its lock for a moment


class Busy(RuntimeError):
    """Another process is at work on the same run."""


@contextlib.contextmanager
def locked(result: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the lock of whoever will leave the file ``result``, a run or a download; its folder is made.

    The lock is a file beside it, which stays. A process that dies, however, gives it back.

    Raises:
        Busy: another process holds it for longer than ``patience`` seconds.
        OSError: the folder cannot be made or written to; the message names it.
    """
    filelock = require("filelock", extra="tasks")
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(_lock(result)).acquire(timeout=patience)
    except filelock.Timeout as error:
        raise Busy(f"another process is at work on {result.parent}") from error
    except OSError as error:
        raise OSError(
            f"{result.parent}: expected a folder to write in: {error.strerror or error}"
        ) from error
    with held:
        yield


def is_held(result: Path) -> bool:
    """Whether a living process works on the run that will leave ``result``."""
    filelock = require("filelock", extra="tasks")
    if not _lock(result).is_file():
        return False
    try:
        with filelock.FileLock(_lock(result)).acquire(blocking=False):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # whoever starts the run will be told
        return False


def _lock(result: Path) -> Path:
    return result.with_suffix(".lock")
