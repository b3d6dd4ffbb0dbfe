"""What is known of a whole data set: its manifest, masks, lists, README and contact sheet.

Taught in: notebooks/14
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...checks import one_line
from ...files import write_whole
from .about import readme
from .layout import Case, read_case
from .protocol import Recipe
from .scan import WORK, unpacked
from .sheet import Tiles, grey, marked, sheet

MANIFEST = "manifest.json"
_FORMAT = "eqreg ct data set 1"
# What is read of each case.
_FIELDS = {"split": str, "slice": str, "file": str, "number": int, "area": int}
_MASKS_NDIM = 3
# What is read of what a slice left.
_CASE = {
    **_FIELDS, "materials": [str], "implants": [{"kind": str}], "sha256": str, "clean?": str,
}  # fmt: skip
RECORD = (
    {
        "source": {"name": str, "sha256": (str, type(None)), "spacing": (list, type(None)), "told": [str]},
        "masks": str, "cases": [_CASE],
    },
    {"refused": str},
)  # fmt: skip
_SHOWN = 6


def finish(
    root: Path,
    about: dict[str, Any],
    recipe: Recipe,
    records: Sequence[dict[str, Any]],
    refused: list[str],
) -> dict[str, Any]:
    """Write masks, lists, README, contact sheet and, last, the manifest.

    Args:
        root: of the data set.
        about: ``key``, ``seed`` and ``layout``.
        recipe: the protocol.
        records: of all slices.
        refused: lines of files that were left out before.

    Raises:
        ValueError: no slice could be used.
        OSError: a file cannot be written.
    """
    good = [r for r in records if "cases" in r]
    bad = [r["refused"] for r in records if "refused" in r]
    if not good:
        shutil.rmtree(root / WORK)
        raise ValueError(f"none of the slices could be used; the first: {bad[0]}")
    size = recipe.geometry.size
    listed = [{**case, "source": r["source"]["name"]} for r in good for case in r["cases"]]
    for split in sorted({c["split"] for c in listed}) if about["layout"] == "published" else ():
        numbers = [c["number"] for c in listed if c["split"] == split]
        masks = np.zeros((size, size, max(numbers) + 1), np.uint8)
        for r in good:
            for case, mask in zip(r["cases"], unpacked(r, size), strict=True):
                if case["split"] == split:
                    masks[..., case["number"]] = mask
        buffer = io.BytesIO()
        np.save(buffer, masks)
        write_whole(root / f"{split}mask.npy", buffer.getvalue())
        folders = dict.fromkeys(c["slice"] for c in listed if c["split"] == split)
        lines = "".join(f"{folder}/gt.h5\n" for folder in folders)
        write_whole(root / split / f"{split}_640geo_dir.txt", lines.encode())
    content = {
        "format": _FORMAT, "eqreg": _version(), **about, "protocol": "protocol.yaml",
        "protocol_sha256": hashlib.sha256(recipe.to_yaml().encode()).hexdigest(),
        "exact_turns": recipe.geometry.turns, "sources": [r["source"] for r in good],
        "left_out": refused + bad, "cases": listed,
    }  # fmt: skip
    write_whole(root / "README.md", readme(content, recipe).encode())
    step = max(1, len(listed) // _SHOWN)
    write_whole(root / "contact_sheet.png", picture(_shown(root, listed[::step][:_SHOWN])))
    write_whole(root / MANIFEST, (json.dumps(content, indent=1) + "\n").encode())
    shutil.rmtree(root / WORK)
    return content


def read_manifest(root: str | Path) -> dict[str, Any]:
    """What is known of a finished data set.

    Raises:
        FileNotFoundError: none is there, or it is not finished.
        ValueError: the file is damaged or of another version.
    """
    path = Path(root) / MANIFEST
    if not path.is_file():
        begun = " that is finished" if (Path(root) / WORK).is_dir() else ""
        raise FileNotFoundError(
            f"expected a data set of `eqreg ct simulate`{begun}, found no {path}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: could not be read: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != _FORMAT:
        raise ValueError(f"{path}: expected the format {_FORMAT!r}, found {found!r}")
    if not isinstance(content.get("key"), str):
        raise ValueError(f"{path}: expected key (str), found {content.get('key')!r}")
    check_cases(path, content.get("cases"))
    return content


def check_cases(path: Path, found: Any) -> None:
    """Refuse what no record of a case can be; paths stay below the data set's folder.

    Raises:
        ValueError: the message names the file and the first bad record.
    """
    if not isinstance(found, list):
        raise ValueError(f"{path}: expected a list of cases, found {type(found).__name__}")
    for i, record in enumerate(found):
        for key, kind in _FIELDS.items():
            value = record.get(key) if isinstance(record, dict) else None
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(
                    f"{path}: expected {key} ({kind.__name__}) of case {i}, found {value!r}"
                )
        if not record["file"].endswith(".npz") and not isinstance(record.get("clean"), str):
            raise ValueError(
                f"{path}: expected clean (str) of case {i}, found {record.get('clean')!r}"
            )
        for key in ("split", "slice", "file", "clean"):
            parts = PurePosixPath(record.get(key, "")).parts
            if ".." in parts or "/" in parts:
                raise ValueError(
                    f"{path}: expected {key} of case {i} inside the folder, found {record[key]!r}"
                )


def read_split_masks(root: Path, split: str) -> np.ndarray[Any, Any] | None:
    """(H, W, K) of a split in the published layout; None in the other.

    Raises:
        ValueError: the file is damaged.
    """
    path = root / f"{split}mask.npy"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
    except Exception as error:  # decoders of damaged files raise what they like
        raise ValueError(f"{path}: could not be read: {one_line(error)}") from error
    if not isinstance(found, np.ndarray) or found.ndim != _MASKS_NDIM:
        raise ValueError(f"{path}: expected an array (H, W, masks), found {np.shape(found)}")
    return found


def cases(
    root: Path, manifest: dict[str, Any], split: str
) -> Iterator[tuple[dict[str, Any], Case]]:
    """The records and cases of a split, one after the other."""
    masks = read_split_masks(root, split)
    for record in manifest["cases"]:
        if record["split"] == split:
            yield record, read_case(root, record, masks)


def picture(rows: Sequence[tuple[str, Case]]) -> bytes:
    """A contact sheet of cases with their titles, as PNG."""
    return sheet(
        ("without metal", "metal", "scanned", "after LI"),
        [
            Tiles(title, (grey(c.gt), marked(c.gt, c.mask), grey(c.ma), grey(c.li)))
            for title, c in rows
        ],
    )


def _shown(root: Path, records: Sequence[dict[str, Any]]) -> list[tuple[str, Case]]:
    return [
        (
            f"{r['source']}: {', '.join(r['materials'])}",
            read_case(root, r, read_split_masks(root, r["split"])),
        )
        for r in records
    ]


def _version() -> str:
    try:
        return metadata.version("eqreg")
    except metadata.PackageNotFoundError:  # run from a folder of sources
        return "unreleased"
