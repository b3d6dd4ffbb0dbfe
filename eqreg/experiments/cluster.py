"""Jobs of a campaign as jobs of submitit, on a SLURM cluster or beside it on this machine.

The command lines are those that a campaign starts itself, and so are the locks: what another job is at work on is
left alone. A job whose time is up, or that is preempted, tells its command to write a checkpoint and stop, and is
queued again, where the same command line goes on.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..extras import require
from ..signals import holding_ctrl_c
from .campaign import GRACE, Job, command_line, environment

KINDS = ("local", "slurm")
_POLL = 0.2
_NO_LIMIT = (
    60 * 24 * 365
)  # minutes of a job on this machine, and how often one on a cluster is queued again


@dataclass
class Command:
    """A command line as what submitit calls and, when time is up, asks for a checkpoint."""

    line: tuple[str, ...]
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __call__(self) -> int:
        """Run it; its exit status."""
        # Children of ours notice by this number when we are gone.
        with holding_ctrl_c():
            self._process = subprocess.Popen(self.line, env=environment())
        try:
            # Not wait(), which would hold a lock when the signal for a checkpoint comes.
            while (status := self._process.poll()) is None:
                time.sleep(_POLL)
            return status
        finally:
            if self._process.returncode is None:
                self._process.terminate()

    def checkpoint(self) -> Any:
        """Tell the command to stop, and say that it is to be called again."""
        assert self._process is not None
        self._process.terminate()
        end = time.monotonic() + GRACE
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(_POLL)
        return require("submitit", extra="scale").helpers.DelayedSubmission(Command(self.line))


class Submitted:
    """A job of submitit with the methods of a process that a campaign uses."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        """The command's exit status, 1 if it has none, or None while the job waits or runs."""
        if not self._job.done():
            return None
        return 1 if self._job.exception() is not None else int(self._job.result())

    def terminate(self) -> None:
        """Cancel the job; a command that runs is told to stop."""
        self._job.cancel(check=False)

    def wait(self, timeout: float | None = None) -> int:
        """Until the job is over.

        Raises:
            subprocess.TimeoutExpired: it is not.
        """
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self._job), timeout or 0.0)
            time.sleep(_POLL)
        return status

    def kill(self) -> None:
        """Nothing: what cancels a job kills it after a while."""


def starter(on: str, logs: Path, settings: Iterable[str] = ()) -> Callable[[Job], Submitted]:
    """What starts a campaign's jobs by submitit.

    Args:
        on: ``"local"`` or ``"slurm"``.
        logs: folder for scripts and outputs; on a cluster all machines see it.
        settings: for the jobs, as submitit names them: ``partition=gpu``, ``time=240`` (minutes),
            ``gpus_per_node=1``, ``mem=16GB``...

    Raises:
        ValueError: a setting that is none, or no SLURM on this machine.
        ModuleNotFoundError: submitit is missing; the message names the extra.
    """
    submitit = require("submitit", extra="scale")
    chosen: dict[str, Any] = {}
    for setting in settings:
        name, found, value = setting.partition("=")
        if not (name and found and value):
            raise ValueError(f"--with: expected NAME=VALUE, such as time=240, got {setting!r}")
        chosen[name] = int(value) if value.isdigit() else value
    try:
        if on == "slurm":
            made = submitit.SlurmExecutor(logs, max_num_timeout=_NO_LIMIT)
            more = {"stderr_to_stdout": True, "additional_parameters": {"requeue": True}}
            made.update_parameters(**{"time": 60, **more, **chosen})
        else:
            made = submitit.LocalExecutor(logs, max_num_timeout=_NO_LIMIT)
            made.update_parameters(**{"timeout_min": _NO_LIMIT, "stderr_to_stdout": True, **chosen})
    except (RuntimeError, TypeError, NameError) as error:
        raise ValueError(f"--on {on}: {str(error).splitlines()[0]}") from error

    def start(job: Job) -> Submitted:
        if on == "slurm":
            made.update_parameters(job_name=job.name.replace(" ", "-"))
        return Submitted(made.submit(Command(tuple(command_line(job)))))

    return start
