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
from torch.utils._pytree import tree_map

from ..symmetry.actions import act, quarter_turns, rotate, valid_mask
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group
from .grid import grid_hooks
from .parts import field_means, invariant_share
from .plan import ROOT

IMAGE_DIMS = 4
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

    def join(self, value: Any) -> Any:
        """Append the turned images to every tensor of a (nested) input."""
        return tree_map(self._join, value)

    def split(self, value: Any) -> tuple[Any, Any]:
        """The upright and the turned part of a (nested) output."""
        whole = self.batch + self.pairs

        def part(rows: slice) -> Callable[[Any], Any]:
            # Scalars and tensors without the batch dimension belong to both parts.
            return lambda t: t[rows] if _has_rows(t, whole) else t

        return tree_map(part(slice(0, self.batch)), value), tree_map(
            part(slice(self.batch, None)), value
        )

    def turn(self, value: Any) -> Any:
        """The targets of the turned images: images are turned, labels of shape (B,) or (B, K) stay."""

        def turned(t: Any) -> Any:
            if not isinstance(t, Tensor) or t.ndim == 0:
                return t
            if t.shape[0] != self.batch:
                raise ValueError(
                    f"expected a target for each of the {self.batch} images, got shape {tuple(t.shape)}"
                )
            return self._turned(t[: self.pairs])

        return tree_map(turned, value)

    def _turned(self, t: Tensor) -> Tensor:
        if t.ndim >= IMAGE_DIMS:
            return rotate(t, self.g, self.group)
        if t.ndim <= _BATCH_ONLY_DIMS:
            return t
        raise ValueError(
            f"cannot tell whether shape {tuple(t.shape)} is an image: give images as (B, C, H, W), "
            "labels as (B,) or (B, K)"
        )

    def _join(self, t: Any) -> Any:
        if not isinstance(t, Tensor) or t.ndim == 0:
            return t
        if t.shape[0] == 1 and self.batch > 1:
            t = t.expand(self.batch, *t.shape[1:])
        if t.shape[0] != self.batch:
            raise ValueError(
                f"all inputs must have the batch size of the first, {self.batch}, got shape {tuple(t.shape)}"
            )
        return torch.cat([t, self._turned(t[: self.pairs])])


def batch_size(inputs: Any, model: nn.Module, group: Group) -> int:
    """Check the tensors of ``inputs`` before anything runs; the batch size of the first image.

    Raises:
        TypeError: for integer images, or inputs that hold no tensor.
        ValueError: for an empty batch, non-square images under quarter turns, mixed devices or dtypes.
    """
    images: list[Tensor] = []
    tree_map(lambda t: images.append(t) if isinstance(t, Tensor) and t.ndim > 0 else None, inputs)
    images = [t for t in images if t.ndim >= IMAGE_DIMS]
    if not images:
        raise TypeError(
            "expected at least one batch of images, a tensor (B, C, H, W), among the inputs"
        )
    odd = any((quarter_turns(g, group) or 0) % 2 for g in group.elements)
    for t in images:
        shape = tuple(t.shape)
        if t.shape[0] == 0:
            raise ValueError(f"expected at least one image, got an empty batch of shape {shape}")
        if odd and shape[-1] != shape[-2]:
            raise ValueError(
                f"{group} turns images by 90 degrees, which needs square images, got {shape[-2]} x {shape[-1]}; "
                "crop to squares or use C2"
            )
        if not (t.is_floating_point() or t.is_complex() or t.dtype == torch.bool):
            raise TypeError(
                f"expected floating point images, got {t.dtype}; convert them first, for example x.float() / 255"
            )
    _check_same("device", [str(t.device) for t in images], _parameter(model, "device"))
    # Autocast chooses dtypes by itself.
    expected = (
        None if torch.is_autocast_enabled(images[0].device.type) else _parameter(model, "dtype")
    )
    _check_same("dtype", [str(t.dtype) for t in images if t.dtype != torch.bool], expected)
    return images[0].shape[0]


def paired_forward(
    call: Callable[..., Any],
    core: nn.Module,
    fields: Mapping[str, FieldType],
    pairing: Pairing,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    squared: bool = True,
    center: bool = False,
    scale_free: bool = False,
    check_grid: bool = False,
) -> tuple[Any, dict[str, Comparison]]:
    """Run the model once over the paired batch and compare the planned layers.

    Args:
        call: what is called with the inputs: the model, or its compiled or parallel wrapper.
        core: the module that holds the planned layers.
        fields: field type of each planned layer, by name.
        pairing: group element and sizes.
        args, kwargs: the model's inputs, upright.
        squared: error as mean square, else as 2-norm of the whole half batch.
        center: take the power about each field's mean.
        scale_free: keep the graph of the power.
        check_grid: warn about strided layers that are not exact at this size.

    Returns:
        The output over all rows, and a comparison for every call of every planned layer; from the
        second call on, a reused layer's name has ``#2``, ``#3``... behind it.
    """
    found: dict[str, Comparison] = {}
    modules = {name or ROOT: module for name, module in core.named_modules()}

    def hook_for(name: str, field: FieldType) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            key, calls = name, 1
            while key in found:
                calls += 1
                key = f"{name}#{calls}"
            found[key] = _compare(key, output, field, pairing, squared, center, scale_free)

        return hook

    hooks = [(modules[n], hook_for(n, f)) for n, f in fields.items()]
    with _hooked(core, hooks + (grid_hooks(core) if check_grid else [])):
        output = call(*pairing.join(args), **pairing.join(kwargs))
    if not found:
        raise RuntimeError(
            f"none of the {len(fields)} planned layers ran: {', '.join(fields)}. Is the model compiled in "
            "place, or does its forward bypass module calls?"
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

    A checkpoint recomputes its segment after the hooks are gone and would miss our tensors.
    """
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)


def _mean_square(z: Tensor) -> Tensor:
    # By the norm: a fused kernel, three times faster forward and backward than square().mean().
    return torch.linalg.vector_norm(z).square() / z.numel()


def _has_rows(t: Any, rows: int) -> bool:
    return isinstance(t, Tensor) and t.ndim > 0 and t.shape[0] == rows


def _parameter(model: nn.Module, what: str) -> str | None:
    return next((str(getattr(p, what)) for p in model.parameters() if p.is_floating_point()), None)


def _check_same(what: str, given: list[str], expected: str | None) -> None:
    kinds = sorted(set(given))
    if len(kinds) > 1:
        raise ValueError(f"images must share one {what}, got {', '.join(kinds)}")
    if expected is not None and kinds and kinds != [expected]:
        raise ValueError(
            f"images have {what} {kinds[0]}, but the model's parameters have {expected}"
        )
