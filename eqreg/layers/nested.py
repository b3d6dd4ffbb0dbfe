"""Nested inputs and outputs: tuples, lists, mappings and dataclasses of tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, MutableMapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map


def map_leaves(f: Callable[[Any], Any], value: Any) -> Any:
    """Apply ``f`` to every leaf of a nested value, in copies of its containers.

    torch's own map knows the built-in containers and registered classes; here also subclasses of dict,
    other mappings, and dataclasses, frozen or not.
    """
    if isinstance(value, Tensor):  # nearly always, and the map takes a while
        return f(value)

    def leaf(item: Any) -> Any:
        mapping = isinstance(item, MutableMapping)
        if isinstance(item, type) or not (mapping or is_dataclass(item)):
            return f(item)
        new: Any = copy.copy(item)
        if mapping:  # first: a class that is both keeps its attributes beside its items
            for key in item:
                new[key] = map_leaves(f, item[key])
        else:
            for field in fields(item):
                part = map_leaves(f, getattr(item, field.name, None))
                object.__setattr__(new, field.name, part)  # frozen ones too
        return new

    return tree_map(leaf, value)


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a nested value."""
    found: list[Tensor] = []
    map_leaves(lambda t: found.append(t) if isinstance(t, Tensor) else None, value)
    return found
