"""All runs of a preset, several at a time, within a time budget; called again it goes on.

Each run is a process of its own (``eqreg tune`` or ``eqreg train``): one that crashes takes no other with
it, and on a GPU several small networks share the card. Several campaigns may work on one folder, also from
several machines: each takes what no other is at work on.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..signals import holding_ctrl_c
from ..tasks import get_task
from .locks import is_held
from .records import is_done
from .stopping import PARENT

STOPPED = 75  # exit status of a run that was told to stop and left a checkpoint
BUSY = 69  # of one that another process is at work on
_ENDS = {0: "done", STOPPED: "stopped", BUSY: "another process is at work on it"}
_POLL = 0.2
GRACE = 60.0  # seconds to write a checkpoint


@dataclass(frozen=True)
class Job:
    """One process: its command line, the file that it leaves, and the file that it waits for."""

    name: str
    arguments: tuple[str, ...]
    leaves: Path
    needs: Path | None = None


class Process(Protocol):
    """What a campaign asks of a job that it has started; ``subprocess.Popen`` is one."""

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""

    def terminate(self) -> None:
        """Tell it to stop."""

    def wait(self, timeout: float | None = None) -> int:
        """Until it is over, or raise ``subprocess.TimeoutExpired``."""

    def kill(self) -> None:
        """End it at once."""


def plan(
    task: str,
    preset: str,
    out: Path,
    *,
    methods: Sequence[str] = (),
    options: Sequence[str] = (),
) -> list[Job]:
    """Tuning and training of every method and seed, first seeds first.

    Raises:
        ValueError: unknown task or preset, or a method that the preset does not list.
    """
    known = get_task(task).preset(preset)
    if unknown := set(methods) - set(known.methods):
        raise ValueError(
            f"preset {preset!r} of {task} has no {sorted(unknown)}; expected some of "
            f"{', '.join(known.methods)}"
        )
    chosen = [m for m in known.methods if m in methods or not methods]
    base, varied = out / task / preset, " ".join(["", *preset.split(",")[1:]])
    common = ("--preset", preset, "--out", str(out), *options)
    jobs = [
        Job(f"tune {m}{varied}", ("tune", task, "--method", m, *common), base / m / "tuning.json")
        for m in chosen
    ]
    for seed in known.seeds:
        jobs += [
            Job(
                f"train {m} {seed}{varied}",
                ("train", task, "--method", m, "--seed", str(seed), *common),
                base / m / f"seed-{seed}" / "result.json",
                base / m / "tuning.json",
            )
            for m in chosen
        ]
    return jobs


def work(
    jobs: Sequence[Job],
    *,
    parallel: int = 1,
    minutes: float | None = None,
    report: Callable[[str], None] = print,
    stop: Callable[[], bool] | None = None,
    start: Callable[[Job], Process] | None = None,
) -> tuple[list[Job], dict[str, int]]:
    """Run the jobs that are not done, ``parallel`` at a time, until all are or the time is up.

    Args:
        jobs: of :func:`plan`.
        parallel: processes at a time.
        minutes: budget; running jobs are then told to write a checkpoint and stop.
        report: called with a line when a job starts or ends.
        start: starts a job; by default as a process of its own on this machine.
        stop: asked again and again; True ends it as the budget does.

    Returns:
        Jobs that are not done, and the exit statuses of those that failed; one that somebody stopped is no
        failure. A job whose tuning failed stays undone.
    """
    deadline = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    waiting = [job for job in jobs if not is_done(job.leaves)]
    running: dict[Process, Job] = {}
    failed: dict[str, int] = {}
    report(f"{len(jobs) - len(waiting)} of {len(jobs)} jobs are done")
    try:
        while (waiting or running) and time.monotonic() < deadline and not (stop and stop()):
            for process, job in list(running.items()):
                if (status := process.poll()) is not None:
                    del running[process]
                    if status == BUSY:  # another campaign was quicker
                        waiting.append(job)
                    elif status not in (0, STOPPED):
                        failed[job.name] = status
                    report(f"{job.name}: {_ENDS.get(status, f'exit status {status}')}")
            waiting = [job for job in waiting if not is_done(job.leaves)]
            elsewhere = False
            for job in waiting[:]:
                if len(running) == parallel:
                    break
                if job.needs is not None and not job.needs.is_file():
                    continue
                if is_held(job.leaves):
                    elsewhere = True
                    continue
                waiting.remove(job)
                report(f"{job.name}: started")
                running[(start or _start)(job)] = job
            if not running and not elsewhere:
                break  # what is left waits for something that failed
            time.sleep(_POLL)
    finally:
        _end(running)
    return [job for job in jobs if not is_done(job.leaves)], failed


def _start(job: Job) -> Process:
    with holding_ctrl_c():
        return subprocess.Popen(command_line(job), env=environment())


def command_line(job: Job) -> list[str]:
    """What runs the job, by the Python that runs this."""
    # -P: what lies in the current folder is not imported in place of a package.
    return [sys.executable, "-P", "-m", "eqreg", *job.arguments]


def environment() -> dict[str, str]:
    """Variables of a job that is a child of this process."""
    made = {**os.environ, PARENT: str(os.getpid())}
    home = Path(__file__).resolve().parents[2]
    if Path(sys.path[0] or ".").resolve() == home:  # `python -m eqreg` in a checkout
        paths = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
        made["PYTHONPATH"] = os.pathsep.join(paths)
    return made


def _end(running: Iterable[Process]) -> None:
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE
    try:
        for process in running:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:  # also if a second Ctrl-C came
        for process in running:
            process.kill()  # its last checkpoint is whole
            process.wait()
