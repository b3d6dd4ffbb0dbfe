"""One preset at several values of one of its numbers: ``eqreg run rain --preset cpu --vary patches=4,16,64``.

Each value is a preset of its own, ``cpu,patches=16``, with a folder, a tuning and a table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import comparison
from .stamp import united


def presets(preset: str, vary: str | None) -> dict[str, str]:
    """The presets that ``--vary`` asks for, by value; without it the preset alone, by the empty name.

    Raises:
        ValueError: ``vary`` is not of the form ``AXIS=VALUE,VALUE,...``, or names a value twice.

    >>> presets("cpu", "patches=4,16")
    {'4': 'cpu,patches=4', '16': 'cpu,patches=16'}
    """
    if vary is None:
        return {"": preset}
    axis, _, listed = vary.partition("=")
    values = listed.split(",")
    if not axis or not all(values) or len(set(values)) < len(values):
        raise ValueError(f"--vary {vary}: expected AXIS=VALUE,VALUE,... with different values")
    return {value: f"{preset},{axis}={value}" for value in values}


def collect(out: str | Path, task: str, preset: str, vary: str) -> dict[str, Any]:
    """The tables of all values in one, in the form that ``artifacts/`` keeps.

    Returns:
        ``"stamp"``, ``"settings"`` (task, preset and axis), and ``"values"``: value -> what
        :func:`eqreg.experiments.comparison.collect` gives for it. Values without a finished run are left out.

    Raises:
        ValueError: as :func:`presets`, or unknown names.
        FileNotFoundError: no run is finished.
    """
    tables: dict[str, Any] = {}
    missing = None
    for value, name in presets(preset, vary).items():
        try:
            tables[value] = comparison.collect(out, task, name)
        except FileNotFoundError as error:
            missing = missing or error
    if missing is not None and not tables:
        raise missing
    return {
        "stamp": _stamp([table["stamp"] for table in tables.values()]),
        "settings": {"task": task, "preset": preset, "axis": vary.partition("=")[0]},
        "values": tables,
    }


def _stamp(stamps: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **united(stamps), "hours": round(sum(s["hours"] for s in stamps), 2),
        "seeds": sorted({seed for s in stamps for seed in s["seeds"]}),
    }  # fmt: skip
