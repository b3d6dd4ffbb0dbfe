"""A data set of CT slices with metal: planned, scanned slice by slice, and described.

Taught in: notebooks/14
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...extras import require
from ...files import read_json, write_whole
from ..ct import PNG_OFFSET
from .field import COARSEST, FINEST
from .layout import LAYOUTS, Case
from .manifest import MANIFEST, RECORD, check_cases, finish, picture, read_manifest
from .place import labels
from .protocol import Recipe
from .scan import WORK, Job, own_masks_count, prepare, refusal, run, scanned, unpacked
from .slices import Source, find_slices
from .workers import shared

_SHOWN = 6


@dataclass(frozen=True)
class Plan:
    """What is asked for, besides the protocol.

    Args:
        places: as for :func:`eqreg.data.metal.slices.find_slices`.
        masks: file of one's own masks, (side, side, K) of 0 and 1; None places implants.
        layout: "published" or "npz".
        test: share of the patients in the test split, from 0 to 1.
        seed: of all randomness.
        spacing: mm, for slices whose file does not say.
        offset, every: as for ``find_slices``.
    """

    places: tuple[str, ...]
    masks: Path | None = None
    layout: str = "published"
    test: float = 0.1
    seed: int = 0
    spacing: float | None = None
    offset: int = PNG_OFFSET
    every: int = 1

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(f"--layout: expected one of {', '.join(LAYOUTS)}, got {self.layout!r}")
        if not 0 <= self.test <= 1:
            raise ValueError(f"--split: expected a share of the test from 0 to 1, got {self.test}")
        if not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"--seed: expected a number of 64 bits, got {self.seed}")
        if self.spacing is not None and not FINEST <= self.spacing <= COARSEST:
            raise ValueError(
                f"--spacing: expected {FINEST:g} to {COARSEST:g} mm, got {self.spacing:g}"
            )


def make(
    plan: Plan,
    out: str | Path,
    recipe: Recipe,
    *,
    jobs: int = 1,
    report: Callable[[str], None] = print,
    progress: bool | None = None,
) -> dict[str, Any]:
    """Make a data set, or go on with one that was stopped.

    Every file is written whole, and a slice is done when its record is: what was finished stays whatever happens.
    The same plan, protocol and slices give the same bytes, with any number of jobs.

    Args:
        plan: what is asked for.
        out: folder of the data set; new, empty, or holding the begun one.
        recipe: the protocol.
        jobs: processes.
        report: gets a line for what the user should know.
        progress: show a bar; None shows it on a terminal.

    Returns:
        The content of ``manifest.json``.

    Raises:
        ValueError: another data set lies in ``out``, or no slice could be used.
        FileNotFoundError, OSError: no such slices; a file cannot be written. The message names it.
    """
    root = Path(out)
    if jobs < 1:
        raise ValueError(f"--jobs: expected at least 1, got {jobs}")
    sources, refused = find_slices(plan.places, offset=plan.offset, every=plan.every)
    todo = _jobs(plan, sources, recipe, report)
    key = _key(plan, recipe, todo)
    if (done := _claim(root, key)) is not None:
        report(f"{root} is finished: {len(done['cases'])} cases")
        return done
    tell_left_out(refused, report)
    if recipe.geometry.turns < 4:
        report(
            f"{recipe.geometry.views} views: this scanner is not exactly equivariant under quarter turns"
        )
    write_whole(root / "protocol.yaml", recipe.to_yaml().encode())
    left = [job for job in todo if not _record(root, job).is_file()]
    bar = require("tqdm", extra="tasks").tqdm(
        total=len(todo), initial=len(todo) - len(left), unit="slice",
        disable=None if progress is None else not progress,
    )  # fmt: skip
    with bar:
        for job, record in _work(left, recipe, root, plan, jobs):
            bar.update()
            if "refused" in record:
                report(f"left out {record['refused']}")
            for line in record.get("source", {}).get("told", ()):
                report(f"{job.source.name}: {line}")
    records = [_known(_record(root, job), recipe.geometry.size) for job in todo]
    about = {"key": key, "seed": plan.seed, "layout": plan.layout}
    return finish(root, about, recipe, records, refused)


def preview(
    plan: Plan, out: str | Path, recipe: Recipe, *, report: Callable[[str], None] = print
) -> Path:
    """Scan one case of each of the first slices and write only ``preview.png``.

    Raises:
        As :func:`make`.
    """
    sources, refused = find_slices(plan.places, offset=plan.offset, every=plan.every)
    tell_left_out(refused, report)
    scanner, rows = None, []
    for job in _jobs(plan, sources, recipe, report):
        try:
            prepared = prepare(job, recipe, plan.masks, plan.spacing)
        except ValueError as error:
            report(f"left out {refusal(job.source, error)}")
            continue
        for line in prepared.told:
            report(f"{job.source.name}: {line}")
        first = prepared._replace(implants=prepared.implants[:1], numbers=prepared.numbers[:1])
        scanner = scanner or recipe.scanner()  # not before there is a slice to scan
        clean, scans = scanned(first, scanner, job)
        mask = labels(first.implants[0])[1]
        gt = torch.from_numpy(clean["image"])
        sinograms = (scans.ma_sinogram[0], scans.li_sinogram[0])
        case = Case(gt, scans.ma[0], scans.li[0], mask, scans.trace[0], *sinograms, job.key)
        rows.append((job.source.name, case))
        if len(rows) == _SHOWN:
            break
    if not rows:
        raise ValueError("none of the slices could be used; the lines above say why")
    path = Path(out) / "preview.png"
    write_whole(path, picture(rows))
    return path


def tell_left_out(refused: Sequence[str], report: Callable[[str], None]) -> None:
    """A line for each reason, with the first file of it; the manifest has all of them."""
    by_reason: dict[str, list[str]] = {}
    for line in refused:
        path, _, reason = line.partition(": ")
        by_reason.setdefault(reason, []).append(path)
    for reason, paths in by_reason.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        report(f"left out {paths[0]}{more}: {reason}")


def _jobs(
    plan: Plan, sources: list[Source], recipe: Recipe, report: Callable[[str], None]
) -> list[Job]:
    """Splits by patients, in an order that the seed decides; cases are numbered through each split."""
    patients = sorted({s.patient for s in sources})
    order = torch.randperm(len(patients), generator=torch.Generator().manual_seed(plan.seed))
    count = round(plan.test * len(patients))
    if 0 < plan.test < 1:
        count = min(max(1, count), len(patients) - 1)
        if not count:
            report("all slices are of one patient: there is no test split")
    test = {patients[i] for i in order[:count].tolist()}
    if plan.masks is not None:
        own_masks_count(plan.masks, recipe.geometry.size)  # says what is wrong with them
    jobs, numbers = [], {"train": 0, "test": 0}
    for source in sources:
        split = "test" if source.patient in test else "train"
        jobs.append(Job(source, split, numbers[split], plan.seed))
        numbers[split] += recipe.metal.per_slice
    return jobs


def _key(plan: Plan, recipe: Recipe, jobs: Sequence[Job]) -> str:
    """Hash of all that decides the data set."""
    masks = None if plan.masks is None else hashlib.sha256(plan.masks.read_bytes()).hexdigest()
    what = {
        "plan": {**asdict(plan), "places": None, "masks": masks},
        "recipe": recipe.to_yaml(),
        "jobs": [
            (j.split, j.first, j.source.name, j.source.folder, j.source.spacing) for j in jobs
        ],
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _claim(root: Path, key: str) -> dict[str, Any] | None:
    """The manifest if the data set is finished; makes the folder its own if it is not.

    Raises:
        ValueError: something else lies there.
    """
    mark, manifest = root / WORK / "key", root / MANIFEST
    if manifest.is_file():
        content = read_manifest(root)
        if content["key"] == key:
            return content
    elif mark.is_file() and mark.read_bytes() == key.encode():
        return None
    elif not root.exists() or not any(root.iterdir()):
        write_whole(mark, key.encode())
        return None
    raise ValueError(
        f"{root} holds something else: another data set, protocol or seed; expected a new or empty folder, or the "
        "begun data set of the same command"
    )


def _work(
    jobs: Sequence[Job], recipe: Recipe, root: Path, plan: Plan, processes: int
) -> Iterator[tuple[Job, dict[str, Any]]]:
    how = (recipe, root, plan.layout, plan.masks, plan.spacing)
    if processes == 1 or len(jobs) < 2:
        for job in jobs:
            yield job, run(job, *how)
        return
    yield from shared(run, jobs, *how, processes=processes)


def _known(path: Path, size: int) -> dict[str, Any]:
    """What a slice left.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    record = read_json(path, "the record of a slice (remove it to scan that again)", RECORD)
    try:
        if "cases" in record:
            unpacked(record, size)
    except ValueError as error:
        raise ValueError(f"{path}: expected masks of {size} pixels a side: {error}") from error
    check_cases(path, record.get("cases", []))
    return record


def _record(root: Path, job: Job) -> Path:
    return root / WORK / f"{job.key}.json"
