"""What the training loop does with a batch: inputs and labels, each a tensor or a tuple of tensors."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..symmetry.actions import rotate
from ..symmetry.groups import Element, Group

Batch = Tensor | tuple[Tensor, ...]
Pair = tuple[Batch, Batch]
T = TypeVar("T", Batch, Pair)


def inputs(x: Batch) -> tuple[Tensor, ...]:
    """The positional arguments of the model."""
    return x if isinstance(x, tuple) else (x,)


def size(batch: Batch | Pair) -> int:
    """Number of images; all tensors must agree.

    Raises:
        TypeError, ValueError: something else than tensors, no tensor, or different first dimensions.
    """
    leaves = tree_leaves(batch)
    if wrong := [leaf for leaf in leaves if not isinstance(leaf, Tensor)]:
        raise TypeError(f"fit: a batch must hold tensors, got a {type(wrong[0]).__name__}")
    sizes = {len(leaf) if leaf.dim() else 0 for leaf in leaves}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves) or "none"
        raise ValueError(f"fit: the tensors of a batch must be equally long, got {shapes}")
    return sizes.pop()


def move(batch: T, device: torch.device) -> T:
    """The batch on the device."""
    return tree_map(lambda t: t.to(device, non_blocking=True), batch)


def split(batch: T, parts: int) -> list[T]:
    """At most ``parts`` batches of nearly equal size, in order; none is empty."""
    number = size(batch)
    cuts = [number * i // parts for i in range(parts + 1)]
    ranges = [slice(a, b) for a, b in zip(cuts, cuts[1:], strict=False) if b > a]
    return [_take(batch, rows) for rows in ranges]


def turn(batch: T, group: Group, parts: int, generator: torch.Generator | None) -> T:
    """Each of ``parts`` parts turned by an element of its own; labels that are no images stay."""
    turned = []
    for part in split(batch, parts):
        g = group.elements[int(torch.randint(group.order, (), generator=generator))]
        turned.append(_act(part, g, group))
    return tree_map(lambda *ts: torch.cat(ts), *turned) if len(turned) > 1 else turned[0]


def _take(batch: T, rows: slice) -> T:
    return tree_map(lambda t: t[rows], batch)


def _act(batch: T, g: Element, group: Group) -> T:
    return tree_map(lambda t: rotate(t, g, group) if t.dim() == 4 else t, batch)


def share(batch: T, rank: int, world: int) -> T:
    """The part of one of ``world`` processes.

    Raises:
        ValueError: the batch cannot be shared equally.
    """
    if world == 1:
        return batch
    if size(batch) % world:
        raise ValueError(
            f"fit: {world} processes need a batch that {world} divides, got {size(batch)} images"
        )
    return _take(batch, slice(rank, None, world))
