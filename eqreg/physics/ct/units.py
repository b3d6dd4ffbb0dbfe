"""Hounsfield units and attenuation, and the checks that the functions of CT images share."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ...checks import need_tensor, wide
from ...typed import typed
from .geometry import Geometry

# 1/cm, at the effective energy of a 120 kVp tube; the scale on which the published images are given.
MU_WATER = 0.192
_AIR = -1000.0
_AN_IMAGE = 256  # pixels
_DENSEST = 100.0  # 1/cm: more than of gold in the beam of a scanner


@typed
def hu_to_mu(hu: Tensor) -> Tensor:
    """Attenuation in 1/cm of CT numbers in HU: ``0.192 (1 + HU/1000)``.

    Args:
        hu: any shape, integer or floating, at least -1000; half precision and integers become float32.

    Raises:
        TypeError: not a tensor of real numbers.
        ValueError: NaN, infinite, or below -1000 HU, where attenuation would be negative.

    Warns:
        UserWarning: an image within [0, 2], which is one of attenuation in 1/cm.

    >>> hu_to_mu(torch.tensor([-1000.0, 0.0, 1500.0]))
    tensor([0.0000, 0.1920, 0.4800])
    """
    hu = _real(hu, "hu_to_mu")
    bad = int((~torch.isfinite(hu)).sum())
    if bad:
        raise ValueError(f"hu_to_mu: expected finite CT numbers, got {bad} pixels with NaN or Inf")
    if hu.numel() and hu.min() < _AIR:
        raise ValueError(
            f"hu_to_mu: expected CT numbers of at least -1000 HU (air), got {float(hu.min()):g}; clip "
            "them, padding included"
        )
    if hu.ndim >= 2 and hu.numel() >= _AN_IMAGE and 0 <= hu.min() < hu.max() <= 2:
        warnings.warn(
            f"hu_to_mu: an image of {float(hu.min()):.3g} to {float(hu.max()):.3g} HU is all water; are these "
            "attenuations in 1/cm already?",
            UserWarning,
            stacklevel=3,
        )
    return (hu + 1000) * (MU_WATER / 1000)


@typed
def mu_to_hu(mu: Tensor) -> Tensor:
    """CT numbers in HU of attenuation in 1/cm; half precision becomes float32.

    Raises:
        TypeError: not a tensor of real numbers.
        ValueError: numbers that are no attenuation, such as HU.

    >>> mu_to_hu(torch.tensor([0.0, 0.192, 0.48]))
    tensor([-1000.,     0.,  1500.])
    """
    mu = _real(mu, "mu_to_hu")
    check_scale(mu, "mu_to_hu")
    return (mu / MU_WATER - 1) * 1000


def _real(t: Tensor, name: str) -> Tensor:
    need_tensor(t, name)
    if t.is_complex() or t.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {t.dtype}")
    return wide(t)


def check_attenuation(mu: Tensor, name: str) -> None:
    """Refuse NaN, infinite and negative attenuation, and more than any metal has.

    Raises:
        TypeError: not floating point.
        ValueError: the message says what was found.
    """
    if not isinstance(mu, Tensor) or not mu.is_floating_point():
        kind = mu.dtype if isinstance(mu, Tensor) else type(mu).__name__
        raise TypeError(f"{name}: expected a float tensor of attenuation in 1/cm, got {kind}")
    bad = int((~torch.isfinite(mu)).sum())
    if bad:
        raise ValueError(f"{name}: expected finite attenuation, got {bad} pixels with NaN or Inf")
    if mu.numel() and mu.min() < 0:
        raise ValueError(
            f"{name}: attenuation cannot be negative, got {float(mu.min()):.3g} 1/cm; clip CT numbers "
            "at -1000 HU first"
        )
    check_scale(mu, name)


def check_scale(mu: Tensor, name: str) -> None:
    """Refuse what is given in HU, or as whole numbers of a file, where attenuation in 1/cm is meant; NaN may pass.

    Raises:
        ValueError: the message says what was found.
    """
    known = mu.detach().nan_to_num(0.0)
    if known.numel() and max(float(known.amax()), -float(known.amin())) > _DENSEST:
        raise ValueError(
            f"{name}: expected attenuation in 1/cm, water is {MU_WATER}, got values in "
            f"[{float(known.amin()):.4g}, {float(known.amax()):.4g}], as of CT numbers: hu_to_mu converts HU"
        )


def check_images(x: Tensor, geometry: Geometry, name: str) -> None:
    """Refuse what is not a float image (..., size, size) of this geometry."""
    _check(x, (geometry.size,) * 2, "images (..., size, size)", name)


def check_sinograms(y: Tensor, geometry: Geometry, name: str) -> None:
    """Refuse what is not a float sinogram (..., views, bins) of this geometry."""
    _check(y, (geometry.views, geometry.bins), "sinograms (..., views, bins)", name)


def _check(t: Tensor, expected: tuple[int, int], what: str, name: str) -> None:
    if not isinstance(t, Tensor) or not t.is_floating_point():
        kind = t.dtype if isinstance(t, Tensor) else type(t).__name__
        raise TypeError(f"{name}: expected a float tensor of {what}, got {kind}")
    if tuple(t.shape[-2:]) != expected:
        raise ValueError(
            f"{name}: expected {what} with last sides {expected}, got shape {tuple(t.shape)}"
        )
