"""What the X-ray tube emits and what materials take away, energy by energy.

Attenuation comes from xraydb (the tables of Elam et al.), coherent scattering included. The spectrum
of the tube is a formula of ours; measured spectra and other tables are read from files.

Reference: Kramers, "On the Theory
of X-Ray Absorption and of the Continuous X-Ray Spectrum", Phil. Mag. 46, 1923.
Taught in: notebooks/14
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...extras import require
from ...typed import typed
from .materials import MATERIALS, Array, Material, check_material, mass_attenuation

# The K lines of tungsten: energy in keV and relative strength. They appear above its K edge.
_LINES = {58: 0.57, 59: 1.0, 67: 0.33, 69: 0.08}
_K_EDGE = 69.5
# Thickness of the filter and share of the lines, fitted once to the hardening curves of water, bone and
# titanium behind the measured 120 kVp tube of `tabulated_beam`, and rounded.
FILTERS: Mapping[str, float] = {"aluminium": 0.39}
_LINE_SHARE = 0.1

# Files of the published tables, as named there; rows are keV, the seventh column is total attenuation.
_TABLES = {
    "water": "MiuofH2O",
    "bone": "MiuofBONE_Cortical_ICRU44",
    "titanium": "MiuofTi",
    "iron": "MiuofFe",
    "copper": "MiuofCu",
    "gold": "MiuofAu",
}
_TABLE_SPECTRUM = "GE14Spectrum120KVP"


@typed
def tube_spectrum(
    energies: Array, kvp: float = 120.0, filters: Mapping[str, float] | None = None
) -> Array:
    """Photons per keV of a tungsten tube behind its filters, normalised to sum 1.

    Kramers' law ``(kvp - E)/E``, times the filter, plus the K lines of tungsten, which hold 10 % of the
    photons if ``kvp`` is above its K edge and none else.

    Args:
        energies: keV, whole numbers, increasing.
        kvp: tube voltage in kV.
        filters: cm of each material between tube and patient, ``{"aluminium": 0.39}`` by default.

    Raises:
        ValueError: no energy below ``kvp``, or a filter of negative thickness or unknown material.
    """
    energies = np.asarray(energies, dtype=float)
    kramers = np.clip(kvp - energies, 0, None) / energies
    for material, cm in (FILTERS if filters is None else filters).items():
        if not 0 <= cm < np.inf:
            raise ValueError(f"tube_spectrum: expected a thickness in cm of {material}, got {cm}")
        through = mass_attenuation(material, energies)
        kramers *= np.exp(-cm * MATERIALS[material][1] * through)
    if not kramers.sum() > 0:
        raise ValueError(f"tube_spectrum: expected energies below {kvp:g} keV, got {energies}")
    lines = np.zeros_like(energies)
    if kvp > _K_EDGE:
        for energy, strength in _LINES.items():
            lines[np.isclose(energies, energy)] = strength
    share = _LINE_SHARE if lines.any() else 0.0
    spectrum = (1 - share) * kramers / kramers.sum()
    return spectrum + (share * lines / lines.sum() if share else 0.0)


@dataclass(frozen=True)
class Beam:
    """A spectrum and, for each material, its attenuation at the same energies.

    Args:
        energies: (E,) keV.
        weights: (E,) share of the photons, summing to 1.
        attenuation: material -> (E,) cm^2/g.
        at_reference: material -> cm^2/g at the reference energy, for which line integrals are given.
        density: material -> g/cm^3; that of ``MATERIALS`` by default.

    Raises:
        ValueError: shapes differ, a number is negative or not finite, the weights do not sum to 1, or a
            material has no positive number at the reference energy.

    >>> beam = open_beam(120)
    >>> beam.energies.shape == beam.weights.shape, round(float(beam.weights.sum()), 6)
    (True, 1.0)
    """

    energies: Array
    weights: Array
    attenuation: Mapping[str, Array]
    at_reference: Mapping[str, float]
    density: Mapping[str, float] = field(
        default_factory=lambda: {name: density for name, (_, density) in MATERIALS.items()}
    )

    def __post_init__(self) -> None:
        for name, values in {"weights": self.weights, **self.attenuation}.items():
            if values.shape != self.energies.shape or values.ndim != 1:
                raise ValueError(
                    f"Beam: {name} must have one number per energy {self.energies.shape}, got shape {values.shape}"
                )
            if not (np.isfinite(values).all() and (values >= 0).all()):
                raise ValueError(f"Beam: {name} must be finite and not negative")
        if abs(self.weights.sum() - 1) > 1e-6:
            raise ValueError(f"Beam: weights must sum to 1, got {self.weights.sum():g}")
        for name in self.attenuation:
            if not self.at_reference.get(name, 0) > 0:
                raise ValueError(
                    f"Beam: expected a positive attenuation of {name} at the reference energy, got "
                    f"{self.at_reference.get(name)}"
                )

    def relative(self, material: str) -> Array:
        """(E,) attenuation divided by that at the reference energy; no unit.

        Raises:
            ValueError: the beam has no such material.
        """
        if material not in self.attenuation:
            raise ValueError(f"Beam: expected one of {sorted(self.attenuation)}, got {material!r}")
        return self.attenuation[material] / self.at_reference[material]

    def mu(self, material: str) -> float:
        """Attenuation in 1/cm of the solid material at the reference energy.

        Raises:
            ValueError: the beam has no such material.
        """
        self.relative(material)  # says which ones there are
        return self.density[material] * self.at_reference[material]


@typed
def open_beam(
    kvp: float = 120.0,
    reference: float = 70.0,
    *,
    filters: Mapping[str, float] | None = None,
    materials: Mapping[str, Material] | None = None,
) -> Beam:
    """Our formula for the tube and xraydb's attenuation: nothing to download.

    Args:
        kvp: tube voltage in kV, above 21.
        reference: energy in keV for which images and line integrals are given.
        filters: as for ``tube_spectrum``.
        materials: of your own, parts by mass and density; they go before those of the same name in
            ``MATERIALS``.

    Raises:
        ValueError: ``kvp`` is not above 21, ``reference`` outside [1, 800] keV, or a material cannot be.

    >>> beam = open_beam()
    >>> len(beam.energies), round(beam.mu("water"), 3)
    (101, 0.193)
    """
    if not 21 < kvp <= 800:
        raise ValueError(f"open_beam: kvp must be above 21 and at most 800 kV, got {kvp}")
    energies = np.arange(20.0, kvp + 1)
    own = {name: check_material(name, m) for name, m in (materials or {}).items()}
    return _beam(energies, tube_spectrum(energies, kvp, filters), _solid, reference, own)


@typed
def monochromatic(energy: float = 70.0) -> Beam:
    """One energy in keV: with it there is no beam hardening.

    >>> monochromatic(70.0).relative("water")
    array([1.])
    """
    return _beam(np.array([energy]), np.ones(1), _solid, energy, {})


@typed
def tabulated_beam(folder: str | Path, reference: float = 70.0) -> Beam:
    """The 120 kVp spectrum and attenuation tables that the published data were made with.

    Args:
        folder: holds ``GE14Spectrum120KVP.mat`` and ``MiuofH2O.mat``, ``MiuofTi.mat``, ... Metals
            without a file are left out.
        reference: keV, a whole number.

    Raises:
        FileNotFoundError: the spectrum, water, bone or titanium is missing.
        ValueError: a file is not a table of this form; the message names it.

    Reference: Zhang and Yu, "Convolutional Neural Network Based Metal Artifact Reduction in X-Ray
    Computed Tomography", IEEE TMI 37(6), 2018; the tables are in the code of ADN (Liao et al.).
    """
    folder = Path(folder)
    energies = np.arange(20.0, 121.0)
    spectrum = _table(folder / f"{_TABLE_SPECTRUM}.mat", 2)
    files = {material: folder / f"{stem}.mat" for material, stem in _TABLES.items()}
    tables = {
        material: _table(path, 7)
        for material, path in files.items()
        if material in ("water", "bone", "titanium") or path.is_file()
    }
    weights = np.interp(energies, spectrum[:, 0], spectrum[:, 1])

    def look_up(material: str, _: Material, energy: Array) -> Array:
        table = tables[material]
        return np.interp(energy, 1000 * table[:, 0], table[:, 6])

    there = {name: MATERIALS[name] for name in tables}
    return _beam(energies, weights / weights.sum(), look_up, reference, there, alone=True)


def _solid(_: str, material: Material, energies: Array) -> Array:
    return mass_attenuation(material, energies)


def _beam(
    energies: Array,
    weights: Array,
    look_up: Callable[[str, Material, Array], Array],
    reference: float,
    own: Mapping[str, Material],
    *,
    alone: bool = False,
) -> Beam:
    materials = {**({} if alone else MATERIALS), **own}
    at = np.array([reference])
    return Beam(
        energies,
        weights,
        {name: look_up(name, m, energies) for name, m in materials.items()},
        {name: float(look_up(name, m, at)[0]) for name, m in materials.items()},
        {name: density for name, (_, density) in materials.items()},
    )


def _table(path: Path, columns: int) -> Array:
    if not path.is_file():
        raise FileNotFoundError(f"tabulated_beam: expected a table at {path}, found none")
    try:
        content = require("scipy.io", extra="tasks").loadmat(path)
        table = np.asarray(content[path.stem], dtype=float)
    except ImportError:
        raise
    except Exception as error:  # readers of damaged files raise what they like
        raise ValueError(f"tabulated_beam: could not read {path}: {error}") from error
    if table.ndim != 2 or table.shape[1] < columns or not np.isfinite(table).all():
        raise ValueError(
            f"tabulated_beam: expected at least {columns} finite columns in {path}, got shape {table.shape}"
        )
    return table
