"""Files that runs leave as JSON: read with an error that names the file, and a log that survives kills."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_record(
    path: Path, what: str, keys: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """A JSON object with certain entries.

    Args:
        path: of the file.
        what: it is expected to be, for the error.
        keys: names of entries and their types.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else; the message names the file and what was expected.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected {what} as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {what}, a JSON object, got {_short(content)}")
    for key, kind in keys.items():
        if not isinstance(content.get(key), kind):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            raise ValueError(
                f"{path}: expected {what} with {' or '.join(k.__name__ for k in kinds)} {key!r}, got "
                f"{_short(content.get(key))}"
            )
    return content


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            # A line that a kill cut has no end; the next one shall not be swallowed by it.
            file.write(b"" if self._ends() else b"\n")
            file.write(json.dumps({"step": step, **numbers}).encode() + b"\n")

    def _ends(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-min(1, self.path.stat().st_size), os.SEEK_END)
            return file.read() in (b"", b"\n")
