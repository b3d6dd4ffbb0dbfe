"""Seeded draws: generators, and random crops of image pairs that lie in memory."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from ..typed import typed


@typed
def seeded(seed: int) -> torch.Generator:
    """A generator of random numbers that starts at ``seed``, for one thing to be drawn.

    >>> torch.equal(torch.rand(2, generator=seeded(0)), torch.rand(2, generator=seeded(0)))
    True
    """
    return torch.Generator().manual_seed(seed)


class RandomCrops:
    """A sampler for :func:`eqreg.training.fit`: crops of the same places of degraded and clean images.

    The images stay where they are, on the CPU or on a GPU, and one indexing operation cuts a batch.
    Places are drawn on the CPU, so they do not depend on the device.

    Args:
        degraded, clean: (n, C, H, W), equal shapes.
        crop: side in pixels.
        batch: crops per call.

    Raises:
        ValueError: the shapes differ, or ``crop`` or ``batch`` is out of range.

    >>> x = torch.rand(3, 1, 16, 16)
    >>> [tuple(t.shape) for t in RandomCrops(x, x, crop=8, batch=5)(None)]
    [(5, 1, 8, 8), (5, 1, 8, 8)]
    """

    @typed
    def __init__(self, degraded: Tensor, clean: Tensor, *, crop: int, batch: int) -> None:
        if degraded.shape != clean.shape or clean.dim() != 4 or not len(clean):
            raise ValueError(
                "RandomCrops: expected two tensors of one shape (n, C, H, W), got "
                f"{tuple(degraded.shape)} and {tuple(clean.shape)}"
            )
        if not 1 <= crop <= min(clean.shape[-2:]) or batch < 1:
            raise ValueError(
                f"RandomCrops: expected batch >= 1 and crop in [1, {min(clean.shape[-2:])}], got "
                f"{batch} and {crop}"
            )
        self.pairs, self.crop, self.batch = (degraded, clean), crop, batch

    @typed
    def __call__(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """A batch of degraded and clean crops, (batch, C, crop, crop) each."""
        number, _, height, width = self.pairs[0].shape
        image = torch.randint(number, (self.batch,), generator=generator)
        rooms = torch.tensor([height, width]) - self.crop + 1
        if height == width:  # one draw, so that seeds give what they gave before
            corner = torch.randint(int(rooms[0]), (self.batch, 2), generator=generator)
        else:
            corner = (torch.rand(self.batch, 2, generator=generator) * rooms).long()
        top, left = corner.unbind(1)
        x, y = (
            t.unfold(2, self.crop, 1).unfold(3, self.crop, 1)[image, :, top, left]
            for t in self.pairs
        )
        return x, y

    def fingerprint(self) -> str:
        """Hash of the images, to tell whether two runs saw the same data."""
        return fingerprint(*self.pairs)


@typed
def fingerprint(*tensors: Tensor) -> str:
    """First 16 hex digits of the SHA-256 of the tensors' shapes, types and values."""
    digest = hashlib.sha256()
    for t in tensors:
        digest.update(f"{tuple(t.shape)} {t.dtype}".encode())
        digest.update(t.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
