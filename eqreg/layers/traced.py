"""Plans from a trace: with an example input the types of layers are found, not guessed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as state
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .plan import GIVEN, ROOT, Fields, Plan, Planned, Selector, chosen, make_plan, overrides
from .reynolds import Index, reynolds
from .tokens import IMAGE
from .weights import TiedLayer, WeightPlan, make_weight_plan
from .wrappers import unwrapped

if TYPE_CHECKING:  # tracing is imported when an example is given, so that the package loads fast
    from .trace import Ties


@dataclass(frozen=True)
class TracedLayer(TiedLayer):
    """A module with parameters of its own, tied by the trace or left free."""

    _index_of: Mapping[str, Index | None] = state(default_factory=dict, repr=False, compare=False)

    @property
    def is_tied(self) -> bool:
        """Whether the group acts on any of the layer's parameters."""
        return bool(self.names)

    def tie_statistics_(self) -> None:
        """Project the running statistics of a batch normalisation."""
        for name in ("running_mean", "running_var"):
            tensor = getattr(self.module, name, None)
            if isinstance(tensor, Tensor) and (index := self._index_of.get(name)) is not None:
                tensor.copy_(reynolds(tensor, index.to(tensor.device)))

    def cells(self) -> tuple[str, str, str, str, str]:
        """Name, type, input, output and reason, for a table."""
        name, kind, _, out, reason = super().cells()
        return name, kind, "traced" if self.names else "-", out if self.out_field else "-", reason

    def tensors(self, trainable: bool = True) -> Iterator[tuple[Tensor, Index]]:
        """The layer's tied parameters, each with the index that ``reynolds`` reads it by."""
        for name in self.names:
            if name not in self.module._parameters:
                raise RuntimeError(
                    f"layer {self.name!r} had a parameter {name!r} when it was traced and has none now (pruned or "
                    "parametrized?); build the plan anew"
                )
            tensor = self.module._parameters[name]
            if tensor is not None and (tensor.requires_grad or not trainable):
                key = name, tensor.device
                if key not in self._indices:
                    index = self._index_of[name]
                    assert index is not None
                    self._indices[key] = index.to(tensor.device)
                yield tensor, self._indices[key]


class _Index(Mapping[str, "Index | None"]):
    """Indices of one module's parameters, computed when they are first read."""

    def __init__(self, ties: Ties, prefix: str, names: tuple[str, ...]) -> None:
        self._ties, self._prefix, self._names = ties, prefix, names

    def __getitem__(self, name: str) -> Index | None:
        if self._prefix + name not in self._ties.tied:
            raise KeyError(name)
        return self._ties.index(self._prefix + name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def weight_plan(
    model: nn.Module,
    group: Group,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    in_fields: Fields | None = None,
    example: Any = None,
) -> WeightPlan:
    """Which parameters the group acts on: as traced with ``example``, else as guessed.

    A module that the trace did not reach is planned as without an example, and its row says so.

    Raises:
        TypeError, ValueError: as for ``make_weight_plan``; also for an example that cannot be turned.
    """
    if example is None:
        return make_weight_plan(model, group, layers, fields, in_fields)
    from .trace import tie

    if in_fields:
        raise ValueError("in_fields are traced with example=; give the types of outputs by fields=")
    core = unwrapped(model)
    modules = {name or ROOT: module for name, module in core.named_modules()}
    given = overrides(modules, group, fields)
    ties = tie(core, example, group, fields={_path(n): f for n, f in given.items()})
    wanted = set(modules) if layers is None else chosen(modules, layers)
    rows = [
        row
        for name, module in modules.items()
        if name in wanted and (row := _row(name, module, ties)) is not None
    ]
    lost = [r.name for r in rows if not r.is_tied and any(_lost(r, ties))]
    guessed = _guesses(core, group, lost, fields) if lost else {}
    plan = WeightPlan(group, tuple(guessed.get(r.name, r) for r in rows))
    if not plan.tied:
        raise ValueError(f"no parameters to tie under {group}:\n{plan}")
    if ties.breaks:
        first = ties.breaks[0]
        warnings.warn(
            f"{len(ties.breaks)} operations are not equivariant at this size, whatever the weights (first: "
            f"{first.path or ROOT!r}, {first.op}: {first.reason}); eqreg.check(model, example, {group}) lists them",
            UserWarning,
            stacklevel=4,
        )
    return plan


def _path(name: str) -> str:
    return "" if name == ROOT else name


def _row(name: str, module: nn.Module, ties: Ties) -> TracedLayer | None:
    prefix = f"{name}." if name != ROOT else ""
    own = [n for n, p in module._parameters.items() if p is not None]
    if not own:
        return None
    names = tuple(n for n in own if prefix + n in ties.tied and prefix + n not in ties.untied)
    reasons = [ties.untied[prefix + n] for n in own if prefix + n in ties.untied]
    if reasons:
        reason = f"left free: {reasons[0]}"
    else:
        frozen = not any(module._parameters[n].requires_grad for n in own)  # type: ignore[union-attr]
        reason = ("traced, frozen" if frozen else "traced") if names else "nothing to tie"
    field = ties.fields.get(_path(name))
    return TracedLayer(
        name, module, None, field, reason, names, _index_of=_Index(ties, prefix, names)
    )


def _lost(row: TiedLayer, ties: Ties) -> Iterator[bool]:
    prefix = f"{row.name}." if row.name != ROOT else ""
    for name in row.module._parameters:
        yield prefix + name in ties.untied


def _guesses(
    model: nn.Module, group: Group, lost: list[str], fields: Fields | None
) -> dict[str, TiedLayer]:
    """What the plan without an example says of layers behind an operation that tracing cannot carry."""
    try:
        plan = make_weight_plan(model, group, None, fields)
    except ValueError:
        return {}
    return {
        row.name: replace(row, reason=f"not traced, guessed: {row.reason}")
        for row in plan.rows
        if row.name in lost and row.is_tied
    }


def feature_plan(
    model: nn.Module,
    group: Group,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    example: Any = None,
) -> Plan:
    """Which features are compared, and as which field: as traced with ``example``, else as guessed.

    Raises:
        TypeError, ValueError: as for ``make_plan``; also for an example that cannot be turned.
    """
    plan = make_plan(model, group, layers, fields)
    if example is None:
        return plan
    from .trace import tie

    modules = {name or ROOT: module for name, module in model.named_modules()}
    given = overrides(modules, group, fields)
    ties = tie(model, example, group, fields={_path(n): f for n, f in given.items()})
    order = {name or ROOT: i for i, name in enumerate(ties.features)}
    rows = [_traced(row, ties, given.get(row.name)) for row in plan.rows]
    rows.sort(key=lambda r: order.get(r.name, len(order)))
    found = Plan(group, tuple(rows))
    if not found.fields:
        raise ValueError(f"no layer to compare under {group}:\n{found}")
    return found


def _traced(row: Planned, ties: Ties, given: FieldType | None) -> Planned:
    path = _path(row.name)
    if given is not None:
        return replace(row, field=given, reason=GIVEN, layout=ties.layouts.get(path, IMAGE))
    if path in ties.fields:
        layout = ties.layouts[path]
        reason = "traced" if layout == IMAGE else f"traced, {layout}"
        return replace(row, field=ties.fields[path], reason=reason, layout=layout)
    if path not in ties.features:
        return replace(row, field=None, reason="it does not run")
    if not ties.features[path]:
        return replace(row, reason=f"not traced, guessed: {row.reason}")
    return replace(
        row, field=None, reason="traced: its channels are no regular and trivial fields in order"
    )
