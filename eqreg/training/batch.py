"""What the training loop does with a batch: inputs and labels, each a tensor or a tuple of tensors."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..layers.inputs import IMAGE_DIMS
from ..layers.pairs import is_class_map
from ..symmetry.actions import quarter_turns, rotate
from ..symmetry.groups import Group

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


def turn(batch: T, group: Group, generator: torch.Generator | None) -> T:
    """Every image turned by an element of its own, inputs and labels alike, as EQ-Reg turns its pairs.

    Images (B, C, H, W) and maps of classes, whole numbers (B, H, W), turn; vectors (B,) and (B, K) stay.

    Raises:
        ValueError: other tensors of three dimensions, which may be images or tokens; images that are not
            square cannot be turned each for itself by quarter turns.
    """
    drawn = torch.randint(group.order, (size(batch),), generator=generator)
    return tree_map(lambda t: _turned(t, drawn, group) if _turns(t, group) else t, batch)


def _turns(t: Tensor, group: Group) -> bool:
    if t.dim() == IMAGE_DIMS - 1 and not is_class_map(t):
        raise ValueError(
            f"fit: augment={group} cannot tell whether shape {tuple(t.shape)} is an image: give images as "
            "(B, C, H, W), labels as (B,) or (B, K), maps of classes as whole numbers (B, H, W)"
        )
    return t.dim() >= IMAGE_DIMS or is_class_map(t)


def _turned(images: Tensor, drawn: Tensor, group: Group) -> Tensor:
    if images.shape[-2] != images.shape[-1] and any(
        quarter_turns(g, group) in (1, 3) for g in group.elements
    ):
        raise ValueError(
            f"fit: augment={group} turns each image of a batch for itself and needs square images, got "
            f"{tuple(images.shape[-2:])}"
        )
    turned = images.clone()
    for number in drawn.unique().tolist():
        rows = (drawn == number).nonzero().flatten().to(images.device)
        turned[rows] = rotate(images[rows], group.elements[number], group)
    return turned


def _take(batch: T, rows: slice) -> T:
    return tree_map(lambda t: t[rows], batch)


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
