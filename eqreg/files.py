"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def previous(path: Path) -> Path:
    """Where the file before the one at ``path`` lies, if :func:`write_whole` kept it."""
    return path.with_name(path.name + ".previous")


def write_whole(path: Path, content: bytes, *, keep_previous: bool = False) -> None:
    """Write a file so that nobody ever sees, and no crash ever leaves, a part of it.

    The new file is written beside the old one, forced to the disk, and only then put in its place.

    Args:
        path: file to write; its folder is made.
        content: of the file.
        keep_previous: the old file stays, as ``<name>.previous``.

    Raises:
        OSError: the system refused; the message names the file and the reason. What was there stays.
    """
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
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
