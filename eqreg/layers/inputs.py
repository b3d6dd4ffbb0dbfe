"""Which inputs of a network turn with the group, and as what; what is checked before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..symmetry.actions import quarter_turns
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from .nested import map_leaves, tensors

IMAGE_DIMS = 4
_BATCH_ONLY_DIMS = 2

Key = int | str
Turn = Key | Iterable[Key] | Callable[[Key, Tensor], bool]
InFields = FieldType | str | Mapping[Key, Any]


@dataclass(frozen=True)
class Inputs:
    """Which inputs of a model turn, and how their channels transform."""

    group: Group
    turn: Callable[[Key, Tensor], bool] | frozenset[Key] | None = None  # None: by their shape
    in_fields: FieldType | str | Mapping[Key, Any] | None = None  # None: images, all trivial
    names: tuple[str, ...] = ()  # of the model's positional parameters

    @classmethod
    def of(
        cls, model: nn.Module, group: Group, turn: Turn | None = None, given: InFields | None = None
    ) -> Inputs:
        """Read the arguments ``turn=`` and ``in_fields=``.

        Raises:
            TypeError: they are neither keys, a predicate, nor field types.
        """
        if isinstance(turn, int | str):
            turn = (turn,)
        if turn is not None and not callable(turn):
            turn = frozenset(turn)
            if wrong := [k for k in turn if not isinstance(k, int | str)]:
                raise TypeError(
                    f"turn takes names or positions of inputs, or a predicate(name, tensor), got {wrong[0]!r}"
                )
        if given is not None and not isinstance(given, FieldType | str | Mapping):
            raise TypeError(
                f'in_fields takes a field such as "8r", or a mapping from inputs to fields, got {given!r}'
            )
        return cls(group, turn, given, _parameters(model))

    def images(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The tensors that turn.

        Raises:
            ValueError: ``turn`` or ``in_fields`` name an input that was not given.
        """
        found: list[Tensor] = []
        labels = [label for label, _ in self._labelled(args, kwargs)]
        for argument, keys in (("turn", self.turn), ("in_fields", self.in_fields)):
            for key in keys if isinstance(keys, Mapping | frozenset) else ():
                if not any(key in label for label in labels):
                    known = ", ".join(repr(label[1] or label[0]) for label in labels)
                    raise ValueError(f"{argument}: expected inputs among {known}, got {key!r}")

        for label, value in self._labelled(args, kwargs):
            found += [t for t in tensors(value) if t.ndim > 0 and self._turns(label, t)]
        return found

    def map(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        f: Callable[[Tensor, bool | None, Any], Any],
    ) -> tuple[list[Any], dict[str, Any]]:
        """Replace every tensor by ``f(tensor, turns, field)``; ``turns`` is None where its shape decides."""
        new_args: list[Any] = []
        new_kwargs: dict[str, Any] = {}
        for label, value in self._labelled(args, kwargs):
            spec = self.in_fields
            if isinstance(spec, Mapping):
                spec = next((spec[k] for k in label if k in spec), None)
            new = self._mapped(value, label, spec, f)
            if len(new_args) < len(args):
                new_args.append(new)
            else:
                new_kwargs[label[1]] = new
        return new_args, new_kwargs

    def _mapped(self, value: Any, label: Any, spec: Any, f: Any) -> Any:
        if isinstance(spec, list | tuple):  # one field for each part of a list
            if not isinstance(value, list | tuple) or len(value) != len(spec):
                raise ValueError(
                    f"in_fields: input {label[1] or label[0]!r} got {len(spec)} fields, expected one for each "
                    f"part of a list, got {_kind(value)}"
                )
            return type(value)(
                self._mapped(v, label, s, f) for v, s in zip(value, spec, strict=True)
            )

        def leaf(t: Any) -> Any:
            if not isinstance(t, Tensor) or t.ndim == 0:
                return t
            turns = None if self.turn is None else self._turns(label, t)
            return f(t, turns, spec if turns or (turns is None and t.ndim >= IMAGE_DIMS) else None)

        return map_leaves(leaf, value)

    def _turns(self, label: tuple[Any, Any], t: Tensor) -> bool:
        if self.turn is None:
            return t.ndim >= IMAGE_DIMS
        if callable(self.turn):
            return bool(self.turn(label[0] if label[1] is None else label[1], t))
        return any(key in self.turn for key in label)

    def _labelled(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Iterator[tuple[tuple[Any, Any], Any]]:
        """Position and name of every input, None where there is none, with its value."""
        for i, value in enumerate(args):
            yield (i, self.names[i] if i < len(self.names) else None), value
        for name, value in kwargs.items():
            yield (self.names.index(name) if name in self.names else None, name), value


def batch_size(images: list[Tensor], model: nn.Module, group: Group) -> int:
    """Check images before anything runs; the batch size of the first.

    Args:
        images: the tensors that are turned.
        model: its parameters say which device and dtype are expected.
        group: quarter turns need squares.

    Raises:
        TypeError: for integer images, or no image at all.
        ValueError: for an empty batch, non-square images under quarter turns, mixed devices or dtypes.
    """
    if not images:
        raise TypeError(
            "expected at least one batch of images, a tensor (B, C, H, W), among the inputs"
        )
    odd = any((quarter_turns(g, group) or 0) % 2 for g in group.elements)
    for t in images:
        shape = tuple(t.shape)
        if t.shape[0] == 0:
            raise ValueError(f"expected at least one image, got an empty batch of shape {shape}")
        if odd and len(shape) > _BATCH_ONLY_DIMS and shape[-1] != shape[-2]:
            raise ValueError(
                f"{group} turns images by 90 degrees, which needs square images, got {shape[-2]} x {shape[-1]}; "
                "crop to squares or use C2"
            )
        if t.ndim >= IMAGE_DIMS and not (
            t.is_floating_point() or t.is_complex() or t.dtype == torch.bool
        ):
            raise TypeError(
                f"expected floating point images, got {t.dtype}; convert them first, for example x.float() / 255"
            )
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    device = dtype = None
    if parameter is not None:
        device, dtype = str(parameter.device), str(parameter.dtype)
    _check_same("device", [str(t.device) for t in images], device)
    # Autocast chooses dtypes by itself.
    expected = None if torch.is_autocast_enabled(images[0].device.type) else dtype
    dtypes = [str(t.dtype) for t in images if t.is_floating_point() or t.is_complex()]
    _check_same("dtype", dtypes, expected)
    return images[0].shape[0]


def checked_images(x: Any, model: Any, group: Group) -> int:
    """The batch size of one tensor of images, checked as by :func:`batch_size`.

    Raises:
        TypeError, ValueError: as there, and for anything but a tensor of at least four dimensions.
    """
    if not isinstance(x, Tensor):
        raise TypeError(
            f"expected at least one batch of images, a tensor (B, C, H, W), got {_kind(x)}; for several inputs "
            "wrap the model: lambda x: model(x, ...)"
        )
    images = [x] if x.ndim >= IMAGE_DIMS else []
    return batch_size(images, model if isinstance(model, nn.Module) else nn.Identity(), group)


def _kind(value: Any) -> str:
    long = f" of {len(value)}" if isinstance(value, list | tuple) else ""
    return f"a {type(value).__name__}{long}"


def _parameters(model: nn.Module) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    )


def _check_same(what: str, given: list[str], expected: str | None) -> None:
    kinds = sorted(set(given))
    if len(kinds) > 1:
        raise ValueError(f"images must share one {what}, got {', '.join(kinds)}")
    if expected is not None and kinds and kinds != [expected]:
        raise ValueError(
            f"images have {what} {kinds[0]}, but the model's parameters have {expected}"
        )
