"""One frame of a DICOM file as CT numbers, and what its header says before its pixels are read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..extras import require

AIR = -1000.0
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
_DIRECTORY = "1.2.840.10008.1.3.10"
_PREAMBLE, _MAGIC = 128, b"DICM"


class Header(NamedTuple):
    """What is known of a file of CT slices without decoding its pixels.

    ``spacing``: mm between rows and between columns, None if the file does not say. ``place``: sorts the
    slices of a series. ``lossy``: compressed so that CT numbers changed.
    """

    patient: str
    series: str
    place: float
    frames: int
    spacing: tuple[float, float] | None
    lossy: bool


def is_dicom(path: Path) -> bool:
    """Whether the file says of itself that it is DICOM, whatever its name is."""
    with path.open("rb") as file:
        file.seek(_PREAMBLE)
        return file.read(len(_MAGIC)) == _MAGIC


def header(path: Path) -> Header | None:
    """The header of a file of CT slices; None for a DICOMDIR, which lists others.

    Raises:
        ValueError: no CT slice; says what it is instead.
    """
    file = _open(path, pixels=False)
    if str(file.file_meta.get("MediaStorageSOPClassUID", "")) == _DIRECTORY:
        return None
    _check(file)
    spacing = _of_frame(file, 0, "PixelMeasuresSequence").get("PixelSpacing")
    if spacing is None:
        spacing = file.get("PixelSpacing")
    position = file.get("ImagePositionPatient")
    place = float(position[2]) if position else float(file.get("InstanceNumber") or 0)
    return Header(
        str(file.get("PatientID") or path.parent),
        str(file.get("SeriesInstanceUID") or path.parent),
        place,
        int(file.get("NumberOfFrames") or 1),
        None if spacing is None else (float(spacing[0]), float(spacing[1])),
        str(file.get("LossyImageCompression", "00")) == "01",
    )


def read_frame(path: Path, frame: int = 0) -> np.ndarray[Any, Any]:
    """A frame (H, W) float32 as ``slope * value + intercept``; declared padding becomes air.

    A MONOCHROME1 file is displayed inverted, but its CT numbers are not, so they are taken as they are.

    Raises:
        ValueError: no CT slice, or no such frame.
    """
    file = _open(path, pixels=True)
    _check(file)
    frames = int(file.get("NumberOfFrames") or 1)
    if not 0 <= frame < frames:
        raise ValueError(f"expected frame {frame}, got a file of {frames}")
    values = file.pixel_array
    if frames > 1 and values.ndim == 3:
        values = values[frame]
    if values.ndim != 2:
        raise ValueError(f"expected one grey image, got values of shape {values.shape}")
    slope, intercept = _rescale(file, frame)
    if not slope:
        raise ValueError("expected a RescaleSlope other than 0, with which all values are equal")
    hu = values.astype(np.float32) * slope + intercept
    padding = file.get("PixelPaddingValue")
    if padding is not None:
        limit = file.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((int(padding), int(limit)))
        hu[(values >= low) & (values <= high)] = AIR
    return hu.astype(np.float32)


def _open(path: Path, *, pixels: bool) -> Any:
    pydicom = require("pydicom", extra="tasks")
    with warnings.catch_warnings():
        # Files from clinics break small rules of the standard; what matters here is checked below.
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, stop_before_pixels=not pixels)


def _check(file: Any) -> None:
    modality = file.get("Modality", "CT")
    if modality != "CT":
        raise ValueError(f"expected modality CT, got {modality}")
    if str(file.get("SOPClassUID", "")).startswith(_SECONDARY):
        raise ValueError("expected CT numbers, got a secondary capture, which is a picture of them")
    if "LOCALIZER" in (file.get("ImageType") or ()):
        raise ValueError("expected a slice, got a localizer, which is a projection")
    if "Rows" not in file:
        raise ValueError("expected an image, got a file without one")
    if int(file.get("SamplesPerPixel", 1)) != 1:
        raise ValueError(f"expected grey pixels, got colour ({file.PhotometricInterpretation})")
    _rescale(file, 0)


def _rescale(file: Any, frame: int) -> tuple[float, float]:
    inside = _of_frame(file, frame, "PixelValueTransformationSequence")
    found = []
    for name in ("RescaleSlope", "RescaleIntercept"):
        value = inside.get(name, file.get(name))
        if value is None:
            raise ValueError(f"expected {name}, without which values are no CT numbers")
        found.append(float(value))
    return found[0], found[1]


def _of_frame(file: Any, frame: int, sequence: str) -> Any:
    """What a multi-frame file says of a frame: of this one, or of all."""
    for groups, at in (
        ("PerFrameFunctionalGroupsSequence", frame),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        of = file.get(groups)
        if of and at < len(of) and of[at].get(sequence):
            return of[at].get(sequence)[0]
    return {}
