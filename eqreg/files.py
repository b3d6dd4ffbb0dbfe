"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
from pathlib import Path


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
