"""Features taken apart into their fields."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..symmetry.fields import FieldType


def _field_parts(z: Tensor, field: FieldType) -> Iterator[tuple[str, Tensor]]:
    """The terms of a field as (kind, (B, multiplicity, group, H, W)) with a group axis of 1 for trivial."""
    start = 0
    for count, kind in field.terms:
        size = field.group.order if kind == "r" else 1
        yield kind, z.narrow(1, start, count * size).unflatten(1, (count, size))
        start += count * size


def field_means(z: Tensor, field: FieldType) -> Tensor:
    """Mean of every field over images, group and space, repeated over its channels: (1, C, 1, 1)."""
    means = [
        part.mean((0, 2, 3, 4), keepdim=True).expand(1, -1, part.shape[2], 1, 1).flatten(1, 2)
        for _, part in _field_parts(z, field)
    ]
    return torch.cat(means, 1)


def invariant_share(z: Tensor, field: FieldType) -> Tensor | None:
    """Share of the regular fields' energy that is equal in all channels of a field, in [0, 1]."""
    regular = [part for kind, part in _field_parts(z, field) if kind == "r"]
    if not regular:
        return None
    energy = torch.stack([torch.linalg.vector_norm(part) for part in regular]).square().sum()
    # The projection on equal channels is the mean over the group, repeated: its energy is |sum|^2 / t.
    common = torch.stack([torch.linalg.vector_norm(sum(part.unbind(2))) for part in regular])
    shared = common.square().sum() / field.group.order
    return shared / energy.clamp_min(torch.finfo(z.dtype).tiny)
