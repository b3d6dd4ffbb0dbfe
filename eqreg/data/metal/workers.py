"""Processes that share the slices of a data set, each asked through a pipe of its own.

The workers of the standard library's ``ProcessPoolExecutor`` share queues, and one that dies while
the next is started can leave all, and whoever asked them, waiting for ever (Python 3.11.7).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from ...signals import holding_ctrl_c

J = TypeVar("J")
R = TypeVar("R")


def shared(
    run: Callable[..., R], jobs: Sequence[J], *how: Any, processes: int
) -> Iterator[tuple[J, R]]:
    """Each job with ``run(job, *how)``, in the order in which they end.

    An error, or an end of the loop before that of the jobs, lets the workers finish what they are at.

    Args:
        run: a function of a module, as processes can be sent no other.
        jobs: what there is to do.
        how: further arguments, the same for all.
        processes: how many at a time; no more are started than there are jobs.

    Raises:
        ChildProcessError: a worker died, as the system ends the largest process where memory is short.
        RuntimeError: ``run`` raised what no pipe carries; the message names it.
        TypeError: ``run`` returned what no pipe carries.
        Exception: whatever else ``run`` raised.
    """
    context = multiprocessing.get_context("spawn")
    left, at_work = list(reversed(jobs)), {}
    workers: dict[Connection, Any] = {}
    try:
        for _ in range(min(processes, len(jobs))):
            ours, theirs = context.Pipe()
            at_work[ours] = left.pop()
            workers[ours] = context.Process(target=_serve, args=(theirs, run, how), daemon=True)
            with _alive(processes):
                resource_tracker.ensure_running()  # its start would let Ctrl-C through again
                with holding_ctrl_c():
                    workers[ours].start()
                theirs.close()  # the child has its own copy, with whose end ours ends
                ours.send(at_work[ours])
        while at_work:
            for pipe in wait(list(at_work)):
                assert isinstance(pipe, Connection)
                with _alive(processes):
                    answer = pipe.recv_bytes()
                result, error = pickle.loads(answer)
                if error is not None:
                    raise error
                yield at_work.pop(pipe), result
                if left:
                    at_work[pipe] = left.pop()
                    with _alive(processes):
                        pipe.send(at_work[pipe])
                else:
                    pipe.close()
    finally:
        for pipe in workers:  # before any join: a worker waits for work until its pipe ends
            pipe.close()
        for worker in workers.values():
            if worker.pid is not None:
                worker.join()


@contextlib.contextmanager
def _alive(processes: int) -> Iterator[None]:
    try:
        yield
    except (EOFError, BrokenPipeError, ConnectionResetError) as error:
        raise ChildProcessError(
            f"one of {processes} processes ended within a slice, as the system ends them where memory is short; "
            "give fewer --jobs"
        ) from error


def _serve(pipe: Connection, run: Callable[..., Any], how: tuple[Any, ...]) -> None:
    """Answer each job by its result or its error, until the pipe ends."""
    _alone()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer = _answer(run(job, *how), None)
        except Exception as error:
            answer = _answer(None, error)
        try:
            pipe.send_bytes(answer)
        except OSError:  # nobody waits for it any more
            return


def _answer(result: Any, error: Exception | None) -> bytes:
    """A result or an error as it is sent. Not every error survives that; its text does."""
    try:
        content = pickle.dumps((result, error))
        if error is not None:
            pickle.loads(content)
    except Exception as why:
        if error is None:
            raise TypeError(
                f"expected a result that can be sent, got one that cannot: {why}"
            ) from why
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
    return content


def _alone() -> None:
    """A worker has one thread, leaves Ctrl-C to the process that started it, and does not outlive it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) is not None:

        def follow() -> None:
            parent.join()  # whatever killed it: within a slice the pipe is not looked at
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
