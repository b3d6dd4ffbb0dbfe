"""Who is scanned for the task ``mar``: which slices, with which implants, in which scanner."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..data import turn
from ..data.crops import fingerprint
from ..data.ct import AIR, CTFolder, read_ct, resize_ct
from ..data.phantoms import REGIONS, phantom
from ..data.syndeeplesion import SynDeepLesion, read_masks
from ..physics.ct import Scanner, implants, small_fan
from ._metal import Cases, judge, kept, simulate, together

SEEN_REGIONS = ("thorax", "abdomen", "pelvis")
PUBLISHED_SIZE = 416
# Sets of cases that nothing in the training resembles, by what makes them strange.
ELSEWHERE = {
    "phantoms": ("regions", "iron", "rotated45"),
    "ct100": ("regions", "scans", "iron", "rotated45", "published"),
}
_NUMBERS = {"train": 1, "val": 2, "test": 3, "regions": 4, "scans": 5, "iron": 3, "rotated45": 3}
_ANGLE = 45.0
# Published test masks of 254 and 890 pixels: one medium, one large.
_TWO = (0, 1)
_SMALL_VIEWS = 80
# Beyond this a slice holds metal or saturated: no truth to compare with.
_METAL_HU = 2500.0
_TISSUE_HU = -500.0
_RARE = 16


@cache
def cases(
    name: str, data: str, size: int, slices: int, per_slice: int, root: str | Path | None
) -> Cases:
    """A set of cases by name, simulated the first time it is asked for.

    Args:
        name: "train", "val", "test", or one of ``ELSEWHERE``.
        data: "phantoms" or "ct100".
        size: pixels per side.
        slices, per_slice: training slices, and implants in each.
        root: folder of published data; only "ct100" needs one.

    Raises:
        FileNotFoundError, ValueError: the data are not there, or are something else.
    """
    folder = None if data == "phantoms" else data_folder(root)
    if name == "published" and folder is not None:
        return published(folder)
    if folder is None or name == "regions":
        patients = _phantoms(name, data, size, slices)
    elif name == "scans":
        patients = others(folder, size)
    else:
        split = "test" if name in ("iron", "rotated45") else name
        patients = chests(folder, size, split)
        if split == "train":
            if len(patients) < slices:
                raise ValueError(
                    f"mar: asked for {slices} training slices, {folder} has {len(patients)}: set the size "
                    "slices to at most that"
                )
            patients = patients[:slices]
    number = _NUMBERS[name]
    if folder is None or name in ("train", "val"):
        count = per_slice if name == "train" else 2
        metal = [drawn(count, hu, 1000 * number + i) for i, hu in enumerate(patients)]
    else:
        masks = read_masks(folder / "SynDeepLesion" / "testmask.npz", size)
        metal = [masks if name == "test" else masks[list(_TWO)]] * len(patients)
    if name == "rotated45":
        patients = [turned(hu - AIR, _ANGLE) + AIR for hu in patients]
        metal = [torch.stack([turned(m.float(), _ANGLE) > 0.5 for m in ms]) for ms in metal]

    def build() -> Cases:
        scanner = _scanner(size)
        if name == "iron":
            scanner = scanner.variant(metal="iron")
        return simulate(patients, metal, scanner, seed=number, baselines=name != "train")

    key = fingerprint(torch.stack(patients), *metal)
    return kept(f"{name} {data} {size} {key}", build)


@cache
def _scanner(size: int) -> Scanner:
    if size == PUBLISHED_SIZE:
        return Scanner.preset("syndeeplesion")
    return Scanner(small_fan(size, views=_SMALL_VIEWS))


def data_folder(root: str | Path | None) -> Path:
    """The folder of published data sets.

    Raises:
        FileNotFoundError: neither ``root`` nor EQREG_DATA names one.
    """
    root = root or os.environ.get("EQREG_DATA")
    if not root:
        raise FileNotFoundError(
            "mar: this preset trains on published slices; give --data, or set EQREG_DATA to the folder "
            "that holds CT100 and SynDeepLesion. The preset quick needs none"
        )
    return Path(root)


def chests(root: Path, size: int, split: str) -> list[Tensor]:
    """Chest slices of CT100 without metal, (size, size) in HU; no patient is in two splits.

    The files name ages and no patients, so all slices of one age stay together. Ages with the fewest slices
    are held out: eight for "test", four for "val", one slice of each.

    Raises:
        FileNotFoundError: no folder, or no slice in it.
        ValueError: a file without an age in its name, or too few ages.
    """
    folder = CTFolder(root / "CT100")
    by_age: dict[int, list[Tensor]] = {}
    for path, hu in zip(folder.paths, folder, strict=True):
        age = re.search(r"AGE_(\d+)", path.name)
        if age is None:
            raise ValueError(f"mar: expected names with AGE_NNNN in {folder.root}, got {path.name}")
        if hu.max() < _METAL_HU:
            by_age.setdefault(int(age[1]), []).append(hu)
    order = sorted(by_age, key=lambda a: (len(by_age[a]), a))
    if len(order) <= _RARE:
        raise ValueError(
            f"mar: expected patients of more than {_RARE} ages in {folder.root}, got {len(order)}"
        )
    # Of every four ages in a row two are for the test, and one for the choice of the settings.
    held = {"test": order[:_RARE:2], "val": order[1:_RARE:4]}
    if split in held:
        chosen = [by_age[age][0] for age in held[split]]
    else:
        out = {age for ages in held.values() for age in ages}
        chosen = [hu for age in sorted(by_age) if age not in out for hu in by_age[age]]
    return [_resized(hu, size) for hu in chosen]


def others(root: Path, size: int) -> list[Tensor]:
    """The slices without metal of ``ct_slices_256``, which come from two other sources.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted((root / "ct_slices_256").rglob("without_art/*.npy"))
    if not paths:
        raise FileNotFoundError(
            f"mar: expected without_art/*.npy in {root / 'ct_slices_256'}, found none"
        )
    return [_resized(read_ct(path), size) for path in paths]


def published(root: Path) -> Cases:
    """The published scans that are there; they have no NMAR image.

    Raises:
        FileNotFoundError: there are none.
    """
    parts = []
    for name, split in (
        ("SynDeepLesion", "train"),
        ("SynDeepLesion_full_h5", "train"),
        ("SynDeepLesion_full_h5", "test"),
    ):
        if (root / name / split).is_dir():
            parts += [
                Cases(c.gt[None], c.ma[None], c.li[None], c.mask[None], {})
                for c in SynDeepLesion(root / name, split)
            ]
    if not parts:
        raise FileNotFoundError(f"mar: expected SynDeepLesion in {root}, found none")
    found = together(parts)
    known = judge({"input": found.ma, "li": found.li}, found.gt, found.metal)
    return found._replace(known=known)


def drawn(n: int, hu: Tensor, seed: int) -> Tensor:
    """``n`` procedural implants inside the outline of a slice, (n, H, W) bool."""
    g = torch.Generator().manual_seed(seed)
    return implants(n, hu.shape[-1], body=outline(hu), generator=g)


def outline(hu: Tensor) -> Tensor:
    """Pixels with tissue on all four sides: the body, lungs included; bool like ``hu``."""
    tissue = (hu > _TISSUE_HU).int()
    inside = torch.ones_like(hu, dtype=torch.bool)
    for dim in (-2, -1):
        before = tissue.cummax(dim).values
        after = tissue.flip(dim).cummax(dim).values.flip(dim)
        inside &= (before & after).bool()
    return inside


def turned(image: Tensor, degrees: float) -> Tensor:
    """An image (H, W) turned about its centre, zero around."""
    return turn(image[None, None], degrees)[0, 0].clamp(min=0)


def _phantoms(name: str, data: str, size: int, slices: int) -> list[Tensor]:
    regions: Sequence[str] = SEEN_REGIONS
    if name == "train":
        regions = [SEEN_REGIONS[i % len(SEEN_REGIONS)] for i in range(slices)]
    elif name == "regions":
        regions = REGIONS if data == "ct100" else ["head"]
    g = torch.Generator().manual_seed(_NUMBERS[name])
    return [phantom(region, size, generator=g) for region in regions]


def _resized(hu: Tensor, size: int) -> Tensor:
    # Rounding in the reduction may leave air a little below -1000.
    return resize_ct(hu, size).clamp(min=AIR)
