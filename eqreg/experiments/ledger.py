"""Finished runs as small files that are committed, so that a campaign goes on on another machine.

``FOLDER/<task>/<preset>/<method>/seed-<n>.json`` holds what ``result.json`` holds, ``tuning.json`` beside
it the choice of rate and strength. Weights and checkpoints stay where they are.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..files import write_whole
from ..tasks import get_task
from .records import is_done, read_result, read_tuning


def publish(out: Path, folder: Path, task: str, preset: str) -> int:
    """Copy what is finished from ``out`` into ``folder``; the number of new or changed files.

    Raises:
        ValueError, FloatingPointError: a file in ``out`` holds something else.
    """
    return _copy(out, folder, task, preset, published=False)


def restore(folder: Path, out: Path, task: str, preset: str) -> int:
    """Copy what ``folder`` knows into ``out``, where the engine takes it for done; what is there stays.

    A run of other settings is refused when it is asked for, as its hash differs.

    Raises:
        ValueError, FloatingPointError: a file in ``folder`` holds something else; the message names it.
    """
    return _copy(folder, out, task, preset, published=True)


def _copy(source: Path, target: Path, task: str, preset: str, *, published: bool) -> int:
    known, copied = get_task(task).preset(preset), 0
    # What a process may still be at work on is no fault; what somebody published is whole.
    taken_from = Path.is_file if published else is_done
    for method in known.methods:
        here, there = source / task / preset / method, target / task / preset / method
        for seed in known.seeds:
            bare, full = f"seed-{seed}.json", f"seed-{seed}/result.json"
            given, taken = (bare, full) if published else (full, bare)
            if taken_from(here / given):
                copied += _write(read_result(here / given), there / taken, anew=not published)
        if taken_from(here / "tuning.json"):
            copied += _write(
                read_tuning(here / "tuning.json"), there / "tuning.json", anew=not published
            )
    return copied


def _write(content: dict[str, object], path: Path, *, anew: bool) -> bool:
    text = (json.dumps(content, separators=(",", ":")) + "\n").encode()
    if path.is_file() and (not anew or path.read_bytes() == text):
        return False
    write_whole(path, text)
    return True
