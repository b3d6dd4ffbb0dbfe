"""Repairing a sinogram inside the shadow of the metal: linear interpolation, and NMAR.

Taught in: notebooks/14
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import given, need_same_device, need_tensor
from ...typed import typed
from .units import MU_WATER, mu_to_hu

# NMAR's prior image: below the first number everything is air, above the second bone, HU.
_AIR_HU, _BONE_HU = -500.0, 300.0
_SMOOTHING = 1.0


@typed
def interpolate_trace(y: Tensor, trace: Tensor) -> Tensor:
    """LI: replace each view inside the trace by the line between the nearest cells outside it.

    Cells outside the trace are returned bit by bit. A trace that reaches the end of the detector is
    filled with the last value outside it. Differentiable.

    Args:
        y: sinograms (..., views, bins).
        trace: bool, broadcastable to ``y``: the cells that metal shades.

    Returns:
        (..., views, bins).

    Raises:
        TypeError: ``trace`` is not bool.
        ValueError: the shapes do not fit, or a view has no cell outside the trace.

    >>> y = torch.tensor([[1.0, 9.0, 9.0, 4.0]])
    >>> interpolate_trace(y, torch.tensor([[False, True, True, False]]))
    tensor([[1., 2., 3., 4.]])

    Reference: Kalender, Hebel, Ebersberger, "Reduction of CT Artifacts Caused by Metallic Implants",
    Radiology 164(2), 1987.
    """
    trace = _checked(y, trace, "interpolate_trace")
    bins = y.shape[-1]
    cell = torch.arange(bins, device=y.device).expand(trace.shape)
    left = torch.where(trace, -1, cell).cummax(-1).values
    right = torch.where(trace, bins, cell).flip(-1).cummin(-1).values.flip(-1)
    # At the ends of the detector one side is missing: the other one is used twice.
    left, right = torch.where(left < 0, right, left), torch.where(right >= bins, left, right)
    weight = (cell - left) / (right - left).clamp(min=1)
    a, b = y.gather(-1, left), y.gather(-1, right)
    return torch.where(trace, a + weight.to(y.dtype) * (b - a), y)


@typed
def nmar(y: Tensor, trace: Tensor, prior: Tensor) -> Tensor:
    """NMAR: divide by the sinogram of a prior image, interpolate, multiply back.

    Where the prior is right the quotient is 1 across the trace, so edges that the prior has survive
    the interpolation.

    Args:
        y: sinograms (..., views, bins).
        trace: bool, broadcastable to ``y``.
        prior: sinograms of the prior image, not negative, broadcastable to ``y``; see
            :func:`prior_image`. A prior of nothing but air leaves LI.

    Returns:
        (..., views, bins); outside the trace, and without any trace, it is ``y``, bit by bit.

    Raises:
        TypeError, ValueError: as for :func:`interpolate_trace`, or a prior that does not fit, is negative or
            not finite.

    Reference: Meyer et al., "Normalized Metal Artifact Reduction (NMAR) in Computed Tomography",
    Medical Physics 37(10), 2010.

    >>> y = torch.tensor([[2.0, 2.0, 9.0, 4.0, 4.0]])  # metal at the third bin, a step behind it
    >>> trace = y > 5
    >>> nmar(y, trace, torch.tensor([[2.0, 2.0, 4.0, 4.0, 4.0]]))  # LI would say 3
    tensor([[2., 2., 4., 4., 4.]])
    """
    trace = _checked(y, trace, "nmar")
    need_tensor(prior, "nmar: prior", floating=True)
    if prior.ndim < 2 or 0 in prior.shape:
        raise ValueError(f"nmar: expected sinograms (..., views, bins), got a prior {given(prior)}")
    if not (torch.isfinite(prior) & (prior >= 0)).all():
        raise ValueError("nmar: expected a finite prior that is not negative")
    # Rays through air have no prior: there the quotient would be noise over nothing.
    largest = prior.amax((-2, -1), keepdim=True)
    floor = torch.where(largest > 0, 0.01 * largest, 1.0)
    prior = _expanded(torch.maximum(prior, floor), y, "nmar: a prior", "sinograms")
    return torch.where(trace, prior * interpolate_trace(y / prior, trace), y)


@typed
def prior_image(mu: Tensor, metal: Tensor | None = None) -> Tensor:
    """A cartoon of a CT image: air 0, soft tissue water, bone as it is.

    Args:
        mu: (..., H, W) in 1/cm, for example the LI image.
        metal: bool mask; there the prior is water.

    Returns:
        (..., H, W) in 1/cm.

    Raises:
        TypeError, ValueError: ``metal`` is not bool, or does not fit ``mu``.

    >>> air, soft, bone = torch.zeros(20, 20), torch.full((20, 20), 0.2), torch.full((20, 20), 0.5)
    >>> prior_image(torch.cat([air, soft, bone]))[[0, 30, 59], 0]
    tensor([0.0000, 0.1920, 0.5000])
    """
    need_tensor(mu, "prior_image: mu", floating=True)
    if mu.ndim < 2 or 0 in mu.shape:
        raise ValueError(f"prior_image: expected images (..., H, W), got {given(mu)}")
    smooth = _gaussian(mu, _SMOOTHING)
    if metal is not None:
        if not isinstance(metal, Tensor) or metal.dtype != torch.bool:
            got = metal.dtype if isinstance(metal, Tensor) else given(metal)
            raise TypeError(f"prior_image: expected a bool mask of the metal, got {got}")
        smooth = torch.where(
            _expanded(metal, mu, "prior_image: a mask", "images"), MU_WATER, smooth
        )
    hu = mu_to_hu(smooth)
    tissue = torch.where(hu > _BONE_HU, smooth, torch.full_like(smooth, MU_WATER))
    return torch.where(hu < _AIR_HU, torch.zeros_like(smooth), tissue)


@typed
def nmar_image(
    y: Tensor,
    trace: Tensor,
    project: Callable[[Tensor], Tensor],
    reconstruct: Callable[[Tensor], Tensor],
    metal: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """NMAR from a sinogram to an image, with the LI image as source of the prior.

    Args:
        y, trace: as for :func:`nmar`.
        project: images -> sinograms, ``Projector(...).project``.
        reconstruct: sinograms -> images, an :class:`.FBP`.
        metal: bool mask of the metal, if known.

    Returns:
        The image (..., H, W) and the repaired sinogram. Without any trace the sinogram is ``y``.
    """
    prior = prior_image(reconstruct(interpolate_trace(y, trace)), metal)
    repaired = nmar(y, trace, project(prior))
    return reconstruct(repaired), repaired


def _checked(y: Tensor, trace: Tensor, name: str) -> Tensor:
    need_tensor(y, f"{name}: y", floating=True)
    if y.ndim < 2 or 0 in y.shape:
        raise ValueError(f"{name}: expected sinograms (..., views, bins), got {given(y)}")
    if not isinstance(trace, Tensor) or trace.dtype != torch.bool:
        got = trace.dtype if isinstance(trace, Tensor) else given(trace)
        raise TypeError(f"{name}: expected a bool trace, got {got}; compare it with 0")
    need_same_device((y, trace), f"{name}: y and trace")
    trace = _expanded(trace, y, f"{name}: a trace", "sinograms")
    full = trace.all(-1)
    if full.any():
        where = full.nonzero()[0].tolist()
        raise ValueError(
            f"{name}: {int(full.sum())} views lie in the trace from end to end, so there is nothing "
            f"to interpolate from; the first is at index {where}"
        )
    return trace


def _expanded(t: Tensor, like: Tensor, what: str, kind: str) -> Tensor:
    try:
        return t.expand(like.shape)
    except RuntimeError:
        raise ValueError(
            f"{what} of shape {tuple(t.shape)} does not fit {kind} {tuple(like.shape)}"
        ) from None


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    reach = int(4 * sigma + 0.5)
    t = torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (t / sigma).square())
    kernel = kernel / kernel.sum()
    flat = x.reshape(-1, 1, *x.shape[-2:])
    flat = F.pad(flat, (reach,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None, :])
    return flat.reshape(x.shape)
