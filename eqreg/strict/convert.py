"""From plain networks to strict ones, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from math import sqrt
from typing import Any, Literal, TypeVar

from torch import nn

from ..symmetry import FieldType, Group
from ..typed import typed
from .conv import GroupConv2d, exact_on_grid
from .fourier import FourierConv2d

M = TypeVar("M", bound=nn.Module)


@typed
def to_plain(module: nn.Module) -> nn.Module:
    """The same network with ordinary convolutions in place of strict layers.

    What it computes is the same up to rounding; its weights are free, so training would lose the
    symmetry. Strict layers are those with a method ``to_plain``.

    Args:
        module: a strict layer, or any module that holds some. It is not changed.

    Returns:
        A deep copy, or an ``nn.Conv2d`` for a layer.

    >>> from eqreg import C4
    >>> to_plain(nn.Sequential(GroupConv2d(C4.field("1t"), C4.field("1r"), 3), nn.ReLU()))
    Sequential(
      (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): ReLU()
    )
    """
    strict: list[Any] = [m for m in module.modules() if hasattr(m, "to_plain")]
    return _copy_with(module, {m: m.to_plain() for m in strict})


@typed
def equivariant(
    model: M,
    group: Group,
    *,
    match: Literal["width", "parameters"] = "width",
    layer: Callable[..., nn.Module] | None = None,
) -> M:
    """The strict twin of a plain network: its convolutions become group convolutions.

    The first convolution reads an image and the last one writes one (trivial fields); all features
    between are regular fields. Weights are drawn anew.

    * ``match="width"``: as many channels, hence the same time and memory, and about ``1 / |G|`` of
      the parameters.
    * ``match="parameters"``: as many parameters, as nearly as the fields allow, hence about
      ``sqrt(|G|)`` times the channels and ``|G|`` times the operations.

    Args:
        model: convolutions with square kernels, and between them only what treats all channels alike
            and keeps their number: pointwise functions, pooling, sums. It is not changed.
        group: any group that the layer supports.
        match: what the twin has in common with the model.
        layer: ``GroupConv2d``, ``FourierConv2d`` or ``strict.escnn.EscnnConv2d``. If not given, the
            first if the group moves pixels to pixels, else the second.

    Returns:
        A new network of the same class. If it has ``reset_parameters()``, that is called.

    Raises:
        ValueError: for a layer that has no strict twin, or a width that the group does not divide.

    Taught in: notebooks/07.

    >>> from eqreg import C4
    >>> plain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    >>> [type(layer).__name__ for layer in equivariant(plain, C4)]
    ['GroupConv2d', 'ReLU', 'GroupConv2d']
    """
    if match not in ("width", "parameters"):
        raise ValueError(f'match must be "width" or "parameters", got {match!r}')
    if layer is None:
        layer = GroupConv2d if exact_on_grid(group) else FourierConv2d
    convolutions = _convolutions(model, group, match)
    if match == "width":
        twins = _twins(convolutions, group, 1.0, layer)
    else:
        twins = _of_equal_size(convolutions, group, layer)
    twin = _copy_with(model, twins)
    reset = getattr(twin, "reset_parameters", None)
    if callable(reset):
        reset()
    return twin


def _copy_with(module: M, replacements: dict[nn.Module, nn.Module]) -> M:
    # deepcopy takes what it finds in its memo instead of copying: shared layers stay shared, and
    # what is replaced is never copied.
    return copy.deepcopy(module, {id(old): new for old, new in replacements.items()})


def _convolutions(model: nn.Module, group: Group, match: str) -> dict[str, nn.Conv2d]:
    found = {}
    for name, m in model.named_modules():
        if isinstance(m, nn.Conv2d):
            found[name] = m
        elif any(p.numel() > 1 for p in m.parameters(recurse=False)):
            raise ValueError(
                f"no strict twin for {name or 'the model'} ({type(m).__name__}): its parameters are not "
                "those of an nn.Conv2d, and must be shared within each field"
            )
    if len(found) < 2:
        raise ValueError(
            f"expected at least two convolutions, from and to the image, got {len(found)}"
        )
    for name, conv in found.items():
        _check(name, conv)
    names = list(found)
    for name in names[:-1]:
        width = found[name].out_channels
        if match == "width" and width % group.order:
            raise ValueError(
                f"{name} has {width} channels, which the {group.order} elements of {group} do not "
                'divide; expected a multiple, or match="parameters"'
            )
    return found


def _check(name: str, conv: nn.Conv2d) -> None:
    for what, given, expected in (
        ("dilation", conv.dilation, (1, 1)),
        ("groups", conv.groups, 1),
        ("padding_mode", conv.padding_mode, "zeros"),
    ):
        if given != expected:
            raise ValueError(
                f"no strict twin for {name}: expected {what}={expected!r}, got {given!r}"
            )
    if conv.padding == "same" and conv.kernel_size[0] % 2 == 0:
        raise ValueError(
            f'{name} pads an even kernel {conv.kernel_size} with padding="same", one pixel more on one '
            "side than on the other, which no rotation survives; expected the same padding on all sides"
        )
    for what, pair in (
        ("kernel_size", conv.kernel_size),
        ("stride", conv.stride),
        ("padding", conv.padding),
    ):
        if not isinstance(pair, str) and pair[0] != pair[1]:
            raise ValueError(f"no strict twin for {name}: expected a square {what}, got {pair}")


def _twins(
    convolutions: dict[str, nn.Conv2d], group: Group, scale: float, layer: Callable[..., nn.Module]
) -> dict[nn.Module, nn.Module]:
    """A strict layer for each convolution, the hidden widths multiplied by about ``scale``."""

    def hidden(channels: int) -> str:
        return f"{max(1, round(scale * channels / group.order))}r"

    twins: dict[nn.Module, nn.Module] = {}
    for i, conv in enumerate(convolutions.values()):
        last = i == len(convolutions) - 1
        size = conv.kernel_size[0]
        if isinstance(conv.padding, str):
            padding = (size - 1) // 2 if conv.padding == "same" else 0
        else:
            padding = conv.padding[0]
        twin = layer(
            FieldType(group, f"{conv.in_channels}t" if i == 0 else hidden(conv.in_channels)),
            FieldType(group, f"{conv.out_channels}t" if last else hidden(conv.out_channels)),
            size,
            stride=conv.stride[0],
            padding=padding,
            bias=conv.bias is not None,
        )
        twins[conv] = twin.to(conv.weight).train(conv.training)
    return twins


def _of_equal_size(
    convolutions: dict[str, nn.Conv2d], group: Group, layer: Callable[..., nn.Module]
) -> dict[nn.Module, nn.Module]:
    """The twins whose number of parameters is nearest to the convolutions' own."""
    wanted = _parameters(convolutions.values())
    widest = max(conv.out_channels for conv in list(convolutions.values())[:-1])
    # Between hidden layers a group convolution of F fields has |G| F^2 K^2 weights, so this is a good
    # guess; images at the ends and filters with fewer coefficients ask for a second one.
    fields = max(1, round(widest / sqrt(group.order)))
    tried: dict[int, dict[nn.Module, nn.Module]] = {}
    while fields not in tried:
        tried[fields] = _twins(convolutions, group, fields * group.order / widest, layer)
        fields = max(1, round(fields * sqrt(wanted / _parameters(tried[fields].values()))))
    return min(tried.values(), key=lambda twins: abs(_parameters(twins.values()) - wanted))


def _parameters(modules: Iterable[nn.Module]) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())
