"""Clean photographs of BSDS500, to let it rain on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ..typed import typed
from ._files import IMAGE_ENDINGS, data_folder, image_size, read_rgb

PARTS = ("train", "val", "all", "fit", "test")
_VALIDATION, _TEST = 20, 40
_OVERLAP = "*overlap*.csv"
_COLUMN = "bsds_file"


class BSDS500:
    """Photographs of 481 x 321 or 321 x 481 pixels as backgrounds of training images.

    Most backgrounds of Rain100L are training and validation images of BSDS500, none is of its test
    part. So of the published folder we take ``data/images/test``, or ``images/test``. Of a folder that
    holds the images itself we take all but those that a list beside them names: the column
    ``bsds_file`` of a file ``*overlap*.csv``.

    Args:
        part: "train" (all but the last 20 by name), "val" (the last 20), or "all"; "train" in two parts:
            "test" (its last 40), for pictures in rain of our own, and "fit" (the others).
        root: the folder. None: ``BSDS500`` inside the one that the environment variable EQREG_DATA
            names.

    Attributes:
        names: file names without their endings.

    Raises:
        FileNotFoundError: no folder, or no image in it.
        ValueError: unknown part, too few images for one, a file that is no image or is cut off, or a
            list without its column. ``images[i]`` raises it for a file that cannot be decoded.

    Reference: Arbelaez, Maire, Fowlkes, Malik, "Contour Detection and Hierarchical Image
    Segmentation", TPAMI 2011.
    Taught in: notebooks/13b_rain_unfolding.ipynb
    """

    @typed
    def __init__(self, part: str = "train", root: str | Path | None = None) -> None:
        if part not in PARTS:
            raise ValueError(f"BSDS500: part must be one of {', '.join(PARTS)}, got {part!r}")
        self.root, self.part = data_folder(root, "BSDS500", "BSDS500"), part
        found = _images(self.root)
        kept_back = _VALIDATION + (_TEST if part in ("fit", "test") else 0)
        if part != "all" and len(found) <= kept_back:
            raise ValueError(
                f"BSDS500: {part!r} needs more than {kept_back} images, found {len(found)} in "
                f"{self.root}"
            )
        last, both = -_VALIDATION, -_VALIDATION - _TEST
        cut = {
            "train": slice(last), "val": slice(last, None), "all": slice(None),
            "fit": slice(both), "test": slice(both, last),
        }  # fmt: skip
        self._paths = found[cut[part]]
        for path in self._paths:
            image_size(path, "BSDS500")
        self.names = [path.stem for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """(3, H, W) float32 in [0, 1]."""
        return read_rgb(self._paths[index], "BSDS500")

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"BSDS500({self.part!r}, {str(self.root)!r}): {len(self)} images"


def _images(root: Path) -> list[Path]:
    places = [root / "data/images/test", root / "images/test", root]
    for place in places:
        files = sorted(place.iterdir()) if place.is_dir() else []
        found = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
        if found:
            left_out = _overlap(place)
            return [path for path in found if path.stem not in left_out]
    raise FileNotFoundError(
        f"BSDS500: expected images ({', '.join(IMAGE_ENDINGS)}) in "
        f"{' or '.join(map(str, places))}, found none"
    )


def _overlap(place: Path) -> set[str]:
    """Stems of the images that must not be trained on."""
    stems: set[str] = set()
    for path in place.glob(_OVERLAP):
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if _COLUMN not in (rows.fieldnames or []):
                raise ValueError(f"BSDS500: expected a column {_COLUMN} in {path}")
            stems |= {Path(row[_COLUMN]).stem for row in rows}
    return stems
