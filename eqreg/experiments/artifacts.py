"""Results of long runs that pages show beside what they train themselves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..files import read_json
from ..tasks import get_task
from ..training.checkpoint import CheckpointError, load_weights, write_whole

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries the files inside the package, a checkout has them at its root.
_PLACES = (_PACKAGE / "_artifacts", _PACKAGE.parent / "artifacts")
_STAMP = ("device", "date", "version", "seeds", "hours")


def load_artifact(name: str, *otherwise: str) -> dict[str, Any]:
    """Read ``artifacts/<name>.json``.

    Args:
        name: without folder and ending, for example ``"rain-full"``.
        otherwise: names to take, in this order, where it does not exist, such as ``"rain-cpu"``.

    Returns:
        The content. Its ``"stamp"`` says where the numbers come from: device, date, code version,
        seeds and hours.

    Raises:
        FileNotFoundError: there is no such file; the message names the places looked at.
        ValueError: the file is not JSON or its stamp is incomplete.

    >>> sorted(load_artifact("rain13")["stamp"])
    ['date', 'device', 'hours', 'seeds', 'version']
    """
    names = (name, *otherwise)
    paths = [place / f"{n}.json" for n in names for place in _PLACES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"load_artifact: expected {' or '.join(n + '.json' for n in names)} at "
            f"{' or '.join(map(str, paths))}, found none"
        )
    content = read_json(path, "load_artifact: stored results", {"stamp": dict})
    missing = [key for key in _STAMP if key not in content["stamp"]]
    if missing:
        raise ValueError(f"load_artifact: the stamp in {path} lacks {', '.join(missing)}")
    return content


def keep(content: dict[str, Any], out: Path, folder: Path) -> list[str]:
    """Store a table as ``<task>-<preset>.json`` and the first seed's weights below ``weights/<task>``.

    The table of a varied preset is ``<task>-<preset>-<axis>.json``. Of varied presets and of those that say
    ``study`` no weights are kept: below ``weights/<task>`` lie the networks that the task is known for.

    Args:
        content: of :func:`eqreg.experiments.comparison.collect`, or of
            :func:`eqreg.experiments.variation.collect`.
        out: folder of the runs.
        folder: ``artifacts`` of a checkout.

    Returns:
        The names of the files.

    Raises:
        FileNotFoundError, CheckpointError: a network of the table is not there, is damaged, or is that of
            another run; nothing is stored then.
    """
    task, preset = content["settings"]["task"], content["settings"]["preset"]
    axis = content["settings"].get("axis")
    name = f"{task}-{preset}{f'-{axis}' if axis else ''}.json"
    alone = axis or get_task(task).preset(preset).study
    networks = {} if alone else _networks(out / task / preset, content["rows"])
    write_whole(folder / name, _written(content).encode())
    written = [name]
    if alone:
        return written
    for method, bytes_ in networks.items():
        name = f"weights/{task}/{method}.safetensors"
        write_whole(folder / name, bytes_)
        written.append(name)
    index = {
        str(path.relative_to(folder / "weights")): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size
        }
        for path in sorted((folder / "weights").glob("*/*.safetensors"))
    }  # fmt: skip
    write_whole(folder / "weights" / "index.json", (json.dumps(index, indent=1) + "\n").encode())
    return written


def _written(content: dict[str, Any]) -> str:
    """As JSON, with lists of numbers on one line: a changed run is a changed line, and files are a third smaller."""
    text = json.dumps(content, indent=1)
    return re.sub(r"\[\n[^\[\]{}\"]*\]", lambda m: re.sub(r"\s+", " ", m[0]), text) + "\n"


def _networks(base: Path, rows: dict[str, Any]) -> dict[str, bytes]:
    """The weight files of the first seeds, by method; whole, and of the runs that the rows show."""
    found = {}
    for method, row in rows.items():
        path = base / method / f"seed-{row['seeds'][0]}" / "weights.safetensors"
        if not path.is_file():
            raise FileNotFoundError(f"keep: expected trained weights at {path}, found no file")
        run = load_weights(path)[1].get("run", {})
        want = {
            "method": method,
            "seed": row["seeds"][0],
            "lr": row["lr"],
            "strength": row["strength"],
        }
        if wrong := [f"{k} {run.get(k)!r}, not {v!r}" for k, v in want.items() if run.get(k) != v]:
            raise CheckpointError(f"keep: {path} belongs to a run with {', '.join(wrong)}")
        found[method] = path.read_bytes()
    return found
