"""CT slices from whatever folders hold: DICOM of any ending, NIfTI, 16-bit PNG, NumPy.

Each slice is a small record that can be read when its turn comes, in this process or in another. What is no CT
slice is told in a line that names the file, and the others are still read.

Taught in: notebooks/14
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import one_line
from ...extras import require
from ..ct import PNG_OFFSET, check_hu, read_ct
from ..dicom import header, is_dicom, read_frame
from ..phantoms import REGIONS, phantom

# What the image of a phantom shows, and its pixels per side.
_PHANTOM_MM, _PHANTOM_SIZE = 400.0, 416
_MOST_DIGITS = 5
_NIFTI = (".nii", ".nii.gz")
# Inside pydicom's wheel: lossless, and readable with Pillow alone.
_BUNDLED = ("J2K_pixelrep_mismatch.dcm", "CT_small.dcm")


@dataclass(frozen=True)
class Source:
    """A slice and where it is read.

    Args:
        kind: "dicom", "nifti", "file" (PNG or NumPy) or "phantom".
        name: said in messages and in the manifest: the path below the given folder, and the frame.
        path: the file; for a phantom its number.
        frame: in the file.
        patient: whose slice it is, numbered from 1; no name of a patient leaves its file.
        series: of that patient, numbered from 1.
        number: of the slice in its series, numbered from 0.
        spacing: mm between rows and between columns, None if the file does not say.
        offset: HU = value - offset in PNG files.
        told: what the user should know of it.
    """

    kind: str
    name: str
    path: str
    frame: int = 0
    patient: int = 0
    series: int = 0
    number: int = 0
    spacing: tuple[float, float] | None = None
    offset: int = PNG_OFFSET
    told: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """``<patient>/<slice>``, as published: patient, study and series, then the slice."""
        return f"{self.patient:06d}_01_{self.series:02d}/{self.number:03d}"

    def read(self) -> Tensor:
        """The slice, (H, W) float32 in HU, at least -1000.

        Raises:
            ValueError: it cannot be decoded, or holds no CT numbers; the message names the file.
        """
        if self.kind == "phantom":
            index = int(self.path)
            g = torch.Generator().manual_seed(index)
            return phantom(REGIONS[index % len(REGIONS)], _PHANTOM_SIZE, generator=g)
        if self.kind == "file":
            return read_ct(self.path, offset=self.offset)
        try:
            read = read_frame if self.kind == "dicom" else _read_nifti
            hu = read(Path(self.path), self.frame)
        except ImportError:
            raise
        except Exception as error:  # decoders of damaged files raise what they like
            raise ValueError(f"could not read {self.path}: {_line(error)}") from error
        return torch.from_numpy(check_hu(hu, self.path))


@dataclass(frozen=True)
class _Found:
    """A source with what tells patients and series apart, and its place in the series."""

    source: Source
    patient: str
    series: str
    place: float = 0.0


def find_slices(
    places: Sequence[str], *, offset: int = PNG_OFFSET, every: int = 1
) -> tuple[list[Source], list[str]]:
    """All CT slices of files, folders, ``"pydicom"`` and ``"phantoms:N"``.

    ``"pydicom"`` are the two slices inside its wheel, ``"phantoms:N"`` N drawn ones, each of another patient. A
    DICOM file says whose it is and to which series it belongs. A NIfTI volume is a patient. So is the folder that a
    PNG or NumPy file lies in, unless it is the given folder: then the file is one.

    Args:
        places: where to look.
        offset: HU = value - offset in PNG files.
        every: of each series, take every n-th slice.

    Returns:
        The slices, always in the same order, and a line for each file that was left out.

    Raises:
        FileNotFoundError: no such file or folder.
        ValueError: no CT slice is there, or ``every`` is below 1; the message says what was found.
        ImportError: a NIfTI file without nibabel (``pip install "eqreg[ct]"``).
    """
    if every < 1:
        raise ValueError(f"every: expected a whole number of at least 1, got {every}")
    found: list[_Found] = []
    refused: list[str] = []
    for place in places:
        if place == "pydicom":
            home = Path(str(require("pydicom", extra="tasks").__file__)).parent
            for name in _BUNDLED:
                found += _dicom(home / "data" / "test_files" / name, f"pydicom's {name}")
        elif place.partition(":")[0] == "phantoms":
            found += _phantoms(place)
        else:
            for path, name, group in _files(Path(place)):
                try:
                    found += _slices(path, name, group, offset)
                except ImportError:
                    raise
                except Exception as error:  # decoders of damaged files raise what they like
                    refused.append(f"{path}: {_line(error)}")
    if not found:
        why = "; ".join(refused[:3]) or "no DICOM, .nii, .nii.gz, .png or .npy file"
        raise ValueError(f"expected CT slices in {', '.join(places)}, found none: {why}")
    return [source for source in _numbered(found) if source.number % every == 0], refused


def _numbered(found: list[_Found]) -> list[Source]:
    patients: dict[str, dict[str, list[_Found]]] = {}
    for f in found:
        patients.setdefault(f.patient, {}).setdefault(f.series, []).append(f)
    return [
        replace(f.source, patient=p, series=s, number=k)
        for p, of in enumerate(patients.values(), 1)
        for s, slices in enumerate(of.values(), 1)
        for k, f in enumerate(sorted(slices, key=lambda f: (f.place, f.source.frame)))
    ]


def _files(place: Path) -> Iterator[tuple[Path, str, str]]:
    """Files to try, their names for people, and the folder that groups them ("" for none)."""
    if place.is_file():
        yield place, place.name, ""
        return
    if not place.is_dir():
        raise FileNotFoundError(f"expected CT slices at {place}, found no file or folder")
    dicom = []
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        name = path.relative_to(place).as_posix()
        if path.suffix.lower() in (".dcm", ".ima") or (not _known(path) and is_dicom(path)):
            dicom.append((path, name, ""))
        elif _known(path):
            yield path, name, str(path.parent) if path.parent != place else ""
    yield from dicom


def _known(path: Path) -> bool:
    return path.name.lower().endswith((*_NIFTI, ".png", ".npy"))


def _slices(path: Path, name: str, group: str, offset: int) -> list[_Found]:
    low = path.name.lower()
    if low.endswith(_NIFTI):
        return _nifti(path, name)
    if low.endswith((".png", ".npy")):
        whose = group or str(path)
        return [_Found(Source("file", name, str(path), offset=offset), whose, whose)]
    return _dicom(path, name)


def _dicom(path: Path, name: str) -> list[_Found]:
    about = header(path)
    if about is None:
        return []
    told = ("its CT numbers were changed by lossy compression",) if about.lossy else ()
    frames = [
        Source(
            "dicom", name if about.frames == 1 else f"{name}, frame {k}", str(path), k,
            spacing=about.spacing, told=told,
        )
        for k in range(about.frames)
    ]  # fmt: skip
    return [_Found(source, about.patient, about.series, about.place) for source in frames]


def _nifti(path: Path, name: str) -> list[_Found]:
    image = require("nibabel", extra="ct").load(path)
    shape = image.shape
    if len(shape) not in (2, 3) and not (len(shape) == 4 and shape[3] == 1):
        raise ValueError(f"expected a volume (X, Y, slices), got shape {shape}")
    if str(image.get_data_dtype()) not in _NUMBERS:
        raise ValueError(f"expected CT numbers, got pixels of type {image.get_data_dtype()}")
    canonical = require("nibabel", extra="ct").as_closest_canonical(image)
    x, y = (float(z) for z in canonical.header.get_zooms()[:2])
    count = canonical.shape[2] if len(shape) > 2 else 1
    return [
        _Found(
            Source("nifti", f"{name}, slice {k}", str(path), k, spacing=(y, x)),
            str(path), str(path),
        )
        for k in range(count)
    ]  # fmt: skip


_NUMBERS = ("int16", "uint16", "int32", "float32", "float64")


def _read_nifti(path: Path, frame: int) -> np.ndarray[Any, Any]:
    """Slice as DICOM shows it: rows go back, columns go to the patient's left."""
    # The volume's axes go to the right, to the front and up.
    return np.ascontiguousarray(_volume(str(path))[::-1, ::-1, frame].T)


@lru_cache(maxsize=1)
def _volume(path: str) -> np.ndarray[Any, Any]:
    nibabel = require("nibabel", extra="ct")
    data = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata(dtype=np.float32)
    return data.reshape(*data.shape[:2], -1)


def _phantoms(place: str) -> list[_Found]:
    count = place.partition(":")[2]
    # Digits first: int() of very many of them is slow.
    if not count.isdecimal() or len(count) > _MOST_DIGITS or int(count) < 1:
        raise ValueError(
            f"expected phantoms:N with N from 1 to {10**_MOST_DIGITS - 1}, got {place!r}"
        )
    pixel = _PHANTOM_MM / _PHANTOM_SIZE
    names = [f"phantom {i}, {REGIONS[i % len(REGIONS)]}" for i in range(int(count))]
    return [
        _Found(Source("phantom", name, str(i), spacing=(pixel, pixel)), name, name)
        for i, name in enumerate(names)
    ]


def _line(error: Exception) -> str:
    line = one_line(error)
    if (
        type(error).__name__ == "InvalidDicomError"
    ):  # pydicom's words speak of a setting that we do not have
        return "expected a DICOM file, found no DICM at byte 128"
    return line
