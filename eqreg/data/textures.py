"""Patches of photographed surfaces, turned by any angle: a task that has no direction."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from ..typed import typed
from .digits import Labelled, turn
from .images import _LUMA, _read

# The class is the position in this list. All files are inside scikit-image's wheel.
TEXTURES = ("brick", "grass", "gravel", "tissue")
_FILES = MappingProxyType({"tissue": "ihc.png"})
# Vertical strips, shares of the width: the bricks are seen in perspective, larger further down.
_STRIPS = MappingProxyType({"train": (0.0, 0.5), "val": (0.5, 0.7), "test": (0.7, 1.0)})
_CONTRAST = 0.15


@typed
def textures(
    split: str,
    n: int,
    *,
    size: int = 16,
    turned: bool = True,
    generator: torch.Generator | None = None,
) -> Labelled:
    """Patches of brick, grass, gravel and tissue (``TEXTURES``), each turned by a random angle.

    The patch is cut out of the photograph by a turned square, so nothing is lost and no black corner
    shows. Brightness and contrast say nothing: every patch has mean 0.5 and standard deviation 0.15
    before values outside [0, 1] are clipped.

    Args:
        split: "train" (left half of each photograph), "val" or "test" (strips further right). They have
            no pixel in common.
        n: how many patches; classes take turns.
        size: side in pixels.
        turned: False keeps all patches upright, as photographed.
        generator: source of the randomness (CPU).

    Returns:
        (n, 1, size, size) patches and their classes.

    Raises:
        ValueError: unknown split, ``n`` or ``size`` not positive, or a patch that does not fit into the
            narrowest strip when it is turned.
        FileNotFoundError: the installed wheel does not hold a photograph.
        ImportError: scikit-image is not installed; the message names the extra.

    >>> textures("val", 8).labels.tolist()
    [0, 1, 2, 3, 0, 1, 2, 3]

    Taught in: notebooks/16.
    """
    if split not in _STRIPS:
        raise ValueError(f"textures: split must be one of {sorted(_STRIPS)}, got {split!r}")
    if n < 1 or size < 1:
        raise ValueError(f"textures: n and size must be positive, got n={n}, size={size}")
    around = math.ceil(size * math.sqrt(2)) + 2  # a turned square, and the pixels it interpolates
    around += (around - size) % 2
    strips = [strip(name, split) for name in TEXTURES]
    narrowest = min(min(image.shape[-2:]) for image in strips)
    if around > narrowest:
        raise ValueError(
            f"textures: a turned patch of side {size} needs {around} pixels, the strips of {split!r} are "
            f"{narrowest} wide"
        )
    cut = []
    for i in range(n):
        image = strips[i % len(strips)]
        top, left = (
            int(torch.randint(side - around + 1, (), generator=generator))
            for side in image.shape[-2:]
        )
        cut.append(image[:, top : top + around, left : left + around])
    # Upright patches make the detour through interpolation too: the same blur for all.
    angles = 360 * torch.rand(n, generator=generator) if turned else torch.zeros(n)
    patches = F.pad(turn(torch.stack(cut), angles), [-((around - size) // 2)] * 4)
    patches = patches - patches.mean((-2, -1), keepdim=True)
    deviation = patches.square().mean((-2, -1), keepdim=True).sqrt().clamp_min(1e-6)
    images = (0.5 + _CONTRAST * patches / deviation).clamp(0, 1)
    return Labelled(images, torch.arange(n) % len(TEXTURES))


@typed
def strip(name: str, split: str) -> Tensor:
    """The part of a photograph that belongs to a split, grey, (1, H, W)."""
    image = _read(_FILES.get(name, f"{name}.png"))
    if image.shape[0] == 3:
        image = torch.einsum("c,chw->hw", torch.tensor(_LUMA, dtype=image.dtype), image)[None]
    start, stop = (round(share * image.shape[-1]) for share in _STRIPS[split])
    return image[..., start:stop]
