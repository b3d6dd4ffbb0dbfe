"""What the loaders of image folders share: where the folder is, and errors that name the file."""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from ..extras import require
from .images import read_image

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")
# A file that was cut off lacks its last bytes, which shows without decoding it.
_LAST_BYTES = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_TAIL = 64
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # EXIF: shown turned by a quarter


def data_folder(root: str | Path | None, name: str, who: str) -> Path:
    """``root``, or the folder ``name`` in the one that EQREG_DATA names.

    Raises:
        FileNotFoundError: neither is given, or there is no such folder.
    """
    if root is None:
        if not os.environ.get("EQREG_DATA"):
            raise FileNotFoundError(
                f"{who}: give root=, or set EQREG_DATA to the folder that holds {name}"
            )
        root = Path(os.environ["EQREG_DATA"]) / name
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{who}: expected a folder of images, found no folder {root}")
    return Path(root)


def image_size(path: Path, who: str) -> tuple[int, int]:
    """(width, height), as shown, from the header of a whole PNG or JPEG file; pixels are not decoded.

    Raises:
        ValueError: the file is no image or is cut off.
    """
    pillow = require("PIL.Image", extra="tasks")
    try:
        with pillow.open(path) as picture:
            size, last = picture.size, _LAST_BYTES.get(picture.format, b"")
            # Pillow decodes a whole PNG to look for an EXIF chunk behind the pixels.
            tagged = picture.format != "PNG" or _has_exif(path)
            if tagged and picture.getexif().get(_ORIENTATION, 1) in _LYING:
                size = size[::-1]
    except _unreadable() as error:
        raise ValueError(
            f"{who}: expected a readable image, could not decode {path}: {error}"
        ) from error
    with path.open("rb") as file:
        file.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
        if last not in file.read():  # some writers add a few bytes behind the end
            raise ValueError(
                f"{who}: expected a whole image, could not decode {path}: it is cut off after "
                f"{path.stat().st_size} bytes"
            )
    return size


def _has_exif(path: Path) -> bool:
    """Whether a PNG file has an EXIF chunk; reads the heads of its chunks alone."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return False


def read_rgb(path: Path, who: str) -> Tensor:
    """(3, H, W) float32 in [0, 1]; grey images get three equal channels.

    Raises:
        FileNotFoundError, ValueError: as for :func:`read_image`, with the reader's name in front.
    """
    try:
        return read_image(path).expand(3, -1, -1)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{who}: {error}") from error


def _unreadable() -> tuple[type[Exception], ...]:
    """What Pillow raises for foreign and damaged files, and for small ones that unpack to huge images."""
    return OSError, SyntaxError, require("PIL.Image", extra="tasks").DecompressionBombError
