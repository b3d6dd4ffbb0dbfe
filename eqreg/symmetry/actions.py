"""How group elements act on tensors: turn the picture, permute the channels.

Images are tensors ``(..., C, H, W)``. Multiples of 90 degrees are exact permutations of pixels; other
angles are interpolated bilinearly about the image centre.
"""

from __future__ import annotations

from math import cos, radians, sin

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import given, need_number, need_sizes, outside_autocast, wide
from .fields import FieldType
from .groups import C4, Element, Group, need_group

_MIN_IMAGE_DIMS = 2
_QUARTERS = 4


def quarter_turns(g: Element | int, group: Group = C4) -> int | None:
    """Number of exact 90-degree turns in ``g``, or None if ``g`` needs interpolation.

    >>> from eqreg import C8
    >>> [quarter_turns(k, C8) for k in range(4)]
    [0, None, 1, None]
    """
    # Whole numbers, which are exact, and which torch.compile can trace.
    quarters, rest = divmod(_QUARTERS * group.element(g).turns, group.n)
    return quarters if rest == 0 else None


def rotate(x: Tensor, g: Element | int, group: Group = C4) -> Tensor:
    r"""Rotate (and mirror) images: :math:`(\pi_g x)(p) = x(g^{-1}p)`, counter-clockwise.

    With the default group ``rotate(x, k)`` is ``torch.rot90(x, k, (-2, -1))``. An element with a flip
    mirrors left and right before it turns.

    Args:
        x: images ``(..., H, W)``; of any dtype if the angle is a multiple of 90 degrees, else floating.
        g: element of ``group``; an int is a number of turns.
        group: the group that ``g`` is taken from.

    Returns:
        A new tensor ``(..., H, W)``; ``(..., W, H)`` after an odd number of quarter turns. Interpolated
        rotations are zero where the source lies outside the image; see :func:`valid_mask`.

    Raises:
        TypeError: if ``x`` is not a tensor, or not floating where interpolation is needed.
        ValueError: if ``x`` has fewer than two dimensions.

    >>> rotate(torch.tensor([[1, 2], [3, 4]]), 1)
    tensor([[2, 4],
            [1, 3]])

    Taught in: notebooks/01.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"expected images as a tensor (..., H, W), got {given(x)}")
    need_group(group)
    if x.ndim < _MIN_IMAGE_DIMS:
        raise ValueError(f"expected images (..., H, W), got shape {tuple(x.shape)}")
    g = group.element(g)
    if g.flip:
        x = x.flip(-1)
    turns = quarter_turns(g, group)
    if turns is not None:
        return torch.rot90(x, turns, (-2, -1))
    if not x.is_floating_point():
        raise TypeError(
            f"rotating by {group.angle(g):g} degrees interpolates and needs floating point images, got {x.dtype}"
        )
    if x.numel() == 0:
        return x.clone()
    h, w = x.shape[-2:]
    # In half precision the coordinates of a 512 x 512 image would be off by a quarter of a pixel.
    flat = wide(x).reshape(1, -1, h, w)
    grid = _source_grid(h, w, group.angle(g), x.device, flat.dtype)
    # grid_sample reads coordinates in [-1, 1] between the centres of the outer pixels.
    scale = torch.tensor([max(w - 1, 1), max(h - 1, 1)], device=x.device, dtype=flat.dtype)
    with outside_autocast(x):
        out = F.grid_sample(
            flat, (2 * grid / scale)[None], padding_mode="zeros", align_corners=True
        )
    return out.reshape(x.shape).to(x.dtype)


def valid_mask(
    size: tuple[int, int],
    g: Element | int,
    group: Group = C4,
    *,
    margin: float = 0.0,
    device: torch.device | str | None = None,
) -> Tensor:
    """Pixels of a rotated image whose value comes from inside the image.

    Args:
        size: height and width of the image, in pixels.
        g: element of ``group``.
        group: the group that ``g`` is taken from.
        margin: further pixels to drop along the source image's border, for example half a receptive field;
            at least 0.
        device: device of the mask.

    Returns:
        A bool tensor of the turned image's size: ``(W, H)`` after an odd number of quarter turns, else
        ``(H, W)``. All true for multiples of 90 degrees at margin 0.

    Raises:
        TypeError, ValueError: for a size that is not two positive whole numbers, or a negative margin.

    >>> from eqreg import CyclicGroup
    >>> valid_mask((5, 5), 1, CyclicGroup(8)).int()  # a turn by 45 degrees brings the corners in from outside
    tensor([[0, 0, 1, 0, 0],
            [0, 1, 1, 1, 0],
            [1, 1, 1, 1, 1],
            [0, 1, 1, 1, 0],
            [0, 0, 1, 0, 0]], dtype=torch.int32)
    """
    h, w = need_sizes(size, "size", "H, W")
    need_group(group)
    need_number(margin, "margin", 0)
    odd = bool((quarter_turns(g, group) or 0) % 2)
    if odd:
        h, w = w, h
    grid = _source_grid(h, w, group.angle(g), torch.device(device or "cpu"), torch.float64)
    # A rounding error must not drop border pixels of exact rotations.
    source = [h - 1, w - 1] if odd else [w - 1, h - 1]
    reach = torch.tensor(source, device=grid.device, dtype=grid.dtype) / 2 - margin + 1e-9
    return (grid.abs() <= reach).all(-1)


def permute_channels(z: Tensor, g: Element | int, field: FieldType) -> Tensor:
    r"""Apply :math:`\rho(g)` to the channels: each regular field is permuted, trivial ones stay.

    For a cyclic group this is ``roll(+k)`` along the group axis of every regular field.

    Args:
        z: features ``(..., C, H, W)`` with ``C == field.channels``.
        g: element of ``field.group``.
        field: type of the features.

    Returns:
        Features of the same shape.

    Raises:
        ValueError: if the number of channels does not fit the field.

    >>> from eqreg import C4
    >>> permute_channels(torch.arange(5.0).reshape(5, 1, 1), 1, C4.field("1t + 1r")).flatten()
    tensor([0., 4., 1., 2., 3.])

    Taught in: notebooks/01.
    """
    if not isinstance(field, FieldType):
        raise TypeError(f'field must be a FieldType such as C4.field("8r"), got {given(field)}')
    if not isinstance(z, Tensor):
        raise TypeError(f"expected features as a tensor (..., C, H, W), got {given(z)}")
    if z.ndim <= _MIN_IMAGE_DIMS or z.shape[-3] != field.channels:
        raise ValueError(
            f"{field!r} needs features (..., {field.channels}, H, W), got shape {tuple(z.shape)}"
        )
    group = field.group
    source = _inverse(group.permutation(g))
    widths = [count * (group.order if kind == "r" else 1) for count, kind in field.terms]
    parts = []
    for part, (count, kind) in zip(z.split(widths, -3), field.terms, strict=True):
        if kind == "r" and source != tuple(range(len(source))):
            # Unbind and stack, not an index: its backward is one copy, and it keeps no index tensor.
            slices = part.unflatten(-3, (count, group.order)).unbind(-3)
            part = torch.stack([slices[s] for s in source], -3).flatten(-4, -3)
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts, -3)


def act(z: Tensor, g: Element | int, field: FieldType) -> Tensor:
    r"""Action on a feature field: :math:`(g\cdot f)(p) = \rho(g)\, f(g^{-1}p)`.

    Args:
        z: features ``(..., C, H, W)`` with ``C == field.channels``.
        g: element of ``field.group``.
        field: type of the features.

    Returns:
        The transformed features: permuted channels of rotated maps.

    >>> from eqreg import C4
    >>> z = torch.arange(4.0).reshape(1, 4, 1, 1)
    >>> act(z, 1, C4.field("1r")).flatten().tolist()
    [3.0, 0.0, 1.0, 2.0]

    Taught in: notebooks/01.
    """
    return rotate(permute_channels(z, g, field), g, field.group)


def _source_grid(
    h: int, w: int, degrees: float, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Coordinates (x, y) from the centre, in pixels, y downwards, that a rotation reads from: (H, W, 2)."""
    ys = torch.arange(h, device=device, dtype=dtype) - (h - 1) / 2
    xs = torch.arange(w, device=device, dtype=dtype) - (w - 1) / 2
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    c, s = cos(radians(degrees)), sin(radians(degrees))
    # The inverse rotation: clockwise on screen, where y points down.
    return torch.stack([c * x - s * y, s * x + c * y], -1)


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))
