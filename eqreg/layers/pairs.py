"""One forward pass over ``[x, g x]`` with the layers of a plan compared on the way.

Metrics and regularizer share this file, so that the penalty and the measured error are one number.
Hooks exist only while :func:`paired_forward` runs; nothing is stored on the user's modules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..symmetry.actions import act, quarter_turns, rotate, valid_mask
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group
from .grid import grid_hooks
from .inputs import IMAGE_DIMS, Inputs
from .nested import map_leaves
from .parts import field_means, invariant_share
from .patches import partial_views
from .plan import ROOT
from .tokens import IMAGE, as_images
from .wrappers import parts_uncompiled

_LABEL_MAP_DIMS = 3
_BATCH_ONLY_DIMS = 2
_running: set[int] = set()


@dataclass(frozen=True)
class Comparison:
    """What one call of one layer yields: 0-d tensors, detached but for ``error`` (and a scale-free power)."""

    error: Tensor  # mean square of act(f(x)) - f(act(x)), or its 2-norm
    power: Tensor  # mean square of f(x)
    invariant_share: Tensor | None  # None if the field has no regular part


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

        def part(rows: slice) -> Callable[[Any], Any]:
            # Scalars and tensors without the batch dimension belong to both parts.
            return lambda t: t[rows] if _has_rows(t, whole) else t

        return map_leaves(part(slice(0, self.batch)), value), map_leaves(
            part(slice(self.batch, None)), value
        )

    def turn(self, value: Any) -> Any:
        """The targets of the turned images: images and maps of labels are turned, vectors (B,) or (B, K) stay."""

        def turned(t: Any) -> Any:
            if not isinstance(t, Tensor) or t.ndim == 0:
                return t
            if t.shape[0] != self.batch:
                raise ValueError(
                    f"expected a target for each of the {self.batch} images, got shape {tuple(t.shape)}"
                )
            # Whole numbers for each place are classes: tokens are floating.
            classes = t.ndim == _LABEL_MAP_DIMS and not (t.is_floating_point() or t.is_complex())
            return self._turned(t[: self.pairs], True if classes else None, None)

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
    squared: bool = True,
    center: bool = False,
    scale_free: bool = False,
    check_grid: bool = False,
    layouts: Mapping[str, str] | None = None,
) -> tuple[Any, dict[str, Comparison]]:
    """Run the model once over the paired batch and compare the planned layers.

    Args:
        call: what is called with the inputs: the model, or its compiled or parallel wrapper.
        core: the module that holds the planned layers.
        fields: field type of each planned layer, by name.
        pairing: group element and sizes.
        inputs: which of the inputs turn, and as what.
        args, kwargs: the model's inputs, upright.
        squared: error as mean square, else as 2-norm of the whole half batch.
        center: take the power about each field's mean.
        scale_free: keep the graph of the power.
        check_grid: warn about strided layers that are not exact at this size.
        layouts: of planned layers that put out something else than images, by name (``layers.tokens``).

    Returns:
        The output over all rows, and a comparison for every call of every planned layer; from the
        second call on, a reused layer's name has ``#2``, ``#3``... behind it.
    """
    found: dict[str, Comparison] = {}
    modules = {name or ROOT: module for name, module in core.named_modules()}
    gone = [name for name in fields if name not in modules]
    if gone:
        raise ValueError(
            f"the model has no layer {gone[0]!r} any more, which was planned: its parts were replaced or compiled "
            "since; build the regularizer after that"
        )

    def hook_for(name: str, field: FieldType) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            key, calls = name, 1
            while key in found:
                calls += 1
                key = f"{name}#{calls}"
            if isinstance(output, Tensor) and (layout := (layouts or {}).get(name, IMAGE)) != IMAGE:
                image = as_images(output, pairing.batch + pairing.pairs, layout)
                output = output if image is None else image
            found[key] = _compare(key, output, field, pairing, squared, center, scale_free)

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
    return output, found


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


def _compare(
    name: str,
    z: Any,
    field: FieldType,
    pairing: Pairing,
    squared: bool,
    center: bool,
    scale_free: bool,
) -> Comparison:
    # Everything happens inside the hook, on copies: what follows may overwrite z in place.
    batch, pairs = pairing.batch, pairing.pairs
    if not isinstance(z, Tensor) or z.ndim != IMAGE_DIMS or z.shape[0] != batch + pairs:
        got = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"layer {name!r}: expected features ({batch + pairs}, C, H, W) for {batch} images and {pairs} "
            f"turned ones, got {got}; leave it out with layers="
        )
    if z.shape[1] != field.channels:
        raise ValueError(
            f"layer {name!r} put out {z.shape[1]} channels, but its field {field!r} has {field.channels}"
        )
    if (quarter_turns(pairing.g, pairing.group) or 0) % 2 and z.shape[-1] != z.shape[-2]:
        raise ValueError(
            f"layer {name!r} put out features of {z.shape[-2]} x {z.shape[-1]}: a part of a square image, of "
            "which the turned image has another in this place; leave it out with layers="
        )
    # In half precision squares over- and underflow, and a long mean loses its small terms.
    wide = torch.promote_types(z.dtype, torch.float32)
    with _saving_outside_checkpoints():
        # split, not slices: its backward is one concatenation instead of two zero-padded copies.
        upright, _, turned = z.split([pairs, batch - pairs, pairs])
        moved = act(upright.to(wide), pairing.g, field)
        residual = moved - turned.to(wide)
        if quarter_turns(pairing.g, pairing.group) is None:
            h, w = z.shape[-2:]
            mask = valid_mask((h, w), pairing.g, pairing.group, device=z.device)
            residual, moved = residual[..., mask][..., None], moved[..., mask][..., None]
        error = _mean_square(residual) if squared else torch.linalg.vector_norm(residual)
        with torch.set_grad_enabled(scale_free and torch.is_grad_enabled()):
            reference = moved - field_means(moved, field) if center else moved
            power = _mean_square(reference)
    with torch.no_grad():
        return Comparison(error, power, invariant_share(moved, field))


def _saving_outside_checkpoints() -> AbstractContextManager[Any]:
    """Keep what the comparison saves for backward out of the reach of activation checkpointing.

    A checkpoint recomputes its segment after the hooks are gone and would miss our tensors. Detached,
    because an operation that saves its own output would hold itself, and a graph that is not
    back-propagated would stay for ever; torch puts the history back when it unpacks.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(Tensor.detach, lambda t: t)


def _mean_square(z: Tensor) -> Tensor:
    # By the norm: a fused kernel, three times faster forward and backward than square().mean().
    return torch.linalg.vector_norm(z).square() / z.numel()


def _has_rows(t: Any, rows: int) -> bool:
    return isinstance(t, Tensor) and t.ndim > 0 and t.shape[0] == rows
