"""One slice's share of a data set: read, put on the field, given metal, scanned, written.

Taught in: notebooks/14
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...checks import one_line
from ...files import write_whole
from ...physics.ct import Scanner, Simulation, hu_to_mu
from ...physics.ct.geometry import in_view
from ..syndeeplesion import read_masks
from .field import on_field
from .layout import Arrays, case_path, clean_path, write_case, write_clean
from .place import Implant, check_masks, labels, place
from .protocol import Recipe, parse_recipe
from .slices import Source

# From here on a slice holds metal, or the scanner saturated: there is no truth to compare with.
METAL_HU = 2500.0
WORK = ".work"


@dataclass(frozen=True)
class Job:
    """A slice of the data set.

    Args:
        source: where it is read.
        split: "train" or "test".
        first: number of its first case; with masks of one's own the number is that of the mask.
        seed: of the data set.
    """

    source: Source
    split: str
    first: int
    seed: int

    @property
    def key(self) -> str:
        """Name of the job in messages and files."""
        return f"{self.split}-{self.source.folder.replace('/', '-')}"

    def generator(self) -> torch.Generator:
        """Randomness that depends on the seed and the slice, not on what was done before."""
        text = f"{self.seed} {self.split} {self.source.folder} {self.source.name}"
        return torch.Generator().manual_seed(
            int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        )


class Prepared(NamedTuple):
    """A slice on the field, its implants for each scan, their numbers, and what is told of it."""

    hu: Tensor
    implants: list[list[Implant]]
    numbers: list[int]
    told: list[str]


def prepare(job: Job, recipe: Recipe, masks: Path | None, spacing: float | None) -> Prepared:
    """Read a slice and choose its implants.

    Args:
        job: which slice.
        recipe: the protocol.
        masks: file of one's own masks; None places implants.
        spacing: mm, for slices whose file does not say.

    Raises:
        ValueError: the slice cannot be used; the message names its file, what was found and what is expected.
    """
    source, g = job.source, job.generator()
    hu = source.read()
    if hu.max() >= METAL_HU:
        raise ValueError(
            f"found {float(hu.max()):g} HU, which is metal or saturation; expected below {METAL_HU:g} HU, so "
            "that the truth is known"
        )
    given = source.spacing or (None if spacing is None else (spacing, spacing))
    image, told = on_field(hu, given, recipe.geometry.size, recipe.field_mm)
    if masks is not None:
        own = _own_masks(masks, recipe.geometry.size)
        check_masks(own, image, str(masks))
        count = min(recipe.metal.per_slice, len(own))
        numbers = sorted(torch.randperm(len(own), generator=g)[:count].tolist())
        metal = recipe.metals[0] if recipe.metals else recipe.scan.metal
        chosen = [[Implant("own", metal, own[k])] for k in numbers]
        return Prepared(image, chosen, numbers, [*source.told, *told])
    view, kinds = in_view(recipe.geometry), recipe.metal.implants
    # A field of the whole slice has no size in mm; implants are drawn as on the usual one.
    width = recipe.field_mm or Recipe.field_mm or 0.0
    chosen = []
    start = int(torch.randint(len(kinds), (1,), generator=g))
    for j in range(recipe.metal.per_slice):
        order = [kinds[(start + j + i) % len(kinds)] for i in range(len(kinds))]
        tries = (
            place(kind, image, width, materials=recipe.metals, view=view, generator=g)
            for kind in order
        )
        found = next((implants for implants in tries if implants), None)
        if found is None:
            raise ValueError(
                f"found no place for any of {', '.join(kinds)}; expected a body with bone or soft tissue there"
            )
        chosen.append(found)
    return Prepared(
        image, chosen, [job.first + j for j in range(len(chosen))], [*source.told, *told]
    )


def scanned(prepared: Prepared, scanner: Scanner, job: Job) -> tuple[Arrays, Simulation]:
    """The clean slice's arrays, and its scans with metal."""
    g = job.generator()
    g.manual_seed(g.initial_seed() ^ 1)  # implants and photons are drawn apart
    mu = hu_to_mu(prepared.hu)
    implants = [labels(i)[0] for i in prepared.implants]
    image, sinogram, scans = scanner.scan_all(mu, implants, generator=g)
    clean = {"image": mu, "poly_CT": image, "poly_sinogram": sinogram}
    return {name: _array(t) for name, t in clean.items()}, scans


def run(
    job: Job, recipe: Recipe, root: Path, layout: str, masks: Path | None, spacing: float | None
) -> dict[str, Any]:
    """Do a job and write its files, each of them whole; the last one says that the job is done.

    Returns:
        The record of the job: ``cases`` and ``told``, or ``refused`` with the reason.

    Raises:
        OSError: a file cannot be written; the message names it.
    """
    try:
        prepared = prepare(job, recipe, masks, spacing)
        clean, scans = scanned(prepared, _scanner(recipe.to_yaml()), job)
    except ValueError as error:
        record: dict[str, Any] = {"refused": refusal(job.source, error)}
        write_whole(root / WORK / f"{job.key}.json", json.dumps(record).encode())
        return record
    folder, cases = job.source.folder, []
    about: dict[str, Any] = {"split": job.split, "slice": folder}
    if layout == "published":
        about["clean"] = clean_path(job.split, folder)
        about["clean_sha256"] = write_clean(root, about["clean"], clean)
    for j, number in enumerate(prepared.numbers):
        implants = prepared.implants[j]
        mask = labels(implants)[1]
        where = case_path(layout, job.split, folder, number)
        materials = list(dict.fromkeys(i.material for i in implants))
        which = np.zeros(mask.shape, np.uint8)
        for i in implants:
            which[i.mask.numpy()] = materials.index(i.material) + 1
        arrays = {
            "ma_CT": scans.ma[j], "LI_CT": scans.li[j], "ma_sinogram": scans.ma_sinogram[j],
            "LI_sinogram": scans.li_sinogram[j], "metal_trace": scans.trace[j], "mask": mask,
        }  # fmt: skip
        scan = {name: _array(t) for name, t in arrays.items()} | {"labels": which}
        cases.append(
            {
                **about, "file": where, "number": number, "area": int(mask.sum()), "materials": materials,
                "implants": [{"kind": i.kind, "material": i.material, "area": int(i.mask.sum())} for i in implants],
                "sha256": write_case(root, layout, where, clean, scan),
            }
        )  # fmt: skip
    packed = np.packbits(torch.stack([labels(i)[1] for i in prepared.implants]).numpy(), axis=-1)
    record = {
        "source": {
            "name": job.source.name, "sha256": _sha(job.source.path) if job.source.kind != "phantom" else None,
            "spacing": job.source.spacing, "told": prepared.told,
        },
        "masks": packed.tobytes().hex(), "cases": cases,
    }  # fmt: skip
    write_whole(root / WORK / f"{job.key}.json", json.dumps(record).encode())
    return record


def own_masks_count(path: Path, size: int) -> int:
    """How many masks a file holds.

    Raises:
        FileNotFoundError, ValueError: no such file, or no masks in it.
    """
    return len(_own_masks(path, size))


def unpacked(record: dict[str, Any], size: int) -> np.ndarray[Any, Any]:
    """(cases, size, size) uint8 masks of a record."""
    packed = np.frombuffer(bytes.fromhex(record["masks"]), np.uint8)
    rows = packed.reshape(len(record["cases"]), size, (size + 7) // 8)
    return np.unpackbits(rows, axis=-1)[..., :size]


def refusal(source: Source, error: ValueError) -> str:
    """The file, what was found, what is expected; the file once."""
    line = one_line(error)
    for said in ("read_ct: ", f"could not read {source.path}: ", f" in {source.path}"):
        line = line.replace(said, "")
    path = source.name if source.name.startswith(("phantom ", "pydicom's ")) else source.path
    return f"{path}: {line}"


@lru_cache(maxsize=1)
def _scanner(text: str) -> Scanner:
    """The process's own scanner of a protocol."""
    return parse_recipe(text).scanner()


@lru_cache(maxsize=1)
def _own_masks(path: Path, size: int) -> Tensor:
    return read_masks(path, size)


@lru_cache(maxsize=1)
def _sha(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _array(t: Tensor) -> np.ndarray[Any, Any]:
    return t.numpy().astype(np.uint8) if t.dtype == torch.bool else t.numpy()
