"""One forward pass over ``[x, g x]`` with the layers of a plan compared on the way.

Metrics and regularizer share this file, so that the penalty and the measured error are one number.
Hooks exist only while :func:`paired_forward` runs; nothing is stored on the user's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..symmetry.actions import act, rotate
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group
from .compare import MEAN_SQUARES, Comparisons, How, Open, compare, together
from .grid import grid_hooks
from .inputs import IMAGE_DIMS, Inputs
from .nested import map_leaves
from .patches import partial_views
from .plan import ROOT
from .tokens import IMAGE, as_images
from .wrappers import parts_uncompiled

_LABEL_MAP_DIMS = 3
_BATCH_ONLY_DIMS = 2
_running: set[int] = set()


def is_class_map(t: Tensor) -> bool:
    """Whether a target is (B, H, W) of classes: whole numbers for each place, where tokens are floating."""
    return t.ndim == _LABEL_MAP_DIMS and not (t.is_floating_point() or t.is_complex())


@dataclass(frozen=True)
class Pairing:
    """How a batch was paired: the first ``pairs`` of ``batch`` images went in turned by ``g`` as well."""

    group: Group
    g: Element
    batch: int
    pairs: int

    def join(
        self, inputs: Inputs, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Append the turned images to every tensor of a model's (nested) inputs."""
        return inputs.map(args, kwargs, self._join)

    def split(self, value: Any) -> tuple[Any, Any]:
        """The upright and the turned part of a (nested) output."""
        whole = self.batch + self.pairs

        def part(at: int) -> Callable[[Any], Any]:
            # Scalars and tensors without the batch dimension belong to both parts. Halves of one split, whose
            # backward is one concatenation: slices would each be padded with zeros.
            return lambda t: halves(t)[at] if _has_rows(t, whole) else t

        done: dict[int, tuple[Tensor, ...]] = {}

        def halves(t: Tensor) -> tuple[Tensor, ...]:
            if id(t) not in done:
                done[id(t)] = t.split([self.batch, self.pairs])
            return done[id(t)]

        return map_leaves(part(0), value), map_leaves(part(1), value)

    def turn(self, value: Any) -> Any:
        """The targets of the turned images: images and maps of labels are turned, vectors (B,) or (B, K) stay."""

        def turned(t: Any) -> Any:
            if not isinstance(t, Tensor) or t.ndim == 0:
                return t
            if t.shape[0] != self.batch:
                raise ValueError(
                    f"expected a target for each of the {self.batch} images, got shape {tuple(t.shape)}"
                )
            return self._turned(t[: self.pairs], True if is_class_map(t) else None, None)

        return map_leaves(turned, value)

    def _turned(self, t: Tensor, turns: bool | None, field: FieldType | str | None) -> Tensor:
        if turns is None and t.ndim == _LABEL_MAP_DIMS:
            raise ValueError(
                f"cannot tell whether shape {tuple(t.shape)} is an image: give images as (B, C, H, W), "
                "labels as (B,) or (B, K), maps of classes as whole numbers (B, H, W); or say with turn= which "
                "inputs are to be turned"
            )
        if turns is False or (turns is None and t.ndim <= _BATCH_ONLY_DIMS):
            return t
        if t.ndim <= _BATCH_ONLY_DIMS:
            raise ValueError(
                f"turn: expected images (B, C, H, W) or maps (B, H, W), got shape {tuple(t.shape)}"
            )
        if field is None:
            return rotate(t, self.g, self.group)
        return act(t, self.g, self._field(field, t))

    def _field(self, field: FieldType | str, t: Tensor) -> FieldType:
        field = FieldType(self.group, field) if isinstance(field, str) else field
        if (
            not isinstance(field, FieldType)
            or field.group != self.group
            or t.ndim != IMAGE_DIMS
            or t.shape[1] != field.channels
        ):
            raise ValueError(
                f"in_fields: {field!r} does not fit an input of shape {tuple(t.shape)} under {self.group}"
            )
        return field

    def _join(self, t: Tensor, turns: bool | None, field: FieldType | str | None) -> Tensor:
        if turns is False and t.shape[0] != self.batch:
            return t  # said not to turn, and without the batch: shared by all images
        if t.shape[0] == 1 and self.batch > 1:
            t = t.expand(self.batch, *t.shape[1:])
        if t.shape[0] != self.batch:
            raise ValueError(
                f"all inputs must have the batch size of the first, {self.batch}, got shape {tuple(t.shape)}; "
                "say with turn= which inputs are images, if this one belongs to no image"
            )
        return torch.cat([t, self._turned(t[: self.pairs], turns, field)])


def paired_forward(
    call: Callable[..., Any],
    core: nn.Module,
    fields: Mapping[str, FieldType],
    pairing: Pairing,
    inputs: Inputs,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    how: How = MEAN_SQUARES,
    check_grid: bool = False,
    layouts: Mapping[str, str] | None = None,
) -> tuple[Any, Comparisons]:
    """Run the model once over the paired batch and compare the planned layers.

    Args:
        call: what is called with the inputs: the model, or its compiled or parallel wrapper.
        core: the module that holds the planned layers.
        fields: field type of each planned layer, by name.
        pairing: group element and sizes.
        inputs: which of the inputs turn, and as what.
        args, kwargs: the model's inputs, upright.
        how: what is measured of each layer.
        check_grid: warn about strided layers that are not exact at this size.
        layouts: of planned layers that put out something else than images, by name (``layers.tokens``).

    Returns:
        The output over all rows, and the comparisons of every call of every planned layer; from the
        second call on, a reused layer's name has ``#2``, ``#3``... behind it.
    """
    found: dict[str, Open] = {}
    modules = {name: _planned(core, name) for name in fields}

    def hook_for(name: str, field: FieldType) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            key, calls = name, 1
            while key in found:
                calls += 1
                key = f"{name}#{calls}"
            if isinstance(output, Tensor) and (layout := (layouts or {}).get(name, IMAGE)) != IMAGE:
                image = as_images(output, pairing.batch + pairing.pairs, layout)
                output = output if image is None else image
            found[key] = compare(key, output, field, pairing.g, pairing.batch, pairing.pairs, how)

        return hook

    hooks = [(modules[n], hook_for(n, f)) for n, f in fields.items()]
    with _hooked(core, hooks + (grid_hooks(core) if check_grid else [])):
        joined, named = pairing.join(inputs, args, kwargs)
        output = call(*joined, **named)
    if not found:
        raise RuntimeError(
            f"none of the {len(fields)} planned layers ran: {', '.join(fields)}. Is the model compiled in "
            "place, or does its forward bypass module calls?"
        )
    # Only a layer that ran more than once can have seen the image in parts.
    reused = {key.split("#")[0] for key in found if "#" in key} if check_grid else set()
    if reused:
        layers = [(name, modules[name]) for name in fields if name in reused]
        partial = partial_views(core, layers, inputs, pairing.batch, args, kwargs)
        if partial:
            first, view = next(iter(partial.items()))
            raise ValueError(
                f"layer {first!r} runs on parts of the image: one call sees its {view} alone, where the turned "
                f"image shows something else; leave out with layers= all {len(partial)} layers of this kind: "
                f"{', '.join(partial)}"
            )
    return output, together(found)


def _planned(core: nn.Module, name: str) -> nn.Module:
    module: nn.Module | None = core
    for part in name.split(".") if name != ROOT else ():
        module = module._modules.get(part) if module is not None else None
    if module is None:
        raise ValueError(
            f"the model has no layer {name!r} any more, which was planned: its parts were replaced or compiled "
            "since; build the regularizer after that"
        )
    return module


@contextmanager
def _hooked(core: nn.Module, hooks: list[tuple[nn.Module, Callable[..., None]]]) -> Iterator[None]:
    if id(core) in _running:
        raise RuntimeError(
            f"a regularizer is already running on this {type(core).__name__}: they cannot be nested; call "
            "them one after the other, or give one both jobs with layers="
        )
    _running.add(id(core))
    handles = []
    try:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(hook))
        with parts_uncompiled(core):
            yield
    finally:
        for handle in handles:
            handle.remove()
        _running.discard(id(core))


def _has_rows(t: Any, rows: int) -> bool:
    return isinstance(t, Tensor) and t.ndim > 0 and t.shape[0] == rows
