"""What things in a scanner are made of: elements by mass, and density.

Reference: tissues after ICRU Report 44, 1989; 316L after ASTM F138, cobalt-chromium after ASTM F75, Ti-6Al-4V
after ASTM F136, each with the middle of the allowed ranges (manganese too; what else has only an upper limit is left
out), the rest being iron, cobalt or titanium, and the densities of data sheets; amalgam as of equal parts of mercury
and a high-copper powder, which has no standard density: its elements, side by side, would weigh 10.9 g/cm^3.
Attenuation: the tables of Elam, Ravel and Sieber, 2002, through xraydb.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...extras import require
from ...typed import typed

Array = NDArray[np.float64]
# Parts by mass of each element, and density in g/cm^3.
Material = tuple[Mapping[str, float], float]

MATERIALS: dict[str, Material] = {
    "water": ({"H": 0.1119, "O": 0.8881}, 1.0),
    "bone": (
        {
            "H": 0.034,
            "C": 0.155,
            "N": 0.042,
            "O": 0.435,
            "Na": 0.001,
            "Mg": 0.002,
            "P": 0.103,
            "S": 0.003,
            "Ca": 0.225,
        },
        1.92,
    ),
    "titanium": ({"Ti": 1.0}, 4.5),
    "iron": ({"Fe": 1.0}, 7.87),
    "copper": ({"Cu": 1.0}, 8.96),
    "gold": ({"Au": 1.0}, 19.3),
    "aluminium": ({"Al": 1.0}, 2.7),
    "steel": ({"Fe": 0.64375, "Cr": 0.18, "Ni": 0.14, "Mo": 0.02625, "Mn": 0.01}, 8.0),
    "co-cr": ({"Co": 0.65, "Cr": 0.285, "Mo": 0.06, "Mn": 0.005}, 8.3),
    "ti-6al-4v": ({"Ti": 0.9, "Al": 0.06, "V": 0.04}, 4.43),
    "amalgam": ({"Hg": 0.5, "Ag": 0.3, "Sn": 0.14, "Cu": 0.06}, 11.6),
}
# Other names that people write.
_SAME = {"ti": "titanium", "fe": "iron", "cu": "copper", "au": "gold", "al": "aluminium",
         "316l": "steel", "cocr": "co-cr", "ti64": "ti-6al-4v"}  # fmt: skip
# keV: where the tables and the physics of absorption and scattering hold.
_LOW, _HIGH = 1.0, 800.0
_HEAVIEST = 23.0  # g/cm^3, just above osmium


@typed
def named(name: str, own: Mapping[str, Material] | None = None) -> str:
    """The name under which a material is known, of one that people write.

    Args:
        name: in any case, for example "Ti" or "316L".
        own: further materials.

    Raises:
        ValueError: unknown.

    >>> named("Ti"), named("CoCr")
    ('titanium', 'co-cr')
    """
    known = {**MATERIALS, **(own or {})}
    low = name.lower()
    found = name if name in known else _SAME.get(low, low)
    if found not in known:
        raise ValueError(
            f"material must be one of {sorted(known)} or one of your own protocol, got {name!r}"
        )
    return found


def check_material(name: str, material: Material) -> Material:
    """A material that can exist: elements that xraydb knows, positive parts, a density.

    Args:
        name: said in the message.
        material: parts by mass, which need not add up to 1, and density in g/cm^3.

    Raises:
        ValueError: it cannot; the message says why.
    """
    parts, density = material
    symbols = require("xraydb", extra="tasks").atomic_symbol
    known = {symbols(z) for z in range(1, 93)}
    unknown = sorted(set(parts) - known)
    if unknown or not parts:
        raise ValueError(
            f"material {name!r}: expected parts by mass of elements such as Ti or Cr, got {unknown or 'none'}"
        )
    if not all(math.isfinite(p) and p > 0 for p in parts.values()):
        raise ValueError(f"material {name!r}: expected positive parts by mass, got {dict(parts)}")
    if not 0 < density <= _HEAVIEST:
        raise ValueError(
            f"material {name!r}: expected a density in (0, {_HEAVIEST:g}] g/cm^3, got {density}"
        )
    return parts, density


@typed
def mass_attenuation(material: str | Material, energies: Array) -> Array:
    """Total mass attenuation in cm^2/g, coherent scattering included.

    Args:
        material: one of ``MATERIALS``, or parts by mass and density.
        energies: keV, any shape.

    Raises:
        ValueError: an unknown material, or an energy outside [1, 800] keV.
        ImportError: without xraydb (``pip install "eqreg[tasks]"``).

    >>> mass_attenuation("water", np.array([30.0, 60.0, 100.0])).round(3).tolist()
    [0.376, 0.206, 0.171]
    """
    if isinstance(material, str):
        if material not in MATERIALS:
            raise ValueError(f"material must be one of {sorted(MATERIALS)}, got {material!r}")
        material = MATERIALS[material]
    energies = np.asarray(energies, dtype=float)
    if energies.size and not (energies.min() >= _LOW and energies.max() <= _HIGH):
        raise ValueError(
            f"energies must be in [1, 800] keV, got [{energies.min():g}, {energies.max():g}]"
        )
    xraydb = require("xraydb", extra="tasks")
    parts = material[0]
    total = np.zeros_like(energies)
    for element, share in parts.items():
        total += share * np.asarray(xraydb.mu_elam(element, 1000 * energies, kind="total"))
    return total / sum(parts.values())
