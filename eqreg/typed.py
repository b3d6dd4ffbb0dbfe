"""Annotations that are kept: a wrong kind of argument is refused before anything runs, by one sentence."""

from __future__ import annotations

import collections.abc as abc
import functools
import inspect
import numbers
import re
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import PurePath
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from .checks import given

P = ParamSpec("P")
R = TypeVar("R")
_SUCH_AS = {"Group": "C4", "FieldType": 'C4.field("8r")'}


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """Check the arguments of a function against its annotations at every call.

    Whole numbers fit ``float``, numbers of numpy and one-element tensors fit too, truth values fit ``bool`` alone.
    A list fits a ``tuple``; the length of a tuple and the words of a ``Literal`` are the function's
    affair. A tensor must be dense and have values. Classes are looked up, callables are not called.

    Raises:
        TypeError: names the argument, its annotation, and what was given.

    >>> @typed
    ... def half(x: float) -> float:
    ...     return x / 2
    >>> half("3")
    Traceback (most recent call last):
    ...
    TypeError: half: expected x of type float, got '3'
    """
    names: tuple[str, ...] = tuple(inspect.signature(function).parameters)
    hints: dict[str, Any] = {}
    who = function.__qualname__.removesuffix(".__init__").removesuffix(".__call__")

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        if not hints:  # when first called: annotations may name what is defined further down
            hints.update(typing.get_type_hints(function))
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            if name in hints and not _fits(value, hints[name]):
                raise TypeError(
                    f"{who}: expected {name} of type {_text(hints[name])}, got {_what(value)}"
                )
        return function(*args, **kwargs)

    return checked


def check_fields(value: Any) -> None:
    """Check the fields of a dataclass against their annotations; for its ``__post_init__``.

    Raises:
        TypeError: as for :func:`typed`.
    """
    hints = _class_hints(type(value))  # type: ignore[arg-type]
    for field in fields(value):
        if not _fits(getattr(value, field.name), hints[field.name]):
            got = _what(getattr(value, field.name))
            raise TypeError(
                f"{type(value).__name__}: expected {field.name} of type {_text(hints[field.name])}, got {got}"
            )


@functools.cache
def _class_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if isinstance(hint, TypeVar):
        return hint.__bound__ is None or _fits(value, hint.__bound__)
    if hint is Any or isinstance(hint, ParamSpec):
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in inner)
    if origin is typing.Literal:  # which ones there are, the function says itself
        return any(type(value) is type(h) for h in inner)
    if hint is None or hint is type(None):
        return value is None
    if origin is not None:
        return _fits_generic(value, origin, inner)
    if not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
        return True
    return _fits_class(value, hint)


def _fits_class(value: Any, hint: type) -> bool:
    if hint is bool:
        return isinstance(value, bool) or type(value).__name__ in ("bool_", "bool")
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_meta:
            value = value.item()
        return isinstance(value, kind) and not isinstance(value, bool)
    if issubclass(hint, Tensor):
        plain = isinstance(value, Tensor) and value.layout is torch.strided
        return plain and not value.is_quantized and not value.is_meta
    if issubclass(hint, PurePath):
        return isinstance(value, PurePath)
    if issubclass(hint, tuple) and hasattr(hint, "_fields"):  # a pair stands for a named pair
        return isinstance(value, tuple) and len(value) == len(hint._fields)
    return isinstance(value, hint)


def _fits_generic(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    if origin is abc.Callable:
        return callable(value)
    if origin is type:
        return isinstance(value, type)
    if origin is tuple:  # how many and in which range, the function says itself
        return isinstance(value, tuple | list)
    if origin is abc.Sequence and isinstance(value, np.ndarray) and value.ndim == 1:
        value = value.tolist()
    if not isinstance(value, origin) or (
        isinstance(value, str | bytes | Tensor) and origin is not str
    ):
        return False
    if isinstance(value, abc.Mapping):
        return all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if isinstance(value, abc.Sequence | abc.Set) and len(inner) == 1:
        return all(_fits(v, inner[0]) for v in value)
    return True  # an iterator is not used up


def _text(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", text).replace("NoneType", "None")
    for name, example in _SUCH_AS.items():
        text = re.sub(rf"\b{name}\b", f"{name} (such as {example})", text)
    return text


def _what(value: Any) -> str:
    if isinstance(value, tuple | list) and len(value) <= 4:
        left, right = "[]" if isinstance(value, list) else "()"
        return f"{left}{', '.join(_what(v) for v in value)}{right}"
    return given(value)
