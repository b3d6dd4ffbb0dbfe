"""Loader of rain pairs in the folder layouts of Rain100L and Rain100H."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from .images import read_image

_CLEAN = re.compile(r"norain-(\d+)\.png")


class RainPair(NamedTuple):
    """``rainy`` and ``clean``: (3, H, W) float32 in [0, 1]; ``name``: number in the file names."""

    rainy: Tensor
    clean: Tensor
    name: str


class Rain100:
    """Pairs of rainy and clean photographs, as published with Rain100L and Rain100H.

    Clean images are ``norain-NNN.png``; the rainy partner is ``rainy/rain-NNN.png`` or, beside it,
    ``rain-NNN.png``. All pairs are looked up at once, so that a missing file shows before an
    evaluation starts; pixels are read when asked for.

    Args:
        root: the folder. None: the folder ``name`` inside the one that the environment variable
            EQREG_DATA names.
        name: "Rain100L" (default) or another folder of EQREG_DATA; only used without ``root``.

    Raises:
        FileNotFoundError: no folder, no clean image in it, or a clean image without its rainy
            partner.

    ``folder[i]`` raises ValueError if a file of the pair cannot be decoded, or if the two differ
    in size.

    Reference: Yang et al., "Deep Joint Rain Detection and Removal from a Single Image", CVPR 2017.
    Taught in: notebooks/13_rain.ipynb
    """

    def __init__(self, root: str | Path | None = None, name: str = "Rain100L") -> None:
        if root is None:
            if not os.environ.get("EQREG_DATA"):
                raise FileNotFoundError(
                    f"Rain100: give root=, or set EQREG_DATA to the folder that holds {name}"
                )
            root = Path(os.environ["EQREG_DATA"]) / name
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"Rain100: expected a folder of norain-NNN.png, found no folder {self.root}"
            )
        self._pairs = self._find_pairs()

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> RainPair:
        number, rainy_path, clean_path = self._pairs[index]
        rainy, clean = _read_rgb(rainy_path), _read_rgb(clean_path)
        if rainy.shape != clean.shape:
            raise ValueError(
                f"Rain100: the images of a pair must have one size, got {_size(rainy)} in "
                f"{rainy_path} and {_size(clean)} in {clean_path}"
            )
        return RainPair(rainy, clean, number)

    def __iter__(self) -> Iterator[RainPair]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"Rain100({str(self.root)!r}): {len(self)} pairs"

    def _find_pairs(self) -> list[tuple[str, Path, Path]]:
        matches = [match for path in self.root.iterdir() if (match := _CLEAN.fullmatch(path.name))]
        if not matches:
            found = ", ".join(sorted(path.name for path in self.root.iterdir())[:5]) or "nothing"
            raise FileNotFoundError(
                f"Rain100: expected norain-NNN.png in {self.root}, found {found}"
            )
        pairs = []
        for match in sorted(matches, key=lambda m: (int(m[1]), m[1])):
            rainy = f"rain-{match[1]}.png"
            candidates = [self.root / "rainy" / rainy, self.root / rainy]
            partner = next((path for path in candidates if path.is_file()), None)
            if partner is None:
                raise FileNotFoundError(
                    f"Rain100: {match[0]} has no rainy partner; expected {candidates[0]} or "
                    f"{candidates[1]}"
                )
            pairs.append((match[1], partner, self.root / match[0]))
        return pairs


def _read_rgb(path: Path) -> Tensor:
    try:
        image = read_image(path)
    except (OSError, SyntaxError) as error:  # what Pillow raises for truncated or foreign files
        raise ValueError(
            f"Rain100: expected a readable PNG, could not decode {path}: {error}"
        ) from error
    return image.expand(3, -1, -1)


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]}x{image.shape[-2]}"
