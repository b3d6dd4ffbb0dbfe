"""From line integrals of materials to what a detector counts, and back to line integrals.

Everything is a pure function of tensors of any shape. Line integrals ``p`` are given at the beam's
reference energy and have no unit; a material that is relatively ``r(E)`` as opaque at energy E weakens
it by ``exp(-r(E) p)``.

Taught in: notebooks/14
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ...checks import need_number, need_tensor
from ...typed import typed
from .protocol import MOST_PHOTONS
from .spectra import Array, Beam
from .units import check_attenuation, mu_to_hu

# Path lengths in cm of water over which the beam-hardening correction is fitted.
_WATER_CM = 50.0
_WATER_STEP = 0.05


@typed
def decompose(mu: Tensor, *, water_hu: float = 100.0, bone_hu: float = 1500.0) -> dict[str, Tensor]:
    """Split an image into water and bone that add up to it.

    Below ``water_hu`` everything is water, above ``bone_hu`` bone, in between linearly mixed.

    Args:
        mu: attenuation in 1/cm.
        water_hu, bone_hu: HU, increasing.

    Returns:
        {"water": ..., "bone": ...}, shaped like ``mu``, in 1/cm.

    Raises:
        ValueError: the thresholds do not increase.

    >>> decompose(torch.tensor([0.192, 0.3456, 0.6]))["bone"]  # of 0, 800 and 2125 HU
    tensor([0.0000, 0.1728, 0.6000])
    """
    need_tensor(mu, "decompose: mu", floating=True)
    need_number(water_hu, "decompose: water_hu")
    need_number(bone_hu, "decompose: bone_hu")
    check_attenuation(mu.clamp(min=0), "decompose")
    if not water_hu < bone_hu:
        raise ValueError(f"decompose: expected water_hu < bone_hu, got {water_hu} and {bone_hu}")
    share = ((mu_to_hu(mu) - water_hu) / (bone_hu - water_hu)).clamp(0, 1)
    bone = share * mu
    return {"water": mu - bone, "bone": bone}


@typed
def transmission(paths: Mapping[str, Tensor], beam: Beam) -> Tensor:
    """Part of the photons that arrive: ``sum_E w(E) exp(-sum_m r_m(E) p_m)``.

    Args:
        paths: material -> line integrals at the reference energy, equal shapes.
        beam: the spectrum.

    Returns:
        Like one of the paths, in (0, 1].

    Raises:
        ValueError: no path, or a material that the beam does not have.

    >>> from eqreg.physics.ct import monochromatic
    >>> transmission({"water": torch.tensor([0.0, 1.0])}, monochromatic(70.0))
    tensor([1.0000, 0.3679])
    """
    if not paths:
        raise ValueError("transmission: expected the path of at least one material, got none")
    relative = {m: beam.relative(m) for m in paths}
    total = torch.zeros_like(next(iter(paths.values())))
    for i, weight in enumerate(beam.weights):
        exponent = sum(-float(relative[m][i]) * p for m, p in paths.items())
        total = total + float(weight) * torch.exp(exponent)  # type: ignore[arg-type]
    return total


@typed
def polychromatic(paths: Mapping[str, Tensor], beam: Beam) -> Tensor:
    """Line integrals as the detector sees them, ``-ln`` of the transmission; arguments as there.

    >>> from eqreg.physics.ct import open_beam
    >>> thick = polychromatic({"water": torch.tensor([1.0, 2.0])}, open_beam())
    >>> bool(thick[1] < 2 * thick[0])  # the beam hardens
    True
    """
    return -torch.log(transmission(paths, beam))


@typed
def measure(
    p: Tensor,
    photons: float,
    scatter: float = 0.0,
    *,
    electronic: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Count photons: ``-ln(n / photons)`` with ``n`` Poisson around ``photons exp(-p) + scatter``.

    The expected count is rounded to a whole number, and a cell that counts nothing counts 1, as in
    the published simulation.

    Args:
        p: line integrals, any shape.
        photons: emitted towards each cell.
        scatter: mean number of photons that arrive by other ways.
        electronic: standard deviation of what the electronics add, in photons.
        generator: source of the randomness, on the device of ``p``.

    Raises:
        TypeError: ``p`` is not floating point, or a number is none.
        ValueError: ``photons`` is not in (0, 1e15], beyond which counts are no longer whole numbers, ``scatter``
            or ``electronic`` is negative or larger, or ``p`` is NaN or so negative that more would arrive.

    >>> p = torch.full((1000,), 4.0)
    >>> few, many = (measure(p, photons, generator=torch.Generator().manual_seed(0)).std() for photons in (1e4, 1e6))
    >>> f"{few / many:.0f}"  # the noise falls like one over the root of the photons
    '10'
    """
    need_tensor(p, "measure: p", floating=True)
    need_number(photons, "measure: photons", 0, MOST_PHOTONS, above=True)
    need_number(scatter, "measure: scatter", 0, MOST_PHOTONS)
    need_number(electronic, "measure: electronic", 0, MOST_PHOTONS)
    # float32 cannot hold every whole number up to 2e7.
    expected = torch.round(photons * torch.exp(-p.double())) + scatter
    if expected.numel() and not bool((expected <= 2 * MOST_PHOTONS).all()):
        raise ValueError(
            "measure: expected line integrals that are not NaN and let at most 1e15 photons arrive, got "
            f"{int(p.isnan().sum())} NaN and a smallest one of {float(p.min()):g}"
        )
    counts = torch.poisson(expected, generator=generator)
    if electronic:
        extra = torch.randn(counts.shape, generator=generator, dtype=counts.dtype, device=p.device)
        counts = counts + electronic * extra
    return -torch.log(counts.clamp(min=1) / photons).to(p.dtype)


@typed
def water_correction(beam: Beam) -> Array:
    """Cubic that makes a water phantom's measured line integrals linear in its thickness.

    ``c`` minimises ``sum (c1 p + c2 p^2 + c3 p^3 - L)^2`` for 0 to 50 cm of water in steps of 0.05 cm, where
    ``p`` is what the beam measures and ``L`` the line integral at the reference energy.

    Returns:
        (3,) coefficients of ``p``, ``p^2``, ``p^3``.

    >>> from eqreg.physics.ct import open_beam
    >>> water_correction(open_beam()).round(3).tolist()  # a beam of 120 kVp, referred to 70 keV
    [0.796, 0.024, -0.001]
    """
    cm = np.arange(0, _WATER_CM + _WATER_STEP / 2, _WATER_STEP)
    arriving = np.exp(-np.outer(cm, beam.attenuation["water"])) @ beam.weights
    p = -np.log(arriving)
    powers = np.stack([p, p**2, p**3], 1)
    return np.linalg.lstsq(powers, cm * beam.at_reference["water"], rcond=None)[0]


@typed
def correct(p: Tensor, coefficients: Array) -> Tensor:
    """Apply a beam-hardening correction ``c1 p + c2 p^2 + c3 p^3``, cell by cell.

    >>> correct(torch.tensor([1.0, 2.0]), np.array([1.0, 0.5, 0.0]))
    tensor([1.5000, 4.0000])
    """
    a, b, c = (float(value) for value in coefficients)
    return p * (a + p * (b + p * c))
