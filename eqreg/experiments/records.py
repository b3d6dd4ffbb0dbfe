"""Files that runs leave as JSON: read with an error that names the file, and a log that survives kills."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..extras import require
from ..files import NUMBER, NUMBER_OR_NAN, read_json

_CURVE_POINTS = 100
# What is read of a result and of a tuning, whatever version wrote it.
_RESULT: Mapping[str, Any] = {
    "run": {
        "task": str, "preset": str, "method": str, "seed": int, "lr": NUMBER, "strength": NUMBER
    },
    "stamp": {"device": str, "date": str, "version": str, "hours": NUMBER},
    "metrics": {...: NUMBER_OR_NAN},
    "per_image": {...: [NUMBER_OR_NAN]},
    "curves": {"val": [{"step": NUMBER, ...: NUMBER_OR_NAN}]},
    "cost": {"seconds_per_step": NUMBER, "images?": int},
    "parameters": int, "silent?": [str], "mute?": bool, "share?": NUMBER_OR_NAN,
    "strengths?": {...: NUMBER_OR_NAN},
}  # fmt: skip
_TUNING: Mapping[str, Any] = {
    "lr": NUMBER_OR_NAN, "strength": NUMBER_OR_NAN, "tried": [dict], "hours": NUMBER, "score?": NUMBER,
    "edge?": {...: bool}, "dead?": int, "stamp?": (str, {...: str}),
}  # fmt: skip


def read_result(path: Path) -> dict[str, Any]:
    """The result of a run.

    Raises:
        FileNotFoundError, ValueError: as :func:`eqreg.files.read_json`.
        FloatingPointError: a metric is infinite or NaN; such a run is not done.
    """
    result = read_json(path, "the result of a run", _RESULT)
    for name, value in result["metrics"].items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{path}: expected finite metrics, got {name} {value}; remove the folder and take a "
                "smaller learning rate"
            )
    return result


def read_tuning(path: Path) -> dict[str, Any]:
    """What a tuning chose.

    Raises:
        FileNotFoundError, ValueError: as :func:`eqreg.files.read_json`.
    """
    found = read_json(path, "the result of a tuning", _TUNING)
    if not (0 < found["lr"] < math.inf and 0 <= found["strength"] < math.inf):
        raise ValueError(
            f"{path}: expected a finite lr and strength, got {found['lr']} and {found['strength']}"
        )
    return found


def is_done(path: Path) -> bool:
    """Whether a run or a tuning left a sound file at ``path``."""
    try:
        (read_tuning if path.name == "tuning.json" else read_result)(path)
    except (OSError, ValueError, FloatingPointError):
        return False
    return True


class Log:
    """Lines of JSON for a reader, one for each look at the validation images.

    The run itself keeps its looks in its checkpoints.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[int, dict[str, float]]:
        """The looks by step; lines that are something else, such as one that a kill cut, are left out."""
        lines = self.path.read_bytes().splitlines() if self.path.is_file() else []
        found = {}
        for line in lines:
            try:
                entry = json.loads(line)
                found[int(entry["step"])] = entry
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
        return found

    def complete(self, notes: list[dict[str, float]]) -> list[dict[str, float]]:
        """All looks; those before a checkpoint of format 1 are in the lines alone."""
        found = {**self.read(), **{int(note["step"]): note for note in notes}}
        return [found[step] for step in sorted(found)]

    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Append a look; a resumed run repeats those after its checkpoint, and the later line counts."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # A line that a kill cut has no end; the next one shall not be swallowed by it.
                file.write(b"" if self._ends() else b"\n")
                file.write(json.dumps({"step": step, **numbers}).encode() + b"\n")
        except OSError as error:  # only those of open() name the file
            raise OSError(f"could not write {self.path}: {error.strerror or error}") from error

    def _ends(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-min(1, self.path.stat().st_size), os.SEEK_END)
            return file.read(1) in (b"", b"\n")


def rounded(value: float) -> float:
    """Five digits, which is more than a curve or one image's score says."""
    return float(f"{value:.5g}")


def thinned(values: list[float]) -> list[float]:
    """Means over at most ``_CURVE_POINTS`` equal stretches."""
    width = max(1, math.ceil(len(values) / _CURVE_POINTS))
    stretches = (values[i : i + width] for i in range(0, len(values), width))
    return [rounded(sum(s) / len(s)) for s in stretches]


def tensorboard(folder: Path) -> Callable[[int, dict[str, float]], None]:
    """A ``watch`` for :func:`eqreg.experiments.runs.train` that writes event files into ``folder``.

    Raises:
        OSError: they cannot be written, now or at a look; the message names the folder.
    """
    scalar = require("tensorboardX.summary", extra="scale").scalar
    event = require("tensorboardX.proto.event_pb2", extra="scale").Event
    # SummaryWriter writes in a thread, which dies of a full disk and leaves the run waiting.
    records = require("tensorboardX.record_writer", extra="scale").RecordWriter

    @contextlib.contextmanager
    def named() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(f"could not write {folder}: {error.strerror or error}") from error

    with named():
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        writer = records(str(folder / name))
        writer.write(event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())

    def write(step: int, numbers: dict[str, float]) -> None:
        with named():
            for name, value in numbers.items():
                told = event(wall_time=time.time(), step=step, summary=scalar(name, value))
                writer.write(told.SerializeToString())
            writer.flush()

    def close() -> None:
        with contextlib.suppress(OSError):  # a full disk has been told of
            writer.close()

    weakref.finalize(write, close)
    return write
