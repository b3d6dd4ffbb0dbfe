"""Weights from a server: fetched in as many pieces as it takes, and used only if they are what its index says."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checks import one_line
from ..training.checkpoint import CheckpointError
from .locks import WAITING, locked

LARGEST_INDEX = 1_000_000  # bytes; ours has 10 000
_NAME = re.compile(r"\w[\w.-]*/\w[\w.,=-]*\.safetensors")
_CHUNK = 1 << 16
_PATIENCE = 30.0  # seconds without a byte, and those over which a server's pace is judged
_SLOWEST = 1000  # bytes in a second
# ValueError: the server sends us on to what is no address.
_NETWORK = (OSError, http.client.HTTPException, ValueError)


class _TooSlow(ConnectionError):
    """Asking again would bring as little."""


def download(file: str, url: str, folder: Path) -> Path:
    """Fetch ``url/file`` into ``folder``, checked against the SHA-256 in ``url/index.json``.

    One process at a time writes there; the others wait and find the file.

    Raises:
        ConnectionError: the address cannot be read; what arrived is kept and completed next time.
        FileNotFoundError: the index does not list the file.
        CheckpointError: the content is not what the index says.
        OSError: the folder cannot be written to; the message names it.
    """
    url = url.rstrip("/")
    index = index_of(f"{url}/index.json", _fetch(f"{url}/index.json"))
    if file not in index:
        raise FileNotFoundError(
            f"{url}/index.json lists no {file}, only {', '.join(sorted(index))}"
        )
    target, (want, size) = folder / file, index[file]
    if _is(target, want):  # also in a cache that this user cannot write to
        return target
    # Two that append to one part would mix their bytes.
    with locked(target.with_name("download"), patience=WAITING):
        if _is(target, want):  # by whom we waited for
            return target
        part = target.with_name(target.name + ".part")
        for _ in range(2):  # pieces that do not fit together are fetched anew, and in one
            whole = _complete(f"{url}/{file}", part, size)
            if (got := sha256(part)) == want:
                os.replace(part, target)
                return target
            part.unlink()
            if whole:
                break
    raise CheckpointError(f"{url}/{file}: expected the SHA-256 {want}, got {got}; not used")


def index_of(where: str, content: bytes) -> dict[str, tuple[str, int]]:
    """SHA-256 and bytes of each file of an index.

    Raises:
        CheckpointError: it is no index, or lists a name that is not of the form folder/name.safetensors.
    """
    if len(content) > LARGEST_INDEX:
        raise CheckpointError(
            f"{where}: expected an index of at most {LARGEST_INDEX / 1e6:g} MB, got more"
        )
    try:
        found = {
            str(name): (str(entry["sha256"]), int(entry["bytes"]))
            for name, entry in json.loads(content).items()
        }
        if any(size < 1 for _, size in found.values()):
            raise ValueError("a file without bytes")
    except (
        ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
    ) as error:  # fmt: skip
        raise CheckpointError(
            f"{where}: expected an index of weights, name to sha256 and bytes: {error!r}"
        ) from error
    if wrong := [name for name in found if not _NAME.fullmatch(name)]:
        raise CheckpointError(
            f"{where}: expected names like rain/eqreg.safetensors, got {wrong[0]!r}"
        )
    return found


def sha256(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is(path: Path, want: str) -> bool:
    return path.is_file() and sha256(path) == want


def _complete(address: str, part: Path, size: int) -> bool:
    """Fetch what is missing of ``size`` bytes, and say whether all came in one piece.

    Raises:
        ConnectionError: it broke off and another try brought nothing more; what arrived is kept.
        OSError: the part cannot be written.
    """
    if part.is_file() and part.stat().st_size > size:
        part.unlink()
    tries, problem, begun = 0, None, part.is_file()
    while (there := part.stat().st_size if part.is_file() else 0) < size:
        tries += 1
        try:
            for at, piece in _pieces(address, there, size):
                _put(part, at, piece)
        except ConnectionError as error:
            problem = error
        now = part.stat().st_size if part.is_file() else 0
        if now <= there or isinstance(problem, _TooSlow):
            raise ConnectionError(
                f"could not read {address}: {problem or 'it broke off'} after {now} of {size} bytes; "
                "call again to go on"
            ) from problem
    return tries == 1 and not begun


def _put(part: Path, at: int, piece: bytes) -> None:
    """Write what is not there yet; what differs from it is of another file, which begins anew."""
    try:
        with part.open("r+b" if part.is_file() else "w+b") as file:
            file.seek(at)
            known = file.read(len(piece))
            if not piece.startswith(known):
                file.seek(at)
                file.truncate()
                known = b""
            file.write(piece[len(known) :])
    except OSError as error:
        raise OSError(
            f"could not write {part}: {error.strerror or error}; call again to go on"
        ) from error


def _fetch(address: str) -> bytes:
    try:
        with _opened(address) as answer:
            content = b"".join(_read(answer, LARGEST_INDEX + 1))
            if getattr(answer, "length", None) and len(content) <= LARGEST_INDEX:
                raise ConnectionError(f"it broke off after {len(content)} bytes")
    except _NETWORK as error:
        raise ConnectionError(f"could not read {address}: {one_line(error)}") from error
    return content


def _pieces(address: str, there: int, size: int) -> Iterator[tuple[int, bytes]]:
    """What a server sends for the bytes from ``there`` on, each piece with its place in the file.

    Raises:
        ConnectionError: it sends something else, or nothing more.
    """
    try:
        with _opened(address, there) as answer:
            # A server that cannot go on sends all; what is there already is compared and left.
            at = there if answer.status == 206 else 0
            offered = getattr(answer, "length", None)
            if at == 0 and offered not in (None, size):
                raise ConnectionError(f"it offers {offered} bytes")
            for piece in _read(answer, size - at):
                yield at, piece
                at += len(piece)
    except _TooSlow:
        raise
    except _NETWORK as error:
        raise ConnectionError(one_line(error)) from error


def _opened(address: str, there: int = 0) -> Any:
    """An answer that begins at byte ``there`` (status 206), or at the first one.

    Raises:
        OSError, HTTPException, ValueError: there is none.
    """
    headers = {"Range": f"bytes={there}-"} if there else {}
    request = urllib.request.Request(address, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        error.close()
        if there and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _opened(address)
        raise
    if answer.status == http.client.PARTIAL_CONTENT:
        start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range") or "")
        if start is None or int(start[1]) == there:
            return answer
        answer.close()
        if there:
            return _opened(address)
        raise ConnectionError(f"it begins at byte {int(start[1])}")
    if answer.status not in (None, http.client.OK):  # file:// has none
        answer.close()
        raise ConnectionError(f"it answers with the status {answer.status}")
    if answer.headers.get_content_type() == "text/html":  # of a network that wants a login first
        answer.close()
        raise ConnectionError("it sends a web page")
    return answer


def _read(answer: Any, most: int) -> Iterator[bytes]:
    """Up to ``most`` bytes of an answer, each piece as soon as it is here.

    Raises:
        ConnectionError: they come more slowly than ``_SLOWEST``.
    """
    since, got = time.monotonic(), 0
    while most and (piece := answer.read1(min(_CHUNK, most))):
        yield piece
        most -= len(piece)
        got += len(piece)
        if (passed := time.monotonic() - since) > _PATIENCE:
            if got < _SLOWEST * passed:
                raise _TooSlow(f"it sends fewer than {_SLOWEST} bytes a second")
            since, got = time.monotonic(), 0
