"""The weight-space side of a plan: how the group acts on the parameters of a layer, and on which layers.

The field of a layer's output comes from the plan that the regularizer uses; here the field of its
input is added, and the normalisation layers, whose affine parameters are vectors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as state
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ._plan import ROOT, Fields, Plan, Selector, make_plan, own_field
from ._reynolds import source_index
from ._wrappers import unwrapped
from .fields import FieldType
from .groups import Group

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_NORMS = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm)
_IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class TiedLayer:
    """One row of a :class:`WeightPlan`. ``out_field`` is None for a layer that is left free."""

    name: str
    module: nn.Module
    in_field: FieldType | None  # None for vectors: normalisation layers
    out_field: FieldType | None
    reason: str

    _indices: dict[Any, Tensor] = state(default_factory=dict, repr=False, compare=False)

    def tensors(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The layer's trainable parameters, each with the index that :func:`reynolds` reads it by."""
        module: Any = self.module
        names = ("weight", "bias")
        for name in names:
            tensor = getattr(module, name, None)
            if tensor is not None and tensor.requires_grad:
                key = name, tensor.device
                if key not in self._indices:
                    self._indices[key] = self._index(name, tensor)
                yield tensor, self._indices[key]

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
        return {row.name: row for row in self.rows if row.out_field is not None}

    def __str__(self) -> str:
        head = ("layer", "type", f"{self.group} in", "out", "why")
        cells = [
            (
                r.name,
                type(r.module).__name__,
                str(r.in_field or "-"),
                str(r.out_field or "left free"),
                r.reason,
            )
            for r in self.rows
        ]
        widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in [head, *cells]
        )


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
    plan = make_plan(model, group, layers, fields)
    modules = {name or ROOT: module for name, module in model.named_modules()}
    wanted = _wanted(modules, group, in_fields)
    tying = _Tying(modules, plan, wanted)
    named = set(plan.fields) if layers is not None or fields else set()
    rows = tuple(row for name in modules if (row := tying.row(name, layers is None)))
    for row in rows:
        if row.out_field is None and row.name in named and not _strict(row.module):
            raise ValueError(f"layer {row.name!r} cannot be tied: {row.reason}")
    result = WeightPlan(group, rows)
    if not result.tied:
        raise ValueError(f"no parameters to tie under {group}:\n{result}")
    return result


def _wanted(
    modules: dict[str, nn.Module], group: Group, in_fields: Fields | None
) -> dict[str, FieldType]:
    wanted: dict[str, FieldType] = {}
    for name, field in (in_fields or {}).items():
        if name not in modules:
            raise ValueError(f"in_fields: no layer of the model is called {name!r}")
        field = group.field(field) if isinstance(field, str) else field
        channels = _inputs(modules[name])
        if not isinstance(field, FieldType) or field.group != group:
            raise TypeError(
                f'in_fields[{name!r}] must be a field of {group} or a string like "3t + 8r", got {field!r}'
            )
        if channels != field.channels:
            raise ValueError(
                f"in_fields[{name!r}] = {field!r} has {field.channels} channels, but layer {name!r} takes in "
                f"{channels}"
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
        self.first = next((n for n, m in modules.items() if isinstance(m, _CONVOLUTIONS)), None)
        self.seen: list[FieldType] = []
        self.known: set[int] = set()

    def row(self, name: str, norms: bool) -> TiedLayer | None:
        module, planned = self.modules[name], self.rows.get(name)
        if planned is None:
            if norms and isinstance(module, _NORMS):
                return self._norm(name, module)
            return None
        out_field, reason, in_field = planned.field, planned.reason, None
        if out_field is not None:
            in_field, problem = self._checked(name, module, out_field)
            self.seen.append(out_field)
            if problem:
                out_field, in_field, reason = None, None, problem
        if out_field is not None and not isinstance(module, _NORMS):
            self.known.add(id(module.weight))
        return TiedLayer(name, module, in_field, out_field, reason)

    def _checked(
        self, name: str, module: nn.Module, out_field: FieldType
    ) -> tuple[FieldType | None, str]:
        """The field of the layer's input, or what forbids to tie the layer."""
        if _strict(module):
            return None, "strict: equivariant whatever its weights"
        if is_parametrized(module):
            return None, "its weight is computed from others (parametrized)"
        weight = getattr(module, "weight", None)
        if isinstance(module, _NORMS) and weight is not None and weight.ndim == 1:
            return None, ""
        if not isinstance(module, (*_CONVOLUTIONS, nn.Linear)):
            return None, "it is no convolution, linear or normalisation layer"
        if id(weight) in self.known:
            return None, "shares its weight with an earlier layer"
        in_field = self.wanted.get(name) or self._in_field(name, _inputs(module))
        if in_field is None:
            return (
                None,
                f"give in_fields={{{name!r}: ...}} for its {_inputs(module)} input channels",
            )
        swap = isinstance(module, nn.ConvTranspose2d)
        ends = (out_field, in_field) if swap else (in_field, out_field)
        try:
            source_index(*ends, getattr(module, "groups", 1), tuple(module.weight.shape[2:]), "cpu")
        except ValueError as error:
            return None, str(error)
        return in_field, ""

    def _in_field(self, name: str, channels: int) -> FieldType | None:
        group = self.plan.group
        if name == self.first:
            return group.field(f"{channels}t")
        for field in reversed(self.seen):
            if field.channels == channels:
                return field
        if channels % group.order == 0:
            return group.field(f"{channels // group.order}r")
        return group.field(f"{channels}t") if channels <= _IMAGE_CHANNELS else None

    def _norm(self, name: str, module: nn.Module) -> TiedLayer | None:
        weight = getattr(module, "weight", None)
        if weight is None:
            return None
        field = next((f for f in reversed(self.seen) if f.channels == weight.numel()), None)
        if field is None or weight.ndim != 1:
            return TiedLayer(name, module, None, None, "no layer before it has its channels")
        return TiedLayer(name, module, None, field, "follows a layer with its channels")


def _inputs(module: nn.Module) -> int:
    for attribute in ("in_channels", "in_features"):
        if isinstance(value := getattr(module, attribute, None), int):
            return value
    return 0


def _strict(module: nn.Module) -> bool:
    return own_field(module) is not None
