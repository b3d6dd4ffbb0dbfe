"""Handwritten digits, and how to turn them: scikit-learn's by default, MNIST by loader."""

from __future__ import annotations

import gzip
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..extras import require
from ..typed import typed
from ._arrays import from_npz, refuse_large

# Parts of scikit-learn's 1797 digits, after one fixed shuffle. Settings are chosen on `val`.
_DIGITS = {"train": slice(0, 1000), "val": slice(1000, 1300), "test": slice(1300, 1797)}
_FILES = {"train": "train", "test": "t10k"}
# The first four bytes of an IDX file of unsigned bytes: 0x0800 and the number of dimensions.
_MAGIC = 0x0800
_IMAGES, _LABELS = 3, 1
_AT_ONCE = 256


class Labelled(NamedTuple):
    """``images``: (N, 1, H, W) float32 in [0, 1]; ``labels``: (N,) int64, numbers of classes.

    >>> images, labels = digits("test", size=16)
    >>> images.shape[1:], labels.dtype
    (torch.Size([1, 16, 16]), torch.int64)
    """

    images: Tensor
    labels: Tensor


@typed
def digits(split: str, *, size: int | None = None) -> Labelled:
    """The 1797 digits of scikit-learn, 8 x 8 pixels; nothing is downloaded.

    Args:
        split: "train" (1000), "val" (300) or "test" (497).
        size: side of a black canvas in pixels. The digit is enlarged (bilinear) to the square that
            fits into the canvas's circle, so that turning cuts nothing. None: 8 x 8 as they are.

    Returns:
        The images of that part and their digits, in one fixed random order.

    Raises:
        ValueError: unknown split, or a canvas too small for eight pixels.
        ImportError: scikit-learn is not installed; the message names the extra.

    >>> digits("val", size=16).images.shape
    torch.Size([300, 1, 16, 16])

    Taught in: notebooks/16.
    """
    if split not in _DIGITS:
        raise ValueError(f"digits: split must be one of {sorted(_DIGITS)}, got {split!r}")
    found = require("sklearn.datasets", extra="tasks").load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    order = order[_DIGITS[split]]
    images = torch.from_numpy(found.images)[order, None].float() / 16
    if size is not None:
        images = _on_canvas(images, size)
    return Labelled(images, torch.from_numpy(found.target)[order].long())


@typed
def mnist(split: str, root: str | Path | None = None, *, seed: int | None = 0) -> Labelled:
    """MNIST from files that are on this machine.

    Args:
        split: "train" (60 000) or "test" (10 000).
        root: a Keras-style npz file (``x_train``, ``y_train``, ``x_test``, ``y_test``), or a folder that
            holds one, or that holds the four IDX files (``train-images-idx3-ubyte``, ...; as they
            are or ``.gz``; also in a folder ``raw``). None: the folder MNIST inside the one that
            the environment variable EQREG_DATA names.
        seed: of the shuffle. Some copies are sorted by class, and their first thousand images are all
            zeros. None keeps the order of the file.

    Returns:
        The images, (N, 1, 28, 28) for the published files, and their digits.

    Raises:
        FileNotFoundError: no such file or folder, or nothing in it that is named like MNIST.
        ValueError: unknown split, a wrong magic number, a truncated file, a missing array, or counts
            of images and labels that differ; the message says what was found and expected.

    Reference: LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document
    Recognition, Proc. IEEE 86, 1998.
    Taught in: notebooks/16.
    """
    if split not in _FILES:
        raise ValueError(f"mnist: split must be one of {sorted(_FILES)}, got {split!r}")
    if root is None:
        if not os.environ.get("EQREG_DATA"):
            raise FileNotFoundError(
                "mnist: give root=, or set EQREG_DATA to the folder that holds MNIST"
            )
        root = Path(os.environ["EQREG_DATA"]) / "MNIST"
    paths = _find(Path(root), split)
    if len(paths) == 1:
        images, labels = _read_npz(paths[0], split)
    else:
        images, labels = read_idx(paths[0], _IMAGES), read_idx(paths[1], _LABELS)
    names = " and ".join(dict.fromkeys(path.name for path in paths))
    if len(images) != len(labels):
        raise ValueError(
            f"mnist: expected a label for each image, got {len(images)} images and {len(labels)} labels "
            f"in {names}"
        )
    if images.ndim != _IMAGES or labels.ndim != _LABELS or images.dtype != np.uint8:
        raise ValueError(
            f"mnist: expected uint8 images (N, H, W) and labels (N,) in {names}, got {images.dtype} "
            f"{images.shape} and {labels.shape}"
        )
    x = torch.from_numpy(images)[:, None].float() / 255
    y = torch.from_numpy(labels.astype(np.int64))
    if seed is None:
        return Labelled(x, y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return Labelled(x[order], y[order])


@typed
def read_idx(path: str | Path, dimensions: int) -> np.ndarray:
    """An IDX file of unsigned bytes, the format of MNIST.

    Four bytes of magic number (0, 0, type 8, number of dimensions), the dimensions as big-endian 32-bit
    integers, then the values.

    Args:
        path: the file; one that ends in ``.gz`` is unpacked.
        dimensions: 3 for images, 1 for labels.

    Returns:
        uint8 array with that many dimensions.

    Raises:
        ValueError: wrong magic number, fewer or more bytes than announced, or a broken gzip file.
    """
    path = Path(path)
    head = 4 + 4 * dimensions
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(head)
            magic = int.from_bytes(content[:4], "big")
            if len(content) == head and magic == _MAGIC + dimensions:
                size = math.prod(np.frombuffer(content, ">u4", offset=4).tolist())
                refuse_large(path.name, size)
                content += file.read(size + 1)  # one more shows that it is too long
    except (EOFError, OSError, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"read_idx: expected a complete gzip file at {path}: {error}") from error
    if len(content) >= 4 and magic != _MAGIC + dimensions:
        raise ValueError(
            f"read_idx: expected the magic number {_MAGIC + dimensions} (unsigned bytes, {dimensions} "
            f"dimensions) in {path}, got {magic}"
        )
    if len(content) < head:
        raise ValueError(
            f"read_idx: {path} is truncated: expected a head of {head} bytes, got {len(content)}"
        )
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).tolist()
    values = np.frombuffer(content, np.uint8, offset=head)
    if values.size != math.prod(shape):
        problem = "is truncated" if values.size < math.prod(shape) else "is too long"
        raise ValueError(
            f"read_idx: {path} {problem}: {' x '.join(map(str, shape))} needs {math.prod(shape)} bytes "
            f"after the head, got {values.size}"
        )
    return values.reshape(shape).copy()  # torch wants arrays that may be written to


@typed
def turn(images: Tensor, degrees: Tensor | float, *, factor: int = 3) -> Tensor:
    r"""Turn each image by its own angle, counter-clockwise about the centre.

    Bilinear interpolation blurs, and how much depends on the angle: a network could read the angle off
    the blur. So the images are enlarged by ``factor`` first (bicubic) and averaged back afterwards, at
    0 degrees as well. With ``factor=1`` this is :func:`eqreg.rotate` and scikit-image's ``rotate``.

    Args:
        images: (N, C, H, W), floating. What leaves the frame is lost: leave a margin.
        degrees: one angle for all, or (N,).
        factor: enlargement in each direction; 1 interpolates the image as it is.

    Returns:
        (N, C, H, W), zero where the source lies outside.

    Raises:
        ValueError: shapes that do not fit, no image, or ``factor`` below 1.

    >>> image = torch.eye(3)[None, None]
    >>> torch.allclose(turn(image, 90, factor=1), torch.rot90(image, 1, (-2, -1)), atol=1e-6)
    True

    Taught in: notebooks/16.
    """
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(
            f"turn: expected floating point images (N, C, H, W), at least one, got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    n = len(images)
    angles = torch.as_tensor(degrees, dtype=images.dtype, device=images.device)
    if angles.shape not in ((), (n,)):
        raise ValueError(
            f"turn: expected one angle or {n}, one for each image, got shape {tuple(angles.shape)}"
        )
    if factor < 1:
        raise ValueError(f"turn: factor must be at least 1, got {factor}")
    angles = torch.deg2rad(angles).expand(n)
    # A few at a time: the enlarged images of a large set would need gigabytes.
    parts = zip(images.split(_AT_ONCE), angles.split(_AT_ONCE), strict=True)
    return torch.cat([_turn(x, a, factor) for x, a in parts])


def _turn(images: Tensor, angles: Tensor, factor: int) -> Tensor:
    h, w = images.shape[-2:]
    fine = images
    if factor > 1:
        fine = F.interpolate(images, scale_factor=factor, mode="bicubic", align_corners=False)
        low, high = (bound((1, 2, 3), keepdim=True) for bound in (images.amin, images.amax))
        fine = fine.clamp(low, high)  # bicubic curves overshoot
    c, s, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # Where a pixel of the result reads from: clockwise, in coordinates that run from -1 to 1.
    rows = (torch.stack([c, -s * h / w, zero], -1), torch.stack([s * w / h, c, zero], -1))
    grid = F.affine_grid(torch.stack(rows, 1), list(fine.shape), align_corners=False)
    fine = F.grid_sample(fine, grid, align_corners=False)
    return F.avg_pool2d(fine, factor) if factor > 1 else fine


def _on_canvas(images: Tensor, size: int) -> Tensor:
    side = int(size / math.sqrt(2))
    side -= (size - side) % 2  # the same margin on all sides
    if side < images.shape[-1]:
        raise ValueError(
            f"digits: the circle of a canvas of {size} pixels holds a square of {side}, expected at "
            f"least {images.shape[-1]}"
        )
    enlarged = F.interpolate(images, (side, side), mode="bilinear", align_corners=False)
    return F.pad(enlarged, [(size - side) // 2] * 4)


def _find(root: Path, split: str) -> list[Path]:
    """One npz file, or the IDX files of images and labels."""
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FileNotFoundError(f"mnist: expected a file or folder, found no {root}")
    found = []
    for kind in (f"images?idx{_IMAGES}-ubyte", f"labels?idx{_LABELS}-ubyte"):
        for folder in (root, root / "raw"):  # torchvision's layout
            found += sorted(folder.glob(f"{_FILES[split]}-{kind}*"))[:1]
    if len(found) == 2:
        return found
    packed = sorted(root.glob("*.npz"))
    if len(packed) == 1 and not found:
        return packed
    names = ", ".join(sorted(path.name for path in root.iterdir())[:5]) or "nothing"
    raise FileNotFoundError(
        f"mnist: expected one npz file, or {_FILES[split]}-images-idx3-ubyte and "
        f"{_FILES[split]}-labels-idx1-ubyte (.gz or not), in {root}, found {names}"
    )


def _read_npz(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    keys = f"x_{split}", f"y_{split}"
    try:
        found, there = from_npz(path, keys)
        names = ", ".join(there) or "none"
    # Whatever numpy and zipfile raise for files that are cut or foreign.
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
    ) as error:
        raise ValueError(f"mnist: {path} is truncated or no npz file: {error}") from error
    if len(found) < 2:
        raise ValueError(
            f"mnist: expected the arrays {' and '.join(keys)} in {path}, found {names}"
        )
    return found[keys[0]], found[keys[1]]
