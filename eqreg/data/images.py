"""Photographs that come inside the wheels of scikit-image and scikit-learn: nothing is downloaded.

scikit-image can fetch further images from the network. We read the files of the installed package
ourselves, so that a missing one is an error and never a download. Their licences are listed in
``skimage/data/README.txt`` and ``sklearn/datasets/images/README.txt``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..extras import require
from ..typed import typed

# A fixed split: no photograph is in two parts. Settings are chosen on `val`; `test` is looked at
# once.
PHOTOGRAPHS: dict[str, dict[str, str]] = {
    "train": {
        "astronaut": "astronaut.png",
        "brick": "brick.png",
        "camera": "camera.png",
        "coffee": "coffee.png",
    },
    "val": {"chelsea": "chelsea.png", "grass": "grass.png"},
    "test": {
        "china": "china.jpg",
        "coins": "coins.png",
        "flower": "flower.jpg",
        "gravel": "gravel.png",
        "motorcycle": "motorcycle_left.png",
        "rocket": "rocket.jpg",
    },
}
_IN_SKLEARN = ("china.jpg", "flower.jpg")
_PNG_BITS = 24  # place of the bit depth in a PNG file
# BT.601 luma of full-range RGB, the grey value of an 8-bit image viewer.
_LUMA = (0.299, 0.587, 0.114)


@typed
def photographs(split: str, *, color: bool = False, size: int | None = None) -> dict[str, Tensor]:
    """The bundled photographs of one part of the split.

    Args:
        split: "train" (4 photographs), "val" (2) or "test" (6); see ``PHOTOGRAPHS``.
        color: three channels; grey photographs (brick, camera, grass, coins, gravel) repeat
            theirs. One channel if False.
        size: cut the central square and reduce it to this side (pixels, bilinear with
            anti-aliasing). None: as they are.

    Returns:
        name -> (C, H, W) float32 in [0, 1], in alphabetical order.

    Raises:
        ValueError: unknown split, or ``size`` is not positive or larger than a photograph.
        FileNotFoundError: the installed wheel does not hold a photograph.
        ImportError: scikit-image or scikit-learn is not installed; the message names the extra.

    >>> {name: tuple(image.shape) for name, image in photographs("val").items()}
    {'chelsea': (1, 300, 451), 'grass': (1, 512, 512)}
    """
    if split not in PHOTOGRAPHS:
        raise ValueError(f"photographs: split must be one of {sorted(PHOTOGRAPHS)}, got {split!r}")
    images = {}
    for name, file in PHOTOGRAPHS[split].items():
        image = _read(file)
        if not color and image.shape[0] == 3:
            image = grey(image)
        elif color and image.shape[0] == 1:
            image = image.expand(3, -1, -1).contiguous()
        images[name] = image if size is None else square(image, size, name)
    return images


@typed
def patches(
    images: dict[str, Tensor], size: int, n: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Cut random square patches.

    Photographs take turns, so the counts per photograph differ by at most one.

    Args:
        images: name -> (C, H, W), equal C; the result of :func:`photographs`.
        size: side in pixels.
        n: how many patches.
        generator: source of the randomness (CPU).

    Returns:
        (n, C, size, size).

    Raises:
        ValueError: no image, ``n`` or ``size`` not positive, or a photograph smaller than a patch.

    >>> g = torch.Generator().manual_seed(0)
    >>> patches({"a": torch.rand(1, 32, 40), "b": torch.rand(1, 24, 24)}, 16, 5, generator=g).shape
    torch.Size([5, 1, 16, 16])
    """
    if not images:
        raise ValueError("patches: expected at least one image, got none")
    if n < 1 or size < 1:
        raise ValueError(f"patches: n and size must be positive, got n={n}, size={size}")
    for name, image in images.items():
        if min(image.shape[-2:]) < size:
            raise ValueError(
                f"patches: {name} of shape {tuple(image.shape)} is smaller than a patch of side "
                f"{size}"
            )
    cut = []
    pool = list(images.values())
    for i in range(n):
        image = pool[i % len(pool)]
        top, left = (
            int(torch.randint(side - size + 1, (), generator=generator))
            for side in image.shape[-2:]
        )
        cut.append(image[:, top : top + size, left : left + size])
    return torch.stack(cut)


def _read(file: str) -> Tensor:
    """(C, H, W) float32 in [0, 1], C = 1 or 3, from a file inside an installed wheel."""
    package = "sklearn" if file in _IN_SKLEARN else "skimage"
    home = Path(str(require(package, extra="tasks").__file__)).parent
    path = home / ("datasets/images" if package == "sklearn" else "data") / file
    if not path.is_file():
        raise FileNotFoundError(
            f"photographs: expected {file} inside the installed {package}, found no {path}"
        )
    return read_image(path)


@typed
def read_image(path: str | Path) -> Tensor:
    """Read an image file as a viewer shows it: (C, H, W) float32 in [0, 1]; C = 1 if it is grey, else 3.

    * 8 bits and fewer are divided by their largest value, 16-bit grey by 65535. 1-bit images are 0 and 1.
    * EXIF orientation is applied. Palettes become RGB.
    * An alpha channel that is opaque everywhere is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: what has no one meaning in grey or RGB: transparent pixels, CMYK and other colour spaces,
            colour in 16 bit (Pillow would drop the lower half), floating point, several frames; or a file
            that cannot be decoded. The message names the file.
        ImportError: without Pillow (``pip install "eqreg[tasks]"``).
    """
    pixels = np.array(upright(path))
    largest = 65535 if pixels.dtype == np.uint16 else 1 if pixels.dtype == bool else 255
    image = torch.from_numpy(pixels.astype(np.float32))
    return image.reshape(*pixels.shape[:2], -1).permute(2, 0, 1) / largest


@typed
def upright(path: str | Path) -> Any:
    """The decoded Pillow image, in mode 1, L, RGB or I;16, turned as its EXIF says; errors of :func:`read_image`."""
    pillow = require("PIL.Image", extra="tasks")
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected an image, found no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path) as picture:
                frames = getattr(picture, "n_frames", 1)
                deep = picture.mode in ("RGB", "RGBA") and _bits(path, picture.format) == 16
                decoded = require("PIL.ImageOps", extra="tasks").exif_transpose(picture)
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise ValueError(
            f"expected an image of ordinary size, could not decode {path}: {error}"
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's for foreign or damaged files
        raise ValueError(f"expected a readable image, could not decode {path}: {error}") from error
    if frames > 1:
        raise ValueError(f"expected one image in {path}, got {frames} frames")
    if deep:
        raise ValueError(
            f"expected 8 bits a colour in {path}, got 16; save it with 8, or as grey images"
        )
    if decoded.mode == "P":
        decoded = decoded.convert("RGBA" if "transparency" in decoded.info else "RGB")
    if decoded.mode in ("LA", "RGBA"):
        if decoded.getchannel("A").getextrema()[0] < 255:
            raise ValueError(
                f"{path} has transparent pixels, whose colour is not defined; put it on a background"
            )
        decoded = decoded.convert(decoded.mode[:-1])
    if decoded.mode not in ("1", "L", "RGB", "I;16"):
        raise ValueError(
            f"expected a grey or RGB image in {path}, got mode {decoded.mode}; convert it to RGB"
        )
    return decoded


def _bits(path: str | Path, form: str | None) -> int:
    """Bits a channel of a PNG, as its header says; 8 for other formats."""
    if form != "PNG":
        return 8
    with Path(path).open("rb") as file:
        return file.read(_PNG_BITS + 1)[_PNG_BITS]


def grey(image: Tensor) -> Tensor:
    """The luminance (1, H, W) of an RGB image (3, H, W)."""
    return torch.einsum("c,chw->hw", torch.tensor(_LUMA, dtype=image.dtype), image)[None]


def square(image: Tensor, size: int, name: str = "an image") -> Tensor:
    """The central square of (C, H, W), reduced to ``size`` pixels a side with anti-aliasing.

    Raises:
        ValueError: ``size`` is not positive or larger than the image.
    """
    side = min(image.shape[-2:])
    if not 1 <= size <= side:
        raise ValueError(
            f"photographs: size must be in [1, {side}] for {name} of shape {tuple(image.shape)}, "
            f"got {size}"
        )
    top, left = ((n - side) // 2 for n in image.shape[-2:])
    image = image[None, :, top : top + side, left : left + side]
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)[
        0
    ].clamp(0, 1)
