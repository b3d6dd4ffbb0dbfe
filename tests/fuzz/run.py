"""The fuzz itself: hypothesis draws arguments that fit, half of the time one of them is exchanged for another thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from .imaging import IMAGING
from .networks import NETWORKS
from .outcome import Tally, judge
from .symmetry import SYMMETRY, Target
from .values import ODD, SMALL_ODD

TARGETS: dict[str, Target] = {**SYMMETRY, **IMAGING, **NETWORKS}
_AGAIN = 100
# Arguments that a target uses itself, before it calls the library.
OF_THE_FUZZ = {
    "EquivarianceDecay": {"seed", "group", "dtype"},
    "models": {"kind", "sizes"},
    "read_image": {"values", "mode", "ending"},
}
# Numbers that become sides of arrays: what is refused by their size alone is another test's.
SIZED = {
    "shape",
    "size",
    "kernel_size",
    "width",
    "depth",
    "levels",
    "channels",
    "n",
    "tile",
    "crop",
    "batch",
    "padding",
}


def fuzz(calls: int, *, first_seed: int = 0, names: tuple[str, ...] = ()) -> Tally:
    """Call every target about equally often, ``calls`` times in all."""
    tally = Tally()
    chosen = {n: t for n, t in TARGETS.items() if not names or n in names}
    each, rest = divmod(calls, len(chosen))
    for i, (name, target) in enumerate(chosen.items()):
        if count := each + (i < rest):
            _fuzz_one(name, target, count, first_seed, tally)
    return tally


def _fuzz_one(name: str, target: Target, count: int, first_seed: int, tally: Tally) -> None:
    call, fitting, right = target
    done = 0

    def one(data: Any) -> None:
        nonlocal done
        done += 1
        arguments = fitting(data.draw)
        free = sorted(set(arguments) - OF_THE_FUZZ.get(name, set()))
        if free and data.draw(st.booleans()):
            key = data.draw(st.sampled_from(free))
            arguments[key] = data.draw(SMALL_ODD if key in SIZED else ODD)
        _record(name, call, right, arguments, tally)

    for again in range(_AGAIN):  # hypothesis ends early where it has seen all that there is
        if done < count:
            test = settings(
                max_examples=count - done,
                database=None,
                deadline=None,
                derandomize=False,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )(given(st.data())(one))
            seed(first_seed + again)(test)()


def _record(
    name: str,
    call: Callable[..., Any],
    right: Callable[..., bool],
    arguments: dict[str, Any],
    tally: Tally,
) -> None:
    kept = {
        k: v.detach().clone() if isinstance(v, torch.Tensor) and not v.is_meta else v
        for k, v in arguments.items()
    }
    kind, what = judge(lambda: call(**arguments), lambda r: right(r, **kept))
    tally.add(name, kind, f"{what} | {_short(arguments)}")


def _short(arguments: dict[str, Any]) -> str:
    return ", ".join(
        f"{k}={v.dtype}{tuple(v.shape)}" if isinstance(v, torch.Tensor) else f"{k}={str(v)[:40]!s}"
        for k, v in arguments.items()
    )
