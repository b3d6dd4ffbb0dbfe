"""How equivariant a network is: the relative error of its output and of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import given, need_callable, need_number, outside_autocast, wide
from ..layers.compare import How
from ..layers.inputs import IMAGE_DIMS, InFields, Inputs, checked_images
from ..layers.pairs import Pairing, paired_forward
from ..layers.plan import Fields, Selector
from ..layers.traced import feature_plan
from ..symmetry.actions import act, quarter_turns, rotate, valid_mask
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group, need_group
from ..typed import typed


@typed
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
        margin: for angles that need interpolation, pixels to leave out along the source image's border, at
            least 0. Both norms are taken over the pixels whose value comes from inside.

    Returns:
        Tensor (B,), no gradient; float32 or float64, also for models in half precision and inside autocast.

    Raises:
        TypeError, ValueError: for integer, empty or non-square images, fields of another group or width, or a
            map that returns no tensor (B, C, H, W), (B, K) or (B,), or none of the size of the turned output; a
            margin that leaves no pixel.

    A filter by pixel is equivariant. The corner pixel is not invariant: turned, it is 2, 4 and 3 in place of 1,
    and :math:`(1+9+4)/3=4.667`:

    >>> from eqreg import C4
    >>> x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> equivariance_error(torch.square, x, C4), equivariance_error(lambda x: x[..., 0, 0], x, C4)
    (tensor([0.]), tensor([4.6667]))

    Taught in: notebooks/01, notebooks/13.
    """
    need_callable(f, "f")
    need_group(group)
    need_number(margin, "margin", 0)
    checked_images(x, f, group)
    if x.ndim != IMAGE_DIMS or 0 in x.shape:
        raise ValueError(f"x must be images (B, C, H, W), got {given(x)}")
    if elements is not None and not isinstance(elements, Iterable):
        raise TypeError(f"elements must be several elements of {group}, got {given(elements)}")
    chosen = group.elements[1:] if elements is None else tuple(group.element(g) for g in elements)
    if not chosen:
        raise ValueError(
            f"no element of {group} to average over: give elements=, or a larger group"
        )
    for field in (field_in, field_out):
        if field is not None and not isinstance(field, FieldType):
            raise TypeError(
                f'a field must be a FieldType such as {group}.field("8r"), got {given(field)}'
            )
        if field is not None and field.group != group:
            raise ValueError(f"{field!r} is a field of {field.group}, but the group is {group}")
    with torch.no_grad():
        # Copies: a model may change its input in place, or return the same memory at every call.
        y = _output(f(x.clone()), len(x)).clone()
        if field_out is not None and y.ndim != IMAGE_DIMS:
            raise ValueError(
                f"field_out needs an output (B, C, H, W), got {given(y)}; leave it out for invariance"
            )
        pairs = ((g, _output(f(_act(x, g, group, field_in).clone()), len(x))) for g in chosen)
        return torch.stack([_relative(z, y, g, group, field_out, margin) for g, z in pairs]).mean(0)


def _relative(
    z: Tensor, y: Tensor, g: Element, group: Group, field: FieldType | None, margin: float
) -> Tensor:
    """Squared distance of ``z = f(g x)`` from ``g y`` over the square of ``y``, per image."""
    with outside_autocast(y):
        y, z = wide(y), wide(z)
        moved = _act(y, g, group, field)
        if z.shape != moved.shape:
            raise ValueError(
                f"f returned shape {tuple(y.shape)}, which turned is {tuple(moved.shape)}, but {tuple(z.shape)} for "
                "the turned input"
            )
        difference, reference = z - moved, y
        if y.ndim == IMAGE_DIMS and quarter_turns(g, group) is None:
            h, w = y.shape[-2:]
            mask = valid_mask((h, w), g, group, margin=margin, device=y.device)
            if not bool(mask.any()):
                raise ValueError(
                    f"margin={margin:g} leaves no pixel of {h} x {w} at {group.angle(g):g} degrees"
                )
            # where, not a product: what is left out may be NaN.
            difference, reference = torch.where(mask, difference, 0), torch.where(mask, y, 0)
        return _energy(difference) / _energy(reference).clamp_min(torch.finfo(y.dtype).tiny)


def _energy(t: Tensor) -> Tensor:
    return t.abs().square().reshape(len(t), -1).sum(1)


def _output(y: Any, batch: int) -> Tensor:
    if not isinstance(y, Tensor):
        parts = f" of {len(y)}" if isinstance(y, list | tuple | dict) else ""
        raise TypeError(
            f"f returned a {type(y).__name__}{parts}, expected one tensor: measure its parts one by one, for example "
            "with lambda x: model(x)[0]"
        )
    if not 1 <= y.ndim <= IMAGE_DIMS or y.ndim == IMAGE_DIMS - 1 or len(y) != batch:
        raise ValueError(
            f"f must return images (B, C, H, W) or vectors (B, K) with B = {batch}, got {given(y)}"
        )
    if 0 in y.shape:
        raise ValueError(f"f returned nothing to compare: {given(y)}")
    return y


@typed
def layer_errors(
    model: nn.Module,
    x: Tensor,
    group: Group,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    in_fields: InFields | None = None,
    center: bool = False,
    example: Any = None,
) -> dict[str, float]:
    """Relative equivariance error of each layer, averaged over all elements but the identity.

    The number is the one :class:`~eqreg.EquivarianceRegularizer` penalises: 0 is equivariant, about 2
    what random weights give. The model runs in the mode (train or eval) that it is in.

    Args:
        model: any module.
        x: images (B, C, H, W).
        group: the group.
        layers, fields, in_fields, center: as for the regularizer.
        example: as for the regularizer, an input of the model, often ``x[:1]``: the fields are traced, not guessed,
            and tokens and windows are compared as images.

    Returns:
        Errors by layer name; the calls of a reused layer are named ``name``, ``name#2``, ...

    Raises:
        TypeError, ValueError: as for the regularizer.

    A difference across the columns, and turned one across the rows: on noise the two are unrelated.

    >>> from eqreg import C2, C4
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False))
    >>> net[0].weight.data = torch.tensor([[[[0.0, 0, 0], [-1, 2, -1], [0, 0, 0]]]])
    >>> x = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    >>> [round(layer_errors(net, x, group)["0"], 1) for group in (C2, C4)]
    [0.0, 0.5]
    """
    need_group(group)
    plan = feature_plan(model, group, layers, fields, example)
    inputs = Inputs.of(model, group, None, in_fields)
    batch = checked_images(x, model, group)
    sums: dict[str, float] = {}
    with torch.no_grad():
        for g in group.elements[1:]:
            pairing = Pairing(group, g, batch, batch)
            _, found = paired_forward(
                model,
                model,
                plan.fields,
                pairing,
                inputs,
                (x,),
                {},
                how=How(center=center),
                check_grid=not sums,
                layouts=plan.layouts,
            )
            for name, error in zip(found.names, found.relative().tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + error / (group.order - 1)
    return sums


def _act(t: Tensor, g: Element, group: Group, field: FieldType | None) -> Any:
    if t.ndim < IMAGE_DIMS:
        return t
    return act(t, g, field) if field is not None else rotate(t, g, group)
