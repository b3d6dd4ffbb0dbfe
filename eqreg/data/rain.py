"""Pairs of rainy and clean images in folders: Rain100L, Rain100H, and any other layout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ..typed import typed
from ._files import data_folder, image_size, read_rgb

_LISTED = 5  # files named in an error


class RainPair(NamedTuple):
    """``rainy`` and ``clean``: (3, H, W) float32 in [0, 1]; ``name``: what the file names share."""

    rainy: Tensor
    clean: Tensor
    name: str


class PairFolder:
    """Degraded images and their clean partners, found by two patterns.

    A pattern is a path inside the folder with one ``*``; two files whose ``*`` stands for the same
    text are a pair. Two folders of equal names are ``rainy="input/*.png", clean="target/*.png"``; one
    folder with endings is ``rainy="*_rain.png", clean="*_clean.png"``.

    All pairs are looked up at once and the headers of all files are read, so that what is missing, cut
    off or of another size shows before a training starts. Pixels are read when asked for.

    Args:
        root: the folder.
        rainy: pattern of the degraded images.
        clean: pattern of the clean ones.

    Attributes:
        names: what ``*`` stands for, numbers in the order of numbers.

    Raises:
        FileNotFoundError: no folder, no file that fits a pattern, or a file without its partner.
        ValueError: a pattern without exactly one ``*`` in the file's name, a file that is no image or
            is cut off, or two partners of different size.

    ``folder[i]`` raises ValueError if a file cannot be decoded after all.

    Taught in: notebooks/13b_rain_unfolding.ipynb

    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("1_rain.png", "1_clean.png"):
    ...         Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(f"{folder}/{name}")
    ...     pairs = PairFolder(folder, rainy="*_rain.png", clean="*_clean.png")
    ...     pairs.names, pairs[0].rainy.shape
    (['1'], torch.Size([3, 4, 6]))
    """

    _who = "PairFolder"

    @typed
    def __init__(self, root: str | Path, *, rainy: str, clean: str) -> None:
        self.root = data_folder(root, "", self._who)
        self._pairs = self._matched(rainy, clean)
        self.names = list(self._pairs)
        for name in self.names:
            (a, size_a), (b, size_b) = (
                (path, image_size(path, self._who)) for path in self._pairs[name]
            )
            if size_a != size_b:
                raise ValueError(
                    f"{self._who}: the images of a pair must have one size, got "
                    f"{size_a[0]}x{size_a[1]} in {a} and {size_b[0]}x{size_b[1]} in {b}"
                )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> RainPair:
        name = self.names[index]
        rainy, clean = (read_rgb(path, self._who) for path in self._pairs[name])
        return RainPair(rainy, clean, name)

    def __iter__(self) -> Iterator[RainPair]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"{self._who}({str(self.root)!r}): {len(self)} pairs"

    def _matched(self, rainy: str, clean: str) -> dict[str, tuple[Path, Path]]:
        truths, observed = self._files(clean), self._files(rainy)
        for there, others, pattern, what in (
            (truths, observed, rainy, "rainy"),
            (observed, truths, clean, "clean"),
        ):
            alone = sorted(there.keys() - others.keys(), key=_order)
            if alone:
                expected = self.root / pattern.replace("*", alone[0])
                more = f" ({len(alone)} lack theirs)" if len(alone) > 1 else ""
                raise FileNotFoundError(
                    f"{self._who}: {there[alone[0]].name} has no {what} partner; expected "
                    f"{expected}{more}"
                )
        return {name: (observed[name], truths[name]) for name in sorted(truths, key=_order)}

    def _files(self, pattern: str) -> dict[str, Path]:
        if pattern.count("*") != 1 or "*" not in Path(pattern).name:
            raise ValueError(
                f"{self._who}: a pattern has exactly one *, in the file's name, got {pattern!r}"
            )
        before, after = map(re.escape, Path(pattern).name.split("*"))
        name = re.compile(f"{before}(.+){after}", re.DOTALL)
        place = self.root / Path(pattern).parent
        files = sorted(place.iterdir()) if place.is_dir() else []
        found = {match[1]: path for path in files if (match := name.fullmatch(path.name))}
        if not found:
            there = ", ".join(path.name for path in files[:_LISTED]) or "nothing"
            raise FileNotFoundError(
                f"{self._who}: expected {pattern} in {self.root}, found {there}"
            )
        return found


class Rain100(PairFolder):
    """Pairs of rainy and clean photographs, as published with Rain100L and Rain100H.

    Clean images are ``norain-NNN.png``; the rainy partner is ``rainy/rain-NNN.png`` (test sets) or,
    beside it, ``rain-NNN.png`` (training sets). For other layouts see :class:`PairFolder`.

    Args:
        root: the folder. None: the folder ``name`` inside the one that the environment variable
            EQREG_DATA names.
        name: "Rain100L" (default) or another folder of EQREG_DATA; only used without ``root``.

    Raises:
        FileNotFoundError, ValueError: as for :class:`PairFolder`.

    Reference: Yang et al., "Deep Joint Rain Detection and Removal from a Single Image", CVPR 2017.
    Taught in: notebooks/13_rain.ipynb
    """

    _who = "Rain100"

    @typed
    def __init__(self, root: str | Path | None = None, name: str = "Rain100L") -> None:
        root = data_folder(root, name, self._who)
        below = (root / "rainy").is_dir()
        super().__init__(
            root, rainy="rainy/rain-*.png" if below else "rain-*.png", clean="norain-*.png"
        )


def _order(name: str) -> tuple[bool, int, str]:
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name
