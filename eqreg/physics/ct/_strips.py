"""Products with the images that are empty almost everywhere, as masks of metal are."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ._matrix import strip_edges

# Images with no more than this share of their pixels other than 0 are worth it,
SPARSE = 1 / 32
# so many of them at a time, and so many of their turned and mirrored copies in one product.
MASKS, _COPIES = 16, {"cpu": 8, "cuda": 64}


def csr_tensor(pointers: Tensor, columns: Tensor, values: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse matrix of these rows, unchecked."""
    with warnings.catch_warnings():
        # torch says once per process that this layout is in beta.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        return torch.sparse_csr_tensor(pointers, columns, values, size=size, check_invariants=False)


def cut(matrix: Tensor, height: int) -> list[Tensor]:
    """A matrix in parts of so many rows, whose columns and values are those of the whole, not copies."""
    pointers, columns, values = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    parts = []
    for first in range(0, len(matrix), height):
        own = pointers[first : first + height + 1]
        part = slice(int(own[0]), int(own[-1]))
        size = (height, matrix.shape[1])
        parts.append(csr_tensor(own - own[0], columns[part], values[part], size))
    return parts


def sparse_rays(images: Tensor, matrices: list[Tensor]) -> Tensor:
    """(images, rows): the sum of the products of (images, n, n) with each strip's matrix.

    Bit by bit what the whole matrix gives, without the images that hold nothing in a strip: what they add to
    its rows is 0.
    """
    edges = strip_edges(images.shape[-1], len(matrices))
    rays = images.new_zeros((len(images), len(matrices[0])))
    for matrix, first, last in zip(matrices, edges, edges[1:], strict=False):
        # A strip is one of columns for the rays that are cut there, and one of rows for the others.
        strips = images[..., first:last], images[:, first:last]
        held = torch.stack([strip.flatten(1).any(1) for strip in strips]).any(0)
        for which in held.nonzero()[:, 0].split(_COPIES.get(images.device.type, 8)):
            pixels = images.new_empty((*images.shape[1:], len(which)))  # no others are read
            pixels[:, first:last] = strips[0][which].movedim(0, -1)
            pixels[first:last] = strips[1][which].movedim(0, -1)
            rays[which] += (matrix @ pixels.flatten(0, 1)).T
    return rays
