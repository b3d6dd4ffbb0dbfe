"""When strided layers are exactly equivariant on the pixel grid: stride divides H + 2P - K."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.utils import _pair

from ..symmetry.fields import FieldType

_DOWN = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_ROWS_AND_COLUMNS = ("height", "width")


def grid_hooks(model: nn.Module) -> list[tuple[nn.Module, Callable[..., None]]]:
    """Forward hooks that warn, once per module, about layers that no choice of weights makes equivariant."""
    hooks: list[tuple[nn.Module, Callable[..., None]]] = []
    for name, module in model.named_modules():
        if _samples(module) or isinstance(module, nn.ConvTranspose2d):
            hooks.append((module, _hook(name)))
    return hooks


def _samples(module: nn.Module) -> bool:
    """Convolutions and poolings, also the strict ones, which are a layer above and known by their field."""
    return isinstance(module, _DOWN) or isinstance(getattr(module, "out_field", None), FieldType)


def _hook(name: str) -> Callable[..., None]:
    warned = False

    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal warned
        problem = (
            None if warned or not inputs else grid_problem(module, tuple(inputs[0].shape[-2:]))
        )
        if problem:
            warned = True
            warnings.warn(f"layer {name!r}: {problem}", UserWarning, stacklevel=2)

    return hook


def grid_problem(module: nn.Module, size: tuple[int, int]) -> str | None:
    """Why rotations by 90 or 180 degrees are not exact through this layer, or None if they are.

    Args:
        module: a convolution or pooling layer.
        size: height and width of its input, in pixels.
    """
    if isinstance(module, nn.ConvTranspose2d):
        extra = module.output_padding
        return f"output_padding={extra} pads one side only; use 0" if any(extra) else None
    if not _samples(module):
        return None
    kernels = _pair(module.kernel_size)
    dilations = _pair(getattr(module, "dilation", 1))
    strides = _pair(module.stride)
    if isinstance(module.padding, str):
        uneven = module.padding == "same" and any(
            d * (k - 1) % 2 for d, k in zip(dilations, kernels, strict=True)
        )
        return f"padding='same' with kernel {kernels} pads one side more" if uneven else None
    pads = _pair(module.padding)
    for axis, h, k, s, p, d in zip(
        _ROWS_AND_COLUMNS, size, kernels, strides, pads, dilations, strict=True
    ):
        extent = d * (k - 1) + 1
        rest = (h + 2 * p - extent) % s
        if rest:
            return (
                f"{axis} H={h}, kernel K={extent}, stride s={s}, padding P={p} sample the grid off centre: a "
                f"turned image is sampled at other pixels. Exact iff s | H+2P-K, here {s} does not divide "
                f"{h + 2 * p - extent}; change the crop size or the padding"
            )
    return None
