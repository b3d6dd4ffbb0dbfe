"""What public functions ask of their arguments, in one wording, and the precision they measure in."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

_LARGEST = 2**31 - 1
_WORDS = ("no", "one", "two", "three", "four")


def one_line(error: BaseException) -> str:
    """What an error of others says, without its breaks; its name if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def need_tensor(value: Any, what: str, *, floating: bool = False) -> None:
    """Refuse what is no tensor, with the call that makes one.

    Raises:
        TypeError: not a tensor, a quantised, sparse or storage-less one, or not floating point where that is asked for.
    """
    if not isinstance(value, Tensor):
        hint = (
            "; torch.as_tensor makes one of arrays and lists" if hasattr(value, "__len__") else ""
        )
        raise TypeError(f"{what} must be a tensor, got {given(value)}{hint}")
    if value.layout is not torch.strided or value.is_quantized or value.is_meta:
        raise TypeError(f"{what} must be an ordinary dense tensor with values, got {given(value)}")
    if floating and not value.is_floating_point():
        raise TypeError(f"{what} must be a floating point tensor, got {given(value)}")


def need_number(
    value: Any,
    what: str,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
    finite: bool = True,
) -> float:
    """The value as a float in [low, high], or (low, high] with ``above``, and finite unless said otherwise.

    Raises:
        TypeError: not one real number.
        ValueError: NaN, infinite, or out of range.
    """
    if (
        isinstance(value, Tensor)
        and value.numel() == 1
        and not value.is_complex()
        and not value.is_meta
    ):
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what} must be a number, got {given(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    endless = finite and not math.isfinite(number)
    if endless or not low <= number <= high or (above and number == low):
        more = " and finite" if finite and math.inf in (-low, high) and low != -math.inf else ""
        raise ValueError(f"{what} must {_range(low, high, above)}{more}, got {value!r}")
    return number


def need_whole(value: Any, what: str, low: int, high: int = _LARGEST) -> int:
    """The value as an int in [low, high].

    Raises:
        TypeError: not a whole number.
        ValueError: out of range.
    """
    if not _is_whole(value):
        raise TypeError(f"{what} must be a whole number, got {given(value)}")
    if not low <= value <= high:
        raise ValueError(f"{what} must {_range(low, high, False)}, got {value!r}")
    return int(value)


def need_sizes(value: Any, what: str, names: str) -> tuple[int, ...]:
    """A tuple of positive whole numbers, as many as ``names`` has, such as ``"B, H, W"``.

    Raises:
        ValueError: anything else.
    """
    count = names.count(",") + 1
    whole = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if (
        not whole
        or len(value) != count
        or not all(_is_whole(n) and 1 <= n <= _LARGEST for n in value)
    ):
        got = tuple(value) if whole else given(value)
        raise ValueError(f"{what} must be {_WORDS[count]} positive integers ({names}), got {got}")
    return tuple(int(n) for n in value)


def need_same_device(tensors: Sequence[Tensor], what: str) -> None:
    """Refuse tensors of several devices.

    Raises:
        ValueError: there are several.
    """
    devices = sorted({str(t.device) for t in tensors})
    if len(devices) > 1:
        raise ValueError(f"{what} must be on one device, got {' and '.join(devices)}")


def need_generator(value: Any, what: str) -> None:
    """Refuse what is neither None nor a ``torch.Generator``.

    Raises:
        TypeError: it is something else.
    """
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(f"{what} must be a torch.Generator or None, got {given(value)}")


def need_callable(value: Any, what: str) -> None:
    """Refuse what cannot be called.

    Raises:
        TypeError: it cannot.
    """
    if not callable(value):
        raise TypeError(f"{what} must be callable, got {given(value)}")


def wide(t: Tensor) -> Tensor:
    """At least float32: squares of half precision over- and underflow, and its sums lose their small terms."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def outside_autocast(t: Tensor) -> AbstractContextManager[Any]:
    """Measured numbers and averages keep the precision of their tensors, also where autocast is on."""
    kind_of_device = t.device.type
    if torch.is_autocast_enabled(kind_of_device):
        return torch.autocast(kind_of_device, enabled=False)
    return nullcontext()


def given(value: Any) -> str:
    """What was given, short enough for a message."""
    if isinstance(value, Tensor):
        layout = (
            "" if value.layout is torch.strided else f"{str(value.layout).removeprefix('torch.')} "
        )
        where = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{layout}{value.dtype} of shape {tuple(value.shape)}{where}"
    if isinstance(value, str | bytes | bool | int | float | complex | type(None)):
        text = repr(value)
        return text if len(text) <= 40 else f"{text[:40]}..."
    return type(value).__name__


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _range(low: float, high: float, above: bool) -> str:
    if high in (math.inf, _LARGEST):
        if low == -math.inf:
            return "be finite"
        return (
            f"be {'positive' if low == 0 else f'above {low:g}'}"
            if above
            else f"be at least {low:g}"
        )
    return f"lie in {'(' if above else '['}{low:g}, {high:g}]"
