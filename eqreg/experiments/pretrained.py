"""Trained networks in one line: ``model = load_pretrained("rain/eqreg")``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ..training.checkpoint import CheckpointError, load_weights

if TYPE_CHECKING:
    import torch

_PACKAGE = Path(__file__).resolve().parents[1]
# As for results: a wheel carries the files inside the package, a checkout at its root.
_PLACES = (_PACKAGE / "_artifacts" / "weights", _PACKAGE.parent / "artifacts" / "weights")
_CHUNK = 1 << 16


def load_pretrained(
    name: str | Path, *, url: str | None = None, device: torch.device | str = "cpu"
) -> nn.Module:
    """A trained network of the book, in eval mode.

    Args:
        name: ``"<task>/<method>"``, for example ``"rain/eqreg"``, or the path of a weights file. A name
            is looked for in the repository's ``artifacts/weights``, in the installed package, in the
            cache, and then at ``url``.
        url: folder with the weights and ``index.json``; by default the release of this version at the
            project's home page. A download goes on where an earlier one broke off, and is used only
            if its SHA-256 is the one in the index.
        device: of the network.

    Returns:
        The network. ``model.about`` tells what it was trained on, when, on what device, and its metrics.

    Raises:
        FileNotFoundError: no weights of this name; the message lists where they were looked for.
        CheckpointError: the file is damaged, was written for another version, or does not fit the
            network that this version builds.
        ConnectionError: the download failed.

    No file is ever unpickled. Taught in: notebooks/13.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        path = _find(str(name), url)
    tensors, about = load_weights(path)
    from .runs import Run, prepared

    run = about.get("run", {})
    try:
        known = {k: v for k, v in run.items() if k in Run.__dataclass_fields__}
        model = prepared(Run(**known), run.get("sizes"))[2]
        model.load_state_dict(tensors)
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} was written by {about.get('stamp', {}).get('version')} and does not fit the network "
            f"that this version builds: {error}"
        ) from error
    model.about = about  # type: ignore[assignment]
    return model.eval().to(device)


def _find(name: str, url: str | None) -> Path:
    file = f"{name}.safetensors"
    places = [*_PLACES, _cache()]
    if url is None:
        for place in places:
            if (place / file).is_file():
                return place / file
        url = _home()
    if url is None:
        known = sorted(
            str(p.relative_to(place).with_suffix(""))
            for place in _PLACES
            for p in place.glob("*/*.safetensors")
        )
        raise FileNotFoundError(
            f"load_pretrained: found no {file} in {', '.join(map(str, places))}; there are "
            f"{', '.join(known) or 'none'}"
        )
    return download(file, url, _cache())


def download(file: str, url: str, folder: Path) -> Path:
    """Fetch ``url/file`` into ``folder``, checked against the SHA-256 in ``url/index.json``.

    Raises:
        ConnectionError: the address cannot be read; what arrived is kept and completed next time.
        FileNotFoundError: the index does not list the file.
        CheckpointError: the content is not what the index says.
    """
    url = url.rstrip("/")
    index = json.loads(_fetch(f"{url}/index.json").decode())
    if file not in index:
        raise FileNotFoundError(
            f"{url}/index.json lists no {file}, only {', '.join(sorted(index))}"
        )
    target, want = folder / file, index[file]["sha256"]
    if target.is_file() and _sha256(target) == want:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    _complete(f"{url}/{file}", part)
    if (got := _sha256(part)) != want:
        part.unlink()
        raise CheckpointError(f"{url}/{file}: expected the SHA-256 {want}, got {got}; not used")
    os.replace(part, target)
    return target


def _complete(address: str, part: Path) -> None:
    """Append what is missing; start anew if the server does not know how to go on."""
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(address, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            with part.open("ab" if answer.status == 206 else "wb") as file:
                shutil.copyfileobj(answer, file, _CHUNK)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is missing
            raise ConnectionError(f"could not read {address}: {error}") from error
    except OSError as error:
        raise ConnectionError(f"could not read {address}: {error}") from error


def _fetch(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return answer.read()
    except OSError as error:
        raise ConnectionError(f"could not read {address}: {error}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _cache() -> Path:
    if folder := os.environ.get("EQREG_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eqreg"


def _home() -> str | None:
    """Where a release keeps its weights; None before the project has been published."""
    try:
        about = metadata.metadata("eqreg")
    except metadata.PackageNotFoundError:
        return None
    urls = dict(entry.split(", ", 1) for entry in about.get_all("Project-URL") or [])
    home = urls.get("Homepage", "")
    if not home or "/OWNER/" in home:
        return None
    return f"{home}/releases/download/v{about['Version']}"
