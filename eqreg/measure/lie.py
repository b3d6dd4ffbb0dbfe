"""Lie derivatives: does a map turn with its input, for angles as small as we like?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import given, need_callable, need_whole, wide
from ..layers.inputs import IMAGE_DIMS, checked_images
from ..symmetry.groups import C1
from ..typed import typed

_Map = Callable[[Tensor], Tensor]
# Central difference of order four: an interior error of h^4/30 times the fifth derivative.
_STENCIL = (2 / 3, -1 / 12)
_REACH = len(_STENCIL)


@typed
def lie_derivative(f: _Map, x: Tensor, *, about: str = "center", margin: int = 0) -> Tensor:
    r"""Lie derivative of a map under rotations, :math:`Lf(x)=\frac d{d\theta}\big|_0\pi_{-\theta}f(\pi_\theta x)`.

    It is the commutator :math:`df(x)[Xx]-Xf(x)` with the generator :math:`X=v\,\partial_u-u\,\partial_v`
    (u to the right, v upwards, from the centre of the image). ``df`` is exact, by forward-mode
    differentiation, and no image is interpolated: the derivatives in ``X`` are central differences of
    order four, with border pixels repeated outwards. The identity has a derivative of exactly 0, a
    Gaussian blur one that falls with the fourth power of the pixel size.

    With ``about="pixel"`` each output pixel is asked what it does when the image turns about that pixel:
    :math:`df(x)[Xx]-v\,df(x)[\partial_ux]+u\,df(x)[\partial_vx]`. The rest of ``"center"`` is what the
    map does under *shifts*, times the distance from the centre: aliasing.

    Args:
        f: the map, called with (B, C, H, W); it acts image by image and returns images (B, C', H', W') or, for
            invariance, vectors (B, K). Channels are trivial fields: they are not mixed by a rotation.
        x: images (B, C, H, W), floating, of any height and width.
        about: ``"center"`` of the image, or ``"pixel"``, for maps that keep height and width.
        margin: pixels of the output to set to 0 along its border, at least half a receptive field if the
            frame of the image is not to count.

    Returns:
        Tensor of the shape of ``f(x)``, per radian, no gradient, at least float32.

    Raises:
        TypeError: for integer images, or an output that is not one tensor.
        ValueError: for an empty batch, an unknown ``about``, an output that is neither images nor vectors or does
            not fit ``about``, or a margin that leaves nothing.
        NotImplementedError: from torch, if an operation in ``f`` has no forward-mode derivative.

    A shading that brightens by 1 a pixel to the right, on a white image: turned by a small angle, it brightens upwards
    too, by the angle times the height, and here the turn is undone.

    >>> shaded = lambda x: x * (torch.arange(5.0) - 2)
    >>> lie_derivative(shaded, torch.ones(1, 1, 9, 5), margin=1)[0, 0, 1:-1, 2]
    tensor([-3., -2., -1.,  0.,  1.,  2.,  3.])

    Reference: Gruver et al., The Lie Derivative for Measuring Learned Equivariance, ICLR 2023.
    Taught in: notebooks/12.
    """
    return _derivative(f, x, about, margin)[1]


@typed
def lie_error(f: _Map, x: Tensor, *, about: str = "center", margin: int = 0) -> Tensor:
    r"""Relative Lie derivative error under rotations, :math:`\lVert Lf(x)\rVert^2/\lVert f(x)\rVert^2`, per image.

    Its unit is 1 / radian²: for angles so small that nothing moves by a pixel, ``theta**2`` times it is the
    :func:`~eqreg.equivariance_error` at the angle ``theta``. It does not see finite angles, nor mirrorings.

    Args:
        f, x, about, margin: as for :func:`lie_derivative`; both norms leave out the margin.

    Returns:
        Tensor (B,), no gradient.

    Raises:
        TypeError, ValueError, NotImplementedError: as for :func:`lie_derivative`.

    A shading to the right becomes one upwards, :math:`Lf=v` for :math:`f=u`, of the same size; a contrast turns along:

    >>> shading, white = torch.arange(9.0) - 4, torch.ones(1, 1, 9, 9)
    >>> [lie_error(f, white, margin=2).item() for f in (lambda x: shading * x, lambda x: 3 * x)]
    [1.0, 0.0]

    Taught in: notebooks/12.
    """
    y, derivative = _derivative(f, x, about, margin)
    power = _inside(y, margin).square().flatten(1).sum(1).clamp_min(torch.finfo(y.dtype).tiny)
    return derivative.square().flatten(1).sum(1) / power


def _derivative(f: _Map, x: Tensor, about: str, margin: int) -> tuple[Tensor, Tensor]:
    """``f(x)`` and its Lie derivative, which is 0 on the margin."""
    if about not in ("center", "pixel"):
        raise ValueError(f'about must be "center" or "pixel", got {about!r}')
    need_callable(f, "f")
    need_whole(margin, "margin", 0)
    checked_images(x, f, C1)
    if x.ndim != IMAGE_DIMS or not x.is_floating_point() or 0 in x.shape:
        raise ValueError(f"x must be real floating point images (B, C, H, W), got {given(x)}")
    x = x.detach()
    # In half precision coordinates and differences would be rounded away.
    right, up = _gradient(wide(x))
    u, v = _coordinates(wide(x))
    y, moved = _push(f, x, v * right - u * up)
    if y.ndim not in (2, IMAGE_DIMS) or y.shape[0] != x.shape[0] or not y.is_floating_point():
        raise ValueError(
            f"f must return images (B, C, H, W) or vectors (B, K) with B = {x.shape[0]}, got {given(y)}"
        )
    if about == "pixel":
        if y.shape[-2:] != x.shape[-2:]:
            raise ValueError(
                f'about="pixel" needs a map that keeps height and width, got {tuple(x.shape)} -> {tuple(y.shape)}; '
                'use about="center"'
            )
        moved = moved - v * _push(f, x, right)[1] + u * _push(f, x, up)[1]
    elif y.ndim == IMAGE_DIMS:
        right, up = _gradient(y)
        u, v = _coordinates(y)
        moved = moved - (v * right - u * up)
    return y, _inside(moved, margin)


def _push(f: _Map, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """``f(x)`` and its derivative along a direction, without gradients."""
    # A copy: the map may write into its input.
    x, direction = x.clone(), direction.to(x.dtype)
    with torch.no_grad(), warnings.catch_warnings():
        # torch's own: its forward-mode decompositions are scripted when they are first used.
        warnings.filterwarnings("ignore", r".*torch\.jit\.script", DeprecationWarning)
        y, dy = torch.func.jvp(partial(_one_tensor, f), (x,), (direction,))[:2]
    return wide(y), wide(dy)


def _one_tensor(f: _Map, x: Tensor) -> Tensor:
    y = f(x)
    if not isinstance(y, Tensor):
        raise TypeError(
            f"f must return one tensor, got {given(y)}; pick one, for example lambda x: f(x)[0]"
        )
    return y


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives to the right and upwards, per pixel."""
    h, w = x.shape[-2:]
    padded = F.pad(x, (_REACH,) * 4, mode="replicate")
    right, up = torch.zeros_like(x), torch.zeros_like(x)
    for k, c in enumerate(_STENCIL, 1):
        rows = padded[..., _REACH : _REACH + h, :]
        columns = padded[..., _REACH : _REACH + w]
        right += c * (rows[..., _REACH + k :][..., :w] - rows[..., _REACH - k :][..., :w])
        up += c * (
            columns[..., _REACH - k :, :][..., :h, :] - columns[..., _REACH + k :, :][..., :h, :]
        )
    return right, up


def _coordinates(x: Tensor) -> tuple[Tensor, Tensor]:
    """Position to the right and upwards from the centre, in pixels: (W,) and (H, 1)."""
    h, w = x.shape[-2:]
    u = torch.arange(w, device=x.device, dtype=x.dtype) - (w - 1) / 2
    v = (h - 1) / 2 - torch.arange(h, device=x.device, dtype=x.dtype)
    return u, v[:, None]


def _inside(y: Tensor, margin: int) -> Tensor:
    """The same tensor with a border of zeros; vectors have none."""
    if y.ndim != IMAGE_DIMS or margin == 0:
        return y
    h, w = y.shape[-2:]
    if not 0 < 2 * margin < min(h, w):
        raise ValueError(
            f"margin must be in [0, {(min(h, w) - 1) // 2}] for {h} x {w} pixels, got {margin}"
        )
    return F.pad(y[..., margin : h - margin, margin : w - margin], (margin,) * 4)
