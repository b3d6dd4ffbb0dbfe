"""Files that are written whole or not at all, and JSON that is read with an error that names the file."""

from __future__ import annotations

import contextlib
import glob
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """Where results are kept that can be computed again: EQREG_CACHE, or ``eqreg`` in the user's cache folder."""
    if os.environ.get("EQREG_CACHE"):
        return Path(os.environ["EQREG_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eqreg"


def private_folder(path: Path) -> bool:
    """Make a folder, and say whether it is this user's and nobody else can write into it or replace it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        places = [path.stat(follow_symlinks=False), path.parent.stat()]
    except (OSError, RuntimeError):
        return False
    mine = all(p.st_uid == os.geteuid() for p in places) if hasattr(os, "geteuid") else True
    return mine and os.access(path, os.W_OK) and not any(p.st_mode & 0o022 for p in places)


def previous(path: Path) -> Path:
    """Where the file before the one at ``path`` lies, if :func:`write_whole` kept it."""
    return path.with_name(path.name + ".previous")


def write_whole(path: Path, content: bytes, *, keep_previous: bool = False) -> None:
    """Write a file so that nobody ever sees a part of it.

    The new file is written beside the old one, forced to the disk, and only then put in its place. Parts
    that killed processes left are removed.

    Args:
        path: file to write; its folder is made.
        content: of the file.
        keep_previous: the old file stays, as ``<name>.previous``.

    Raises:
        OSError: the system refused; the message names the file and the reason. What was there stays.
    """
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            os.replace(path, previous(path))
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        kept = next((p for p in (path, previous(path)) if p.is_file()), None)
        raise OSError(
            f"could not write {path} ({len(content) / 1e6:.1f} MB): {error.strerror or error}; "
            + (f"the last good one is {kept}" if kept else "there is no earlier one")
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """The name under which this process writes ``path``; removes the parts that dead processes left.

    >>> part_of(Path("a.json")).name == f"a.json.part-{os.getpid()}"
    True
    """
    for left in path.parent.glob(f"{glob.escape(path.name)}.part-*"):
        if not _alive(left.name.rpartition("-")[2]):
            with contextlib.suppress(OSError):
                left.unlink()
    return path.with_name(f"{path.name}.part-{os.getpid()}")


NUMBER = "a finite number"
NUMBER_OR_NAN = "a number"  # JSON of Python knows NaN and Infinity


def read_json(path: Path, what: str, form: Any) -> dict[str, Any]:
    """A JSON object with certain entries.

    Args:
        path: of the file.
        what: it is expected to be, for the error.
        form: names of entries and their forms. A name with a question mark may be missing, ``...`` stands for all
            other names. A form is a type, ``NUMBER``, ``NUMBER_OR_NAN``, a list of one form, an object of the same
            kind, or several forms in a tuple. Truth values are no numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else; the message names the file, the entry and what was expected.
    """
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected {what} as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {what}, a JSON object, got {_short(content)}")
    if (wrong := _misfit(content, form, "")) is not None:
        name, expected, value = wrong
        raise ValueError(f"{path}: expected {what} with {expected} {name!r}, got {_short(value)}")
    return content


def _misfit(value: Any, form: Any, name: str) -> tuple[str, str, Any] | None:
    """The first part of ``value`` that is of another form: its name, what was expected, and what it is."""
    inner: list[tuple[str, Any, Any]] = []
    if isinstance(form, tuple):
        tried = [_misfit(value, f, name) for f in form]
        if None in tried:
            return None
        deeper = next((t for t in tried if t is not None and t[0] != name), None)
        return deeper or (name, " or ".join(map(_said, form)), value)
    if isinstance(form, Mapping) and isinstance(value, dict):
        named = {str(k).removesuffix("?"): k for k in form if k is not ...}
        others = [k for k in value if k not in named] if ... in form else []
        inner = [
            (f"{name}.{bare}".lstrip("."), value.get(bare), form[k])
            for bare, k in named.items()
            if bare == k or bare in value
        ] + [(f"{name}.{k}".lstrip("."), value[k], form[...]) for k in others]
    elif isinstance(form, list) and isinstance(value, list):
        inner = [(f"{name}[{i}]", v, form[0]) for i, v in enumerate(value)]
    elif not _fits(value, form):
        return name, _said(form), value
    return next((w for n, v, f in inner if (w := _misfit(v, f, n)) is not None), None)


def _fits(value: Any, form: Any) -> bool:
    if form in (NUMBER, NUMBER_OR_NAN):
        try:
            number = float(value) if type(value) in (int, float) else None
        except OverflowError:
            return False
        return number is not None and (form == NUMBER_OR_NAN or math.isfinite(number))
    return type(form) is type and type(value) is form


def _said(form: Any) -> str:
    if isinstance(form, Mapping):
        return "dict"
    return "list" if isinstance(form, list) else getattr(form, "__name__", str(form))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _alive(number: str) -> bool:
    """Whether a process of this number may be at work; what is no number is not ours to judge."""
    if os.name == "nt":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except (ValueError, OSError):  # no number, or somebody else's process
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """The new name is safe only once its folder has been written too."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
