"""Words of the command line: numbers with a range, devices, and errors of one line."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import NoReturn

import torch

# More threads than this no machine runs well, and the system refuses to start them.
THREADS = max(256, os.cpu_count() or 1)


class Parser(argparse.ArgumentParser):
    """Raises ValueError where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        """Called by argparse for words it cannot read."""
        raise ValueError(message)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Reader of whole numbers from ``low`` to ``high``.

    >>> whole(1, 8)("3")
    3
    """

    def read(text: str) -> int:
        try:
            if low <= (value := int(text)) <= high:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {low} to {high}, got {text}"
        )

    return read


def real(low: float, *, above: bool = False) -> Callable[[str], float]:
    """Reader of finite numbers from ``low`` on, or ``above`` it."""

    def read(text: str) -> float:
        try:
            value = float(text)
            if math.isfinite(value) and (value > low if above else value >= low):
                return value
        except ValueError:
            pass
        bound = "above" if above else "of at least"
        raise argparse.ArgumentTypeError(f"expected a finite number {bound} {low:g}, got {text}")

    return read


def device(name: str) -> torch.device:
    """The device of that name, if it is here.

    Raises:
        ValueError: unknown, or not on this machine; the message gives the reason.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        if found.type not in ("cpu", "cuda"):  # results are stamped with these two kinds
            raise ValueError("expected cpu, cuda, cuda:N or auto")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return found
