"""When layers are exactly equivariant on the pixel grid: stride divides H + 2P - K, and nothing is one-sided."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from ..symmetry.fields import FieldType
from .plan import ROOT

_DOWN = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
_PADS = (nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
_ROWS_AND_COLUMNS = ("height", "width")


def grid_hooks(model: nn.Module) -> list[tuple[nn.Module, Callable[..., None]]]:
    """Forward hooks that warn, once per module, about layers that no choice of weights makes equivariant.

    Dropout is among them while it is active: the image and its turned copy draw masks of their own.
    """
    kinds = (*_PADS, nn.ConvTranspose2d, nn.Upsample)
    hooks: list[tuple[nn.Module, Callable[..., None]]] = []
    for name, module in model.named_modules():
        if _samples(module) or isinstance(module, kinds) or _drops(module):
            hooks.append((module, _hook(name)))
    return hooks


def _samples(module: nn.Module) -> bool:
    """Convolutions and poolings, also the strict ones, which are a layer above and known by their field."""
    return isinstance(module, _DOWN) or isinstance(getattr(module, "out_field", None), FieldType)


def _drops(module: nn.Module) -> bool:
    # DropPath of timm and others drops a whole branch of an image.
    rates = [getattr(module, name, 0.0) for name in ("p", "drop_prob")]
    named = isinstance(module, nn.modules.dropout._DropoutNd) or type(module).__name__ == "DropPath"
    return named and any(isinstance(rate, float | int) and rate > 0 for rate in rates)


def _hook(name: str) -> Callable[..., None]:
    warned = False

    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal warned
        if warned or not inputs or not isinstance(inputs[0], Tensor):
            return
        problem = _problem(module, tuple(inputs[0].shape[-2:]))
        if problem:
            warned = True
            warnings.warn(f"layer {name!r}: {problem}", UserWarning, stacklevel=2)

    return hook


def _problem(module: nn.Module, size: tuple[int, ...]) -> str | None:
    if not _drops(module):
        return grid_problem(module, size)
    if not module.training:
        return None
    return (
        f"{type(module).__name__} draws one mask for the image and another for its turned copy, and the "
        "comparison takes the difference for asymmetry: an exactly equivariant network gets a penalty too; "
        "set its rate to 0 where that matters, or measure in eval mode"
    )


def grid_problem(module: nn.Module, size: tuple[int, ...]) -> str | None:
    """Why rotations by 90 or 180 degrees are not exact through this layer, or None if they are.

    Args:
        module: a convolution, pooling, padding or resampling layer.
        size: height and width of its input, in pixels.
    """
    if isinstance(module, nn.ConvTranspose2d):
        extra = module.output_padding
        return f"output_padding={extra} pads one side only; use 0" if any(extra) else None
    if isinstance(module, _PADS):
        left, right, top, bottom = module.padding
        if left == right and top == bottom:
            return None
        return f"padding {module.padding} pads one side more; pad both sides alike"
    if isinstance(module, nn.Upsample):
        return _resampling_problem(module, size)
    if not _samples(module):
        return None
    kernels, strides, dilations = _window(module)
    if isinstance(getattr(module, "padding", 0), str):
        uneven = module.padding == "same" and any(
            d * (k - 1) % 2 for d, k in zip(dilations, kernels, strict=True)
        )
        return f"padding='same' with kernel {kernels} pads one side more" if uneven else None
    pads = _pair(getattr(module, "padding", 0))
    for axis, h, k, s, p, d in zip(
        _ROWS_AND_COLUMNS, size, kernels, strides, pads, dilations, strict=True
    ):
        extent = d * (k - 1) + 1
        rest = (h + 2 * p - extent) % s
        if rest:
            return (
                f"{axis} H={h}, kernel K={extent}, stride s={s}, padding P={p} sample the grid off centre: a "
                f"turned image is sampled at other pixels. Exact iff s | H+2P-K, here {s} does not divide "
                f"{h + 2 * p - extent}; {_advice(h, extent, s, p)}"
            )
    return None


def _window(module: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    kernels = _pair(module.kernel_size)
    stride = kernels if module.stride is None else _pair(module.stride)
    return kernels, stride, _pair(getattr(module, "dilation", 1))


def _advice(h: int, extent: int, s: int, p: int) -> str:
    """Sizes that serve this layer and those that halve the image; or another layer where there are none."""
    if (2 * p - extent) % s == 0:
        return f"crop so that this layer gets a multiple of {s}, as U-Nets need anyway"
    rest = (extent - 2 * p) % s
    below = h - (h - rest) % s
    near = " or ".join(str(n) for n in (below, below + s) if n > 0)
    even = max(extent + (extent - s) % 2, s)
    return (
        f"it is at H={near}, but never at a multiple of {s}, which layers that halve the image want: kernel "
        f"{even} with padding {(even - s) // 2} is exact at all of these"
    )


def _resampling_problem(module: nn.Upsample, size: tuple[int, ...]) -> str | None:
    # A ramp, mirrored before or after: whatever the mode, its values must agree. forward, since hooks call this.
    ramp = torch.arange(size[0] * size[1], dtype=torch.float64).reshape(1, 1, *size)
    difference = module.forward(ramp.flip((2, 3))) - module.forward(ramp).flip((2, 3))
    if float(difference.abs().max()) <= 1e-9 * ramp.numel():
        return None
    scale = module.scale_factor if module.size is None else f"to size {module.size}"
    return (
        f"mode={module.mode!r} by {scale} takes pixels off centre at H={size[0]}: nearest resampling is exact "
        "for whole factors, 'bilinear' without align_corners for all"
    )


def warn_of_strides(model: nn.Module, stacklevel: int = 2) -> None:
    """Warn about strided layers that are exact at no multiple of their stride.

    That is what can be said without an input: whether other layers are exact depends on its size.
    """
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if not _samples(module) or isinstance(getattr(module, "padding", 0), str):
            continue
        kernels, strides, dilations = _window(module)
        pads = _pair(getattr(module, "padding", 0))
        for k, s, p, d in zip(kernels, strides, pads, dilations, strict=True):
            if rest := (d * (k - 1) + 1 - 2 * p) % s:
                found[name or ROOT] = (
                    f"kernel {k}, stride {s}, padding {p}: exact if its input is {rest} mod {s} wide"
                )
    if found:
        names, first = ", ".join(map(repr, found)), next(iter(found.values()))
        warnings.warn(
            f"strided layers that are exactly equivariant at no multiple of their stride, whatever their weights: "
            f"{names} (first: {first}); kernels as wide as the stride, or wider by an even number with half of it "
            "as padding, are",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


@torch.no_grad()
def exact_sizes(
    model: nn.Module, x: Tensor, sizes: Iterable[int], call: Callable[..., Any] | None = None
) -> list[int]:
    """Sides of square images at which the model runs and all its layers are exact on the grid.

    Args:
        model: any network; it runs in eval mode on one image of each size.
        x: an input (B, C, H, W), for its channels, device and type.
        sizes: sides to try, for example ``range(32, 97)``.
        call: called with the image instead of the model, if that needs more inputs.

    Returns:
        The sides that serve strides and U-Nets alike; none if the network has to be changed.
    """
    found: list[int] = []
    training = {module: module.training for module in model.modules()}
    bad: list[str] = []

    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            problem = _problem(module, tuple(inputs[0].shape[-2:]))
            bad.extend([problem] if problem else [])

    handles = [module.register_forward_hook(hook) for module, _ in grid_hooks(model)]
    try:
        model.eval()
        for side in sizes:
            bad.clear()
            try:
                (call or model)(x.new_zeros(1, x.shape[1], side, side))
            except (RuntimeError, ValueError, AssertionError):
                continue  # a size that the network refuses
            if not bad:
                found.append(side)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return found
