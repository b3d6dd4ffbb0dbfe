"""Which layers of a model are compared under the group, and how their channels transform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .tokens import IMAGE
from .wrappers import need_parameters

Selector = str | type | Callable[[str, nn.Module], bool]
Fields = Mapping[str, FieldType | str]

ROOT = "(model)"
GIVEN = "given by fields="
_CANDIDATES = (nn.Conv2d, nn.ConvTranspose2d)
_NOT_OF_IMAGES = (nn.Conv1d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose3d)
# An output this narrow that cannot be a regular field is read as an image: grey, or RGB.
_IMAGE_CHANNELS = 3


@dataclass(frozen=True)
class Planned:
    """One row of the plan. ``field`` is None for a layer that is skipped, ``reason`` says why."""

    name: str
    kind: str
    channels: int | None
    field: FieldType | None
    reason: str
    layout: str = IMAGE


@dataclass(frozen=True)
class Plan:
    """The layers looked at, in the order of ``model.named_modules()``; printing it gives a table."""

    group: Group
    rows: tuple[Planned, ...]

    @property
    def fields(self) -> dict[str, FieldType]:
        """Name and field type of every layer that is compared."""
        return {row.name: row.field for row in self.rows if row.field is not None}

    @property
    def layouts(self) -> dict[str, str]:
        """How what those layers put out is laid out: images, tokens, windows (``layers.tokens``)."""
        return {row.name: row.layout for row in self.rows if row.field is not None}

    def __str__(self) -> str:
        head = ("layer", "type", "channels", f"{self.group} field", "why")
        cells = [
            (r.name, r.kind, str(r.channels or "?"), str(r.field or "skipped"), r.reason)
            for r in self.rows
        ]
        return as_table([head, *cells])


def as_table(rows: list[tuple[str, ...]]) -> str:
    """Rows of text in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def make_plan(
    model: nn.Module,
    group: Group,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
) -> Plan:
    """Decide which layers are compared and with which field.

    Without ``layers`` these are all convolutions: a layer whose channels are a multiple of the group
    order is a sum of regular fields; a narrow one that is not, and a last one with as many channels as
    the network's input, is an image (trivial); the rest is skipped with the reason. Strict layers
    that carry an ``out_field`` keep it.

    Raises:
        TypeError, ValueError: for selectors, names or fields that do not fit the model.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(group, Group):
        raise TypeError(f"group must be a Group such as C4, got {group!r}")
    if group.order == 1:
        raise ValueError(f"{group} holds the identity alone: there is nothing to compare")
    need_parameters(model, whole=False)
    layers = layers if layers is None else selectors(layers)  # an iterator is read once
    modules = {name or ROOT: module for name, module in model.named_modules()}
    wanted = chosen(modules, layers)
    given = overrides(modules, group, fields)
    names = [name for name in modules if name in wanted or name in given]
    guess = _Guess(modules, group)
    rows = tuple(guess.row(name, given.get(name)) for name in names)
    for row in rows:
        if row.field is None and row.name in selectors(layers):
            raise ValueError(
                f"layer {row.name!r} cannot be compared: {row.reason}; give its type, for example "
                f'fields={{{row.name!r}: {group}.field("8r")}}'
            )
    plan = Plan(group, rows)
    if not plan.fields:
        found = f"\n{plan}" if rows else f" {type(model).__name__} holds no convolution of images."
        if not rows and any(isinstance(m, _NOT_OF_IMAGES) for m in modules.values()):
            found += " Its convolutions of volumes or signals are tied by EquivarianceDecay(..., example=x)."
        raise ValueError(
            f"no layer to compare under {group}: channels must be a multiple of {group.order}, or give "
            f"layers= and fields=.{found}"
        )
    return plan


def chosen(modules: dict[str, nn.Module], layers: Selector | Iterable[Selector] | None) -> set[str]:
    """Names of the modules that ``layers=`` means; convolutions and strict layers if nothing is given.

    Raises:
        TypeError, ValueError: for selectors that are none, or that match nothing.
    """
    if layers is None:
        return {n for n, m in modules.items() if isinstance(m, _CANDIDATES) or own_field(m)}
    found: set[str] = set()
    for selector in selectors(layers):
        if isinstance(selector, str):
            found |= matching(modules, selector, "layers")
        elif isinstance(selector, type):
            of_type = {n for n, m in modules.items() if isinstance(m, selector)}
            if not of_type:
                raise ValueError(f"layers={selector.__name__}: the model has no such module")
            found |= of_type
        elif callable(selector):
            found |= {n for n, m in modules.items() if selector(n, m)}
        else:
            raise TypeError(
                f"layers takes names, globs, module types or a predicate(name, module), got {selector!r}"
            )
    return found


def selectors(layers: Selector | Iterable[Selector] | None) -> tuple[Selector, ...]:
    """What was given as ``layers=``, as a tuple."""
    if layers is None:
        return ()
    if isinstance(layers, str | type) or callable(layers):
        return (layers,)
    if not isinstance(layers, Iterable):
        raise TypeError(
            f"layers takes names, globs, module types or a predicate(name, module), got {layers!r}"
        )
    return tuple(layers)


def overrides(
    modules: dict[str, nn.Module], group: Group, fields: Fields | None
) -> dict[str, FieldType]:
    """What ``fields=`` says, by module name.

    Raises:
        TypeError, ValueError: for types that do not fit, or names that match nothing.
    """
    found: dict[str, FieldType] = {}
    if fields is not None and not isinstance(fields, Mapping):
        raise TypeError(
            f'fields: expected types by layer name, for example {{"head": "3t"}}, got {fields!r:.60}'
        )
    for pattern, field in (fields or {}).items():
        if isinstance(field, str):
            field = FieldType(group, field)
        if not isinstance(field, FieldType):
            raise TypeError(
                f'fields[{pattern!r}] must be a FieldType or a string like "3t + 8r", got {field!r}'
            )
        if field.group != group:
            raise ValueError(
                f"fields[{pattern!r}] is a field of {field.group}, but the regularizer's group is {group}"
            )
        for name in matching(modules, pattern, "fields"):
            channels = _channels(modules[name])
            if channels not in (None, field.channels):
                raise ValueError(
                    f"fields[{pattern!r}] = {field!r} has {field.channels} channels, but layer {name!r} "
                    f"puts out {channels}"
                )
            found[name] = field
    return found


def matching(modules: dict[str, nn.Module], pattern: str, argument: str) -> set[str]:
    """Names of the modules that a name or a glob means.

    Raises:
        ValueError: there is none; the message names the closest.
    """
    # A glob means layers; the whole model is compared only if it is named.
    found = {n for n in modules if n == pattern or (n != ROOT and fnmatchcase(n, pattern))}
    if not found:
        near = get_close_matches(pattern, modules, 3)
        hint = f"; did you mean {', '.join(map(repr, near))}?" if near else ""
        raise ValueError(
            f"{argument}: no layer of the model is called or matches {pattern!r}{hint}"
        )
    return found


class _Guess:
    """Field types from channel counts, and what the neighbours of a layer say about it."""

    def __init__(self, modules: dict[str, nn.Module], group: Group) -> None:
        self.modules, self.group = modules, group
        leaves = [name for name, m in modules.items() if not any(m.children())]
        self.follower = dict(zip(leaves, leaves[1:], strict=False))
        convolutions = [name for name, m in modules.items() if isinstance(m, _CANDIDATES)]
        self.last = convolutions[-1] if convolutions else None
        self.image = modules[convolutions[0]].in_channels if convolutions else None
        mixing = [n for n, m in modules.items() if isinstance(m, (*_CANDIDATES, nn.Linear))]
        last: Any = modules[mixing[-1]] if mixing and mixing[-1] == self.last else None
        # A last layer that narrows is read as an output, such as a score for each class.
        self.narrows = last is not None and last.out_channels < last.in_channels

    def row(self, name: str, override: FieldType | None) -> Planned:
        module = self.modules[name]
        channels = _channels(module)
        field, reason = (override, GIVEN) if override else self._field(name, channels)
        return Planned(name, type(module).__name__, channels, field, reason)

    def _field(self, name: str, channels: int | None) -> tuple[FieldType | None, str]:
        group, order = self.group, self.group.order
        own = own_field(self.modules[name])
        if own is not None:
            if own.group == group:
                return own, "the layer's own field"
            return None, f"the layer's own field belongs to {own.group}"
        if isinstance(self.modules[name], _NOT_OF_IMAGES):
            return None, "its features are no images (B, C, H, W); a decay ties it with example="
        if channels is None:
            return None, "it does not say how many channels it puts out"
        follower = self.modules.get(self.follower.get(name, ""))
        if isinstance(follower, nn.PixelShuffle):
            return None, "feeds PixelShuffle, whose sub-pixel channels are in raster order"
        if name == self.last and channels == self.image:
            return FieldType(
                group, f"{channels}t"
            ), "last layer, as many channels as the input: an image"
        if name == self.last and self.narrows and channels % order == 0:
            why = "last layer, narrower than its input: an output, which is trivial unless fields= says otherwise"
            return FieldType(group, f"{channels}t"), why
        if channels % order == 0:
            return FieldType(
                group, f"{channels // order}r"
            ), f"{channels} = {channels // order} x {order}"
        if channels <= _IMAGE_CHANNELS:
            return FieldType(group, f"{channels}t"), "too narrow for a regular field: an image"
        return None, f"{channels} channels are not a multiple of {order}"


def _channels(module: nn.Module) -> int | None:
    for attribute in ("out_channels", "num_features", "num_channels", "out_features"):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    return None


def own_field(module: nn.Module) -> FieldType | None:
    """The output type that a strict layer states itself."""
    field = getattr(module, "out_field", None)
    return field if isinstance(field, FieldType) else None
