"""What a scan does besides its geometry and its beam, as numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .materials import MATERIALS

# Cells whose neighbour is outside the trace see metal in a part of their width only.
_EDGE = 3
# Counts above 2^53 are no whole numbers, and torch.poisson turns negative above 2^63.
MOST_PHOTONS = 1e15


@dataclass(frozen=True)
class Protocol:
    """What a scan does besides its geometry and its beam.

    Args:
        photons: emitted towards each cell.
        scatter: mean number of photons that arrive by other ways.
        metal: name in ``MATERIALS``.
        water_hu, bone_hu: below the first everything is water, above the second bone; HU.
        edge: width in cells, odd, of the erosion that finds the edge of the trace; 1 for no edge.
        edge_share: part of the metal that a cell at the edge sees (partial volume).
        hardening: correct for beam hardening in water.
        noise: count photons; False measures expected values, without scatter.
        fbp: "published" or "textbook".
        electronic: standard deviation of the electronics' noise, in photons.
        current: of the tube, relative to the one that gives ``photons`` and ``scatter``.

    Raises:
        ValueError: a number outside its range, or an unknown metal.

    >>> Protocol(photons=1e5, noise=False).metal
    'titanium'
    """

    photons: float = 2e7
    scatter: float = 20.0
    metal: str = "titanium"
    water_hu: float = 100.0
    bone_hu: float = 1500.0
    edge: int = _EDGE
    edge_share: float = 0.25
    hardening: bool = True
    noise: bool = True
    fbp: str = "textbook"
    electronic: float = 0.0
    current: float = 1.0

    def __post_init__(self) -> None:
        if self.metal not in MATERIALS:
            raise ValueError(
                f"Protocol: metal must be one of {sorted(MATERIALS)}, got {self.metal!r}"
            )
        if self.edge < 1 or self.edge % 2 == 0:
            raise ValueError(f"Protocol: edge must be a positive odd number, got {self.edge}")
        for name, low, high in (
            ("photons", 1.0, MOST_PHOTONS),
            ("scatter", 0.0, math.inf),
            ("electronic", 0.0, math.inf),
            ("current", 1e-6, math.inf),
            ("edge_share", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high or not math.isfinite(value):
                raise ValueError(
                    f"Protocol: {name} must be finite, in [{low:g}, {high:g}], got {value}"
                )
