"""Studies that stand on a task's preset ``evidence``: rivals, how many data, how much symmetry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .task import Preset

FIVE = ("plain", "augmentation", "strict-equal", "pairs", "eqreg")


def opponents(evidence: Preset, rows: Sequence[str]) -> Preset:
    """Rivals or other forms of a row, trained as the evidence is, in one table with it."""
    return replace(
        evidence, methods=tuple(rows), study=True, beside="evidence",
        expects="as evidence for each row: 20 minutes of a core for a row of rain or classification, counted from its "
        "seconds a step, not yet run",
    )  # fmt: skip


def claim(evidence: Preset, expects: str, vary: str = "patches=4,16,64,256") -> Preset:
    """The five rows of the claim, with half the steps and six seeds; vary the number of data."""
    return replace(
        evidence, methods=FIVE, steps=evidence.steps // 2, tuning_steps=evidence.steps // 4,
        seeds=tuple(range(6)), study=True, expects=f"varied by {vary}: {expects}",
    )  # fmt: skip


def dose(evidence: Preset, group: str, expects: str) -> Preset:
    """The same with one group whose symmetry the task has or has not; vary what breaks it."""
    rows = [row if row == "plain" else f"{row}-{group}" for row in FIVE]
    return replace(claim(evidence, ""), methods=tuple(rows), expects=expects)
