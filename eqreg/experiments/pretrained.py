"""Trained networks in one line: ``model = load_pretrained("rain/eqreg")``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..training.checkpoint import CheckpointError, load_weights
from .downloads import LARGEST_INDEX, download, index_of, sha256

_PACKAGE = Path(__file__).resolve().parents[1]
# As for results: a wheel carries the files inside the package, a checkout at its root.
_PLACES = (_PACKAGE / "_artifacts" / "weights", _PACKAGE.parent / "artifacts" / "weights")
# What may be built for a file: a strict network is made from a plain one, of a width that is searched for.
_BUILT_TIMES, _BUILT_MORE, _LEAST = 50, 20_000_000, 10_000
_LARGEST_SIZE = 1_000_000


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
            if its SHA-256 is the one in the index. So is a file with an ``index.json`` beside its folder.
        device: of the network.

    Returns:
        The network. ``model.about`` tells what it was trained on, when, on what device, and its metrics.

    Raises:
        FileNotFoundError: no weights of this name; the message lists where they were looked for.
        CheckpointError: the file is damaged, was written for another version, or does not fit the
            network that this version builds.
        ConnectionError: the download failed; what arrived is kept.
        OSError: the cache cannot be written to.

    No file is ever unpickled.

    >>> load_pretrained("rain/eqreg").about["run"]["method"]
    'eqreg'

    Taught in: notebooks/13.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        path = _find(str(name), url)
    _check(path)
    tensors, about = load_weights(path)
    from .runs import Run, prepared

    run, stamp = (_dict(about.get(key)) for key in ("run", "stamp"))
    try:
        known = {k: v for k, v in run.items() if k in Run.__dataclass_fields__}
        if large := [k for k, v in _dict(run.get("sizes")).items() if _number(v) > _LARGEST_SIZE]:
            raise ValueError(f"expected sizes up to {_LARGEST_SIZE}, found {large[0]}")
        # Every weight is replaced; what was drawn for it shall not be missing in the caller's stream.
        with torch.random.fork_rng(devices=[]), _bounded(sum(t.numel() for t in tensors.values())):
            model = prepared(Run(**known), run.get("sizes"))[2]
        model.load_state_dict(tensors)
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
    ) as error:
        raise CheckpointError(
            f"{path} was written by {stamp.get('version')} and does not fit the network that this version "
            f"builds: {error!r}"
        ) from error
    model.about = about  # type: ignore[assignment]
    return model.eval().to(device)


@contextlib.contextmanager
def _bounded(numbers: int) -> Iterator[None]:
    """Refuse to build a network of far more numbers than its file has: the sizes in a header can be anything.

    Raises:
        ValueError: inside, before the weights that are too many are drawn.
    """
    left = _BUILT_TIMES * numbers + _BUILT_MORE

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= max(parameter.numel(), _LEAST) if parameter is not None else 0
        if left < 0:
            raise ValueError(
                f"expected the sizes of a network of {numbers} numbers, found those of a far larger one"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


def _check(path: Path) -> None:
    """Compare a file with the index beside its folder, if there is one that lists it.

    Raises:
        CheckpointError: the index has another SHA-256, or is none.
    """
    place = path.parents[1] / "index.json" if len(path.parents) > 1 else Path("index.json")
    name = f"{path.parent.name}/{path.name}"
    if not place.is_file() or not path.is_file():
        return
    with place.open("rb") as file:
        content = file.read(LARGEST_INDEX + 1)
    want, _ = index_of(str(place), content).get(name, (None, 0))
    if want is not None and (got := sha256(path)) != want:
        raise CheckpointError(f"{path}: {place} has the SHA-256 {want}, the file has {got}")


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
