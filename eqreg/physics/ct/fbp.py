"""Filtered back-projection: the textbook's, and the one that the published data were made with.

Both filter every view and let every pixel look the filtered views up. They differ in the fan's weights:

=============  ==========================  ======================  =================
name           before the filter           filter                  back-projection
=============  ==========================  ======================  =================
``textbook``   cosine of the fan angle     ramp, exact at 0        (R/U) squared
``published``  none                        ramp at half steps      R/U
=============  ==========================  ======================  =================

For a curved detector, U is the distance from the source and the ramp is stretched by ``(t / sin t)^2``, t being
the angle between two rays. A short scan measures some rays twice: there Parker's weights share them out.

The published variant leaves a bias: about +10 HU in the middle of a body of water, more in air. To
compare with published images it has to be used; to reconstruct a patient the other one.

Reference: Kak and Slaney, "Principles of Computerized Tomographic Imaging", 1988, chapter 3. Parker, "Optimal
Short Scan Convolution Reconstruction for Fanbeam CT", Medical Physics 9(2), 1982.
Taught in: notebooks/14
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...extras import require
from ...typed import typed
from .geometry import Array, FanBeam, Geometry
from .projector import PixelDriven
from .units import check_sinograms

METHODS = ("textbook", "published")
# Sinograms filtered together: their spectra are three times as large as they are.
_TOGETHER = {"cpu": 2, "cuda": 16}


class FBP:
    """Filtered back-projection of sinograms; a linear, differentiable map.

    Args:
        geometry: of the scanner.
        method: "textbook" or "published"; see the module's table.
        device, dtype: where and in which precision; float32 by default.

    Raises:
        ValueError: an unknown method, or ``published`` for anything but a whole turn of a fan with a flat
            detector.

    >>> from eqreg.physics.ct import ParallelBeam
    >>> fbp = FBP(ParallelBeam(size=8, views=4, bins=11))
    >>> fbp(torch.zeros(2, 4, 11)).shape
    torch.Size([2, 8, 8])
    """

    @typed
    def __init__(
        self,
        geometry: Geometry,
        method: str = "textbook",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if method not in METHODS:
            raise ValueError(f"FBP: method must be one of {METHODS}, got {method!r}")
        if method == "published" and not isinstance(geometry, FanBeam):
            raise ValueError("FBP: the published method is one for fan beams, got parallel rays")
        if method == "published" and (geometry.curved or geometry.short):  # type: ignore[union-attr]
            raise ValueError(
                "FBP: the published method is one for a whole turn and a flat detector, got "
                f"{geometry}; take textbook"
            )
        self.geometry, self.method = geometry, method
        power = (2 if method == "textbook" else 1) if isinstance(geometry, FanBeam) else 0
        self._backprojection = PixelDriven(geometry, power, device=device, dtype=dtype)

    def __repr__(self) -> str:
        return f"FBP({self.geometry!r}, {self.method!r})"

    @typed
    def __call__(self, y: Tensor) -> Tensor:
        """Images (..., size, size), in 1/cm, of sinograms (..., views, bins) of line integrals.

        Raises:
            TypeError, ValueError: not a float tensor of this size on this device.
        """
        check_sinograms(y, self.geometry, "FBP")
        y = y.to(self._backprojection.dtype)
        if not y.numel():  # FFTs refuse it
            return self._backprojection.backproject(y)
        some = y.reshape(-1, *y.shape[-2:]).split(_TOGETHER.get(y.device.type, 2))
        images = torch.cat([self._backprojection.backproject(self.filtered(s)) for s in some])
        # Every ray is measured twice on a full circle.
        images = images if _short(self.geometry) else images / 2
        return images.reshape(*y.shape[:-2], *images.shape[-2:])

    def filtered(self, y: Tensor) -> Tensor:
        """The views after weight and filter, in 1/cm: what is back-projected."""
        make, d = (
            (_half_step_ramp if self.method == "published" else _ramp),
            _spacing(self.geometry),
        )
        if self.method == "textbook":
            y = y * _cosine(self.geometry, y)
        if _short(self.geometry):
            y = y * torch.as_tensor(_parker(self.geometry), dtype=y.dtype, device=y.device)
        kernel = make(self.geometry.bins, d)
        if isinstance(self.geometry, FanBeam) and self.geometry.curved:
            kernel = kernel * _stretch(self.geometry)
        return _convolve(y, kernel.to(y.device))


def _spacing(geometry: Geometry) -> float:
    """Distance of two cells in cm, at the centre of the image."""
    shrink = 1.0
    if isinstance(geometry, FanBeam):
        shrink = geometry.source / (geometry.source + geometry.detector)
    return geometry.pitch * shrink * geometry.pixel


def _cosine(geometry: Geometry, like: Tensor) -> Tensor:
    """Cosine of the angle between each ray and the central one."""
    u = torch.as_tensor(geometry.cells, dtype=like.dtype, device=like.device)
    if not isinstance(geometry, FanBeam):
        return torch.ones_like(u)
    distance = geometry.source + geometry.detector
    if geometry.curved:
        return torch.cos(u / distance)
    return distance / torch.sqrt(distance**2 + u**2)


def _short(geometry: Geometry) -> bool:
    return isinstance(geometry, FanBeam) and geometry.short


def _stretch(geometry: FanBeam) -> Tensor:
    """``(t / sin t)^2`` at -(bins-1) ... bins-1 cells; float64."""
    n = torch.arange(1 - geometry.bins, geometry.bins, dtype=torch.float64)
    t = n * (geometry.pitch / (geometry.source + geometry.detector))
    return 1 / torch.sinc(t / math.pi).square()


def _parker(geometry: Geometry) -> Array:
    """(views, bins) weights; those of the two measurements of a ray add up to 1."""
    assert isinstance(geometry, FanBeam)
    reach = geometry.source + geometry.detector
    along = geometry.cells / reach
    gamma = along if geometry.curved else np.arctan(along)
    delta, beta = geometry.half_fan, geometry.angles[:, None]
    # The ray (beta, gamma) is measured again at (beta + pi - 2 gamma, -gamma).
    first, last = 2 * (delta + gamma), np.pi + 2 * gamma
    with np.errstate(divide="ignore", invalid="ignore"):
        rise = np.sin(np.pi / 2 * beta / first) ** 2
        fall = np.sin(np.pi / 2 * (np.pi + 2 * delta - beta) / (2 * (delta - gamma))) ** 2
    return np.where(beta < first, rise, np.where(beta > last, fall, 1.0))


def _convolve(y: Tensor, kernel: Tensor) -> Tensor:
    """Linear convolution of every view with a kernel at -(bins-1) ... bins-1."""
    bins = y.shape[-1]
    # What wraps around falls into the first bins - 1 cells, which are cut off.
    length = require("scipy.fft", extra="tasks").next_fast_len(len(kernel), real=True)
    spectrum = torch.fft.rfft(kernel, length).to(y.dtype.to_complex())
    full = torch.fft.irfft(torch.fft.rfft(y, length) * spectrum, length)
    return full[..., bins - 1 : 2 * bins - 1]


def _ramp(bins: int, d: float) -> Tensor:
    """Band-limited ramp: 1/4d at 0, -1/(pi^2 n^2 d) at odd n, 0 at even n; float64."""
    n = torch.arange(1 - bins, bins, dtype=torch.float64)
    kernel = torch.where(n % 2 == 0, 0.0, -1 / (math.pi * n).square())
    kernel[bins - 1] = 0.25
    # The sum over cells stands for an integral: times d. A kernel in 1/d^2 leaves 1/d.
    return kernel / d


def _half_step_ramp(bins: int, d: float) -> Tensor:
    """Ramp sampled at frequencies (k + 1/2)/L, L = 2 bins - 1: no frequency is 0; float64.

    The factor (-1)^n shifts frequencies by half a step, L being odd, and turns frequency k into
    (L - 1)/2 - k.
    """
    length = 2 * bins - 1
    k = torch.arange(bins, dtype=torch.float64)
    kernel = torch.fft.irfft((0.5 - k / length).to(torch.complex128), length) / d
    n = torch.arange(1 - bins, bins)
    return kernel[n % length] * (1 - 2 * (n % 2))
