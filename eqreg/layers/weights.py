"""The weight-space side of a plan: how the group acts on the parameters of a layer, and on which layers.

The field of a layer's output comes from the plan that the regularizer uses; here the field of its
input is added, and the normalisation layers, whose affine parameters are vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as state
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..checks import wide
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .plan import (
    GIVEN,
    ROOT,
    Fields,
    Plan,
    Selector,
    as_table,
    make_plan,
    matching,
    own_field,
    selectors,
)
from .reynolds import Index, projected, reynolds, source_index
from .wrappers import need_parameters, unwrapped

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
# Layers whose parameters are one number for each channel.
_VECTORS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm, nn.PReLU)
_IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class TiedLayer:
    """One row of a :class:`WeightPlan`. ``out_field`` is None for a layer that is left free."""

    name: str
    module: nn.Module
    in_field: FieldType | None  # None where all parameters are vectors: normalisation layers, PReLU
    out_field: FieldType | None
    reason: str
    names: tuple[str, ...] = ("weight", "bias")  # the parameters that are tied

    _indices: dict[Any, Index] = state(default_factory=dict, repr=False, compare=False)

    @property
    def is_tied(self) -> bool:
        """Whether the group acts on any of the layer's parameters."""
        return self.out_field is not None

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, type, input, output and reason, for a table."""
        ends = str(self.in_field or "-"), str(self.out_field or "left free")
        return (self.name, type(self.module).__name__, *ends, self.reason)

    def tensors(self, trainable: bool = True) -> Iterator[tuple[Tensor, Index]]:
        """The layer's parameters, each with the index that :func:`reynolds` reads it by.

        Args:
            trainable: leave out the frozen ones.
        """
        for name in self.names:
            # At every step of a decay, for every parameter: modules are asked through a slow __getattr__.
            tensor = self.module._parameters.get(name)
            if tensor is None:
                tensor = getattr(self.module, name, None)
            if tensor is not None and (tensor.requires_grad or not trainable):
                key = name, tensor.device
                if key not in self._indices:
                    self._indices[key] = self._index(name, tensor)
                yield tensor, self._indices[key]

    def tie_statistics_(self) -> None:
        """Project the running statistics of a batch normalisation, vectors like its scale."""
        for name in ("running_mean", "running_var"):
            tensor = getattr(self.module, name, None)
            if isinstance(tensor, Tensor) and self.out_field is not None:
                tensor.copy_(
                    reynolds(tensor, source_index(None, self.out_field, 1, (), tensor.device))
                )

    def asymmetric_share(self) -> Tensor:
        """Energy outside the equivariant subspace over the whole energy, which gets no gradient."""
        distance, energy = [], []
        for tensor, index in self.tensors(trainable=False):
            whole = wide(tensor)
            distance.append((whole - projected(whole, index)).square().sum())
            energy.append(whole.detach().square().sum())
        total = torch.stack(energy).sum()
        return torch.stack(distance).sum() / total.clamp_min(torch.finfo(total.dtype).tiny)

    def _index(self, name: str, tensor: Tensor) -> Tensor:
        assert self.out_field is not None
        if name == "bias" or self.in_field is None:
            return source_index(None, self.out_field, 1, (), tensor.device)
        # A transposed convolution is the adjoint of one from its output to its input.
        swap = isinstance(self.module, nn.ConvTranspose2d)
        ends = (self.out_field, self.in_field) if swap else (self.in_field, self.out_field)
        groups = getattr(self.module, "groups", 1)
        return source_index(*ends, groups, tuple(tensor.shape[2:]), tensor.device)


@dataclass(frozen=True)
class WeightPlan:
    """The layers looked at, in the order of ``model.named_modules()``; printing it gives a table."""

    group: Group
    rows: tuple[TiedLayer, ...]

    @property
    def tied(self) -> dict[str, TiedLayer]:
        """The layers whose parameters the group acts on, by name."""
        return {row.name: row for row in self.rows if row.is_tied}

    def __str__(self) -> str:
        head = ("layer", "type", f"{self.group} in", "out", "why")
        return as_table([head, *(r.cells() for r in self.rows)])


def make_weight_plan(
    model: nn.Module,
    group: Group,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    in_fields: Fields | None = None,
) -> WeightPlan:
    """Decide which parameters the group acts on, and how.

    Output fields are those of the regularizer's plan. The input of the first convolution is an image;
    that of another layer has the field of the nearest earlier layer with as many channels, or else as
    many regular fields as fit. Without ``layers``, normalisation layers follow their predecessor.

    Raises:
        TypeError, ValueError: for arguments that do not fit the model, or a model without such layers.
    """
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        need_parameters(model)
    layers = None if layers is None else selectors(layers)
    plan = make_plan(model, group, layers, fields)
    modules = {name or ROOT: module for name, module in model.named_modules()}
    tying = _Tying(modules, plan, _wanted(modules, group, in_fields))
    rows = tuple(row for name in modules if (row := tying.row(name, layers is None)))
    given = {r.name for r in plan.rows if layers is not None or r.reason == GIVEN}
    # A glob also matches containers and activations, which hold nothing to tie.
    exact = {s for s in selectors(layers) if isinstance(s, str)}
    kinds = (*_CONVOLUTIONS, nn.Linear, *_VECTORS)
    for row in rows:
        named = row.name in exact or isinstance(row.module, kinds) or row.reason == GIVEN
        if row.out_field is None and row.name in given and named and not _strict(row.module):
            raise ValueError(f"layer {row.name!r} cannot be tied: {row.reason}")
    result = WeightPlan(group, rows)
    if not result.tied:
        raise ValueError(f"no parameters to tie under {group}:\n{result}")
    return result


def _wanted(
    modules: dict[str, nn.Module], group: Group, in_fields: Fields | None
) -> dict[str, FieldType]:
    wanted: dict[str, FieldType] = {}
    for pattern, field in (in_fields or {}).items():
        field = FieldType(group, field) if isinstance(field, str) else field
        if not isinstance(field, FieldType) or field.group != group:
            raise TypeError(
                f'in_fields[{pattern!r}] must be a field of {group} or a string like "3t + 8r", got {field!r}'
            )
        for name in matching(modules, pattern, "in_fields"):
            channels = _inputs(modules[name])
            if channels is None:
                raise ValueError(
                    f"in_fields: layer {name!r}, a {type(modules[name]).__name__}, has no input channels"
                )
            if channels != field.channels:
                raise ValueError(
                    f"in_fields[{pattern!r}] = {field!r} has {field.channels} channels, but layer {name!r} "
                    f"takes in {channels}"
                )
            wanted[name] = field
    return wanted


class _Tying:
    """Input fields from the layers that came before."""

    def __init__(
        self, modules: dict[str, nn.Module], plan: Plan, wanted: Mapping[str, FieldType]
    ) -> None:
        self.modules, self.plan, self.wanted = modules, plan, wanted
        self.rows = {row.name: row for row in plan.rows}
        # The first layer that mixes channels reads the image.
        self.first = next(
            (n for n, m in modules.items() if isinstance(m, _CONVOLUTIONS) or _strict(m)), None
        )
        self.seen: list[FieldType] = []
        self.known: set[int] = set()

    def row(self, name: str, vectors: bool) -> TiedLayer | None:
        """The layer's row; None for a module that is none of ours."""
        module, planned = self.modules[name], self.rows.get(name)
        if planned is None:
            return (
                self._follower(name, module) if vectors and isinstance(module, _VECTORS) else None
            )
        if planned.field is None:
            return TiedLayer(name, module, None, None, planned.reason)
        row = self._tied(name, module, planned.field, planned.reason)
        self.seen.append(planned.field)
        return row

    def _tied(self, name: str, module: Any, out_field: FieldType, reason: str) -> TiedLayer:
        def free(why: str) -> TiedLayer:
            return TiedLayer(name, module, None, None, why)

        if _strict(module):
            return free("strict: equivariant whatever its weights")
        if isinstance(module, _VECTORS):
            return self._vectors(name, module, out_field, reason)
        if not isinstance(module, (*_CONVOLUTIONS, nn.Linear)):
            return free(
                "it is no convolution of images, linear or normalisation layer; give example= to trace it"
            )
        if is_parametrized(module) or "weight" not in module._parameters:
            return free("its weight is computed from others (parametrized)")
        in_field = self.wanted.get(name) or self._in_field(name, module)
        if in_field is None:
            return free(
                f"give in_fields={{{name!r}: ...}} for its {_inputs(module)} input channels"
            )
        row = TiedLayer(name, module, in_field, out_field, reason)
        if id(module.weight) in self.known:
            if module.bias is None:
                return free("shares its weight with an earlier layer")
            return replace(row, names=("bias",), reason="shares its weight with an earlier layer")
        try:
            row._index("weight", module.weight)
        except ValueError as error:
            return free(str(error))
        self.known.add(id(module.weight))
        return row

    def _in_field(self, name: str, module: nn.Module) -> FieldType | None:
        group, channels = self.plan.group, _inputs(module) or 0
        if name == self.first:
            return FieldType(group, f"{channels}t")
        for field in reversed(self.seen):
            if field.channels == channels:
                return field
        if channels % group.order == 0:
            return FieldType(group, f"{channels // group.order}r")
        return FieldType(group, f"{channels}t") if channels <= _IMAGE_CHANNELS else None

    def _follower(self, name: str, module: Any) -> TiedLayer | None:
        """A layer of vectors that the plan does not name takes the field of the layer before it."""
        weight = getattr(module, "weight", None)
        if weight is None or (isinstance(module, nn.PReLU) and weight.numel() == 1):
            return None
        field = next((f for f in reversed(self.seen) if f.channels == weight.numel()), None)
        if weight.ndim == 1 and field is None:
            return TiedLayer(name, module, None, None, "no layer before it has its channels")
        return self._vectors(name, module, field, "follows a layer with its channels")

    def _vectors(
        self, name: str, module: Any, out_field: FieldType | None, reason: str
    ) -> TiedLayer:
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 1:
            why = "it has no parameters" if weight is None else "its parameters vary over the image"
            return TiedLayer(name, module, None, None, why)
        return TiedLayer(name, module, None, out_field, reason)


def _inputs(module: nn.Module) -> int | None:
    for attribute in ("in_channels", "in_features"):
        if isinstance(value := getattr(module, attribute, None), int):
            return value
    return None


def _strict(module: nn.Module) -> bool:
    return own_field(module) is not None
