"""How equivariant a network is, and how good its images are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ._extras import require
from ._pairs import IMAGE_DIMS, Pairing, batch_size, paired_forward
from ._plan import Fields, Selector, make_plan
from .actions import act, quarter_turns, rotate, valid_mask
from .fields import FieldType
from .groups import Element, Group

_RGB = 3
# BT.601 luma of R, G, B in [0, 1] on the studio range [16, 235] / 255, as in MATLAB's rgb2ycbcr.
_BT601 = (65.481, 128.553, 24.966)
_BT601_OFFSET = 16.0
_SSIM_WINDOW = 11


def equivariance_error(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    group: Group,
    *,
    field_in: FieldType | None = None,
    field_out: FieldType | None = None,
    elements: Iterable[Element | int] | None = None,
    margin: float = 0.0,
) -> Tensor:
    r"""Relative equivariance error of a map, per image.

    .. math:: \frac{1}{|G|-1}\sum_{g\ne e}
        \frac{\lVert f(g\cdot x)-g\cdot f(x)\rVert^2}{\lVert f(x)\rVert^2}

    0 for an equivariant map, about 2 where ``f(g x)`` and ``g f(x)`` are unrelated.

    Args:
        f: the map, called with (B, C, H, W). It may return images, features, or vectors (B, K) that
            are compared as they are (invariance).
        x: images or features, floating, square if the group holds quarter turns.
        group: the group.
        field_in: type of ``x``; all trivial (an image) if not given.
        field_out: type of ``f(x)``; all trivial if not given.
        elements: the elements to average over; all but the identity if not given.
        margin: for angles that need interpolation, pixels to leave out along the source image's border. Both
            norms are taken over the pixels whose value comes from inside.

    Returns:
        Tensor (B,), no gradient.

    Raises:
        TypeError, ValueError: for integer, empty or non-square images, fields of another group or width.

    Taught in: notebooks/01, notebooks/13.
    """
    model = f if isinstance(f, nn.Module) else nn.Identity()
    batch_size(x, model, group)
    chosen = group.elements[1:] if elements is None else tuple(group.element(g) for g in elements)
    if not chosen:
        raise ValueError(
            f"no element of {group} to average over: give elements=, or a larger group"
        )
    for field in (field_in, field_out):
        if field is not None and field.group != group:
            raise ValueError(f"{field!r} is a field of {field.group}, but the group is {group}")
    with torch.no_grad():
        y = f(x)
        errors = []
        for g in chosen:
            difference, reference = f(_act(x, g, group, field_in)) - _act(y, g, group, field_out), y
            if y.ndim >= IMAGE_DIMS and quarter_turns(g, group) is None:
                h, w = y.shape[-2:]
                mask = valid_mask((h, w), g, group, margin=margin, device=y.device)
                difference, reference = difference * mask, y * mask
            power = reference.square().flatten(1).sum(1).clamp_min(torch.finfo(y.dtype).tiny)
            errors.append(difference.square().flatten(1).sum(1) / power)
        return torch.stack(errors).mean(0)


def layer_errors(
    model: nn.Module,
    x: Tensor,
    group: Group,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    center: bool = False,
) -> dict[str, float]:
    """Relative equivariance error of each layer, averaged over all elements but the identity.

    The number is the one :class:`~eqreg.EquivarianceRegularizer` penalises: 0 is equivariant, about 2
    what random weights give. The model runs in the mode (train or eval) that it is in.

    Args:
        model: any module.
        x: images (B, C, H, W).
        group: the group.
        layers, fields, center: as for the regularizer.

    Returns:
        Errors by layer name; the calls of a reused layer are named ``name``, ``name#2``, ...

    Raises:
        TypeError, ValueError: as for the regularizer.
    """
    plan = make_plan(model, group, layers, fields)
    batch = batch_size(x, model, group)
    sums: dict[str, float] = {}
    with torch.no_grad():
        for g in group.elements[1:]:
            pairing = Pairing(group, g, batch, batch)
            _, found = paired_forward(
                model, model, plan.fields, pairing, (x,), {}, center=center, check_grid=not sums
            )
            for name, c in found.items():
                error = c.error / c.power.clamp_min(torch.finfo(c.power.dtype).tiny)
                sums[name] = sums.get(name, 0.0) + float(error) / (group.order - 1)
    return sums


def luma(x: Tensor) -> Tensor:
    """BT.601 luma on the studio range, the Y of the deraining papers.

    Args:
        x: RGB images (..., 3, H, W) in [0, 1].

    Returns:
        Images (..., 1, H, W) in [16/255, 235/255].

    Raises:
        ValueError: if there are not three channels.
    """
    if x.ndim < _RGB or x.shape[-3] != _RGB:
        raise ValueError(f"luma needs RGB images (..., 3, H, W), got shape {tuple(x.shape)}")
    weights = torch.tensor(_BT601, dtype=x.dtype, device=x.device).reshape(_RGB, 1, 1)
    return ((x * weights).sum(-3, keepdim=True) + _BT601_OFFSET) / 255


def psnr(
    x: Tensor,
    y: Tensor,
    *,
    channel: str = "rgb",
    data_range: float = 1.0,
    mask: Tensor | None = None,
) -> Tensor:
    """Peak signal-to-noise ratio of each image, in dB.

    Args:
        x: estimates (B, C, H, W).
        y: ground truth, same shape.
        channel: ``"rgb"`` for all channels as they are, ``"y"`` for BT.601 luma (images in [0, 1]).
        data_range: largest minus smallest possible value.
        mask: boolean, True where pixels count: (H, W), as of :func:`eqreg.valid_mask`, or what
            broadcasts to (B, 1, H, W). All pixels if not given.

    Returns:
        Tensor (B,); infinite for equal images.

    Raises:
        TypeError: ``mask`` is not boolean.
        ValueError: for shapes that differ or are no image batches, an unknown channel, a mask of
            another shape, or one that leaves no pixel of an image.
    """
    x, y = _comparable(x, y, channel, data_range)
    error = (x - y).square()
    if mask is None:
        return 10 * torch.log10(data_range**2 / error.mean((1, 2, 3)))
    kept = _mask_of(error, mask)
    # where, not a product: what is left out may be NaN.
    mean = torch.where(kept, error, 0).sum((1, 2, 3)) / (kept.sum((1, 2, 3)) * error.shape[1])
    return 10 * torch.log10(data_range**2 / mean)


def ssim(x: Tensor, y: Tensor, *, channel: str = "rgb", data_range: float = 1.0) -> Tensor:
    """Structural similarity of each image: Gaussian window, sigma 1.5 (Wang et al., 2004).

    Args:
        x: estimates (B, C, H, W), at least 11 pixels high and wide.
        y: ground truth, same shape.
        channel: ``"rgb"`` for all channels as they are, ``"y"`` for BT.601 luma (images in [0, 1]).
        data_range: largest minus smallest possible value.

    Returns:
        Tensor (B,).

    Raises:
        ValueError: for shapes that differ, are no image batches or too small, or an unknown channel.
        ImportError: without torchmetrics (``pip install "eqreg[tasks]"``).
    """
    x, y = _comparable(x, y, channel, data_range)
    if min(x.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(f"ssim needs images of at least 11 x 11 pixels, got {tuple(x.shape[-2:])}")
    functional = require("torchmetrics.functional.image", extra="tasks")
    _, local = functional.structural_similarity_index_measure(
        x, y, data_range=float(data_range), reduction="none", return_full_image=True
    )
    # Only windows that lie inside the image count, as in the original code and in scikit-image.
    border = _SSIM_WINDOW // 2
    inside: Tensor = local[..., border : x.shape[-2] - border, border : x.shape[-1] - border]
    return inside.mean((1, 2, 3))


def _comparable(x: Tensor, y: Tensor, channel: str, data_range: float) -> tuple[Tensor, Tensor]:
    if x.shape != y.shape or x.ndim != IMAGE_DIMS:
        raise ValueError(
            f"expected two batches (B, C, H, W) of one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if not (x.is_floating_point() and y.is_floating_point()):
        raise TypeError(f"expected floating point images, got {x.dtype} and {y.dtype}")
    if channel not in ("rgb", "y"):
        raise ValueError(f'channel must be "rgb" or "y", got {channel!r}')
    if data_range <= 0:
        raise ValueError(f"data_range must be positive, got {data_range!r}")
    return (luma(x), luma(y)) if channel == "y" else (x, y)


def _mask_of(images: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        raise TypeError(f"expected a boolean mask, got {mask.dtype}")
    shape = (images.shape[0], 1, *images.shape[-2:])
    try:
        kept = mask.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"expected a mask that broadcasts to {shape}, got shape {tuple(mask.shape)}"
        ) from None
    empty = (~kept.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"the mask leaves no pixel of image {empty[0]}")
    return kept


def _act(t: Tensor, g: Element, group: Group, field: FieldType | None) -> Any:
    if t.ndim < IMAGE_DIMS:
        return t
    return act(t, g, field) if field is not None else rotate(t, g, group)
