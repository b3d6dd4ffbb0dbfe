"""How equivariant a network is: the relative error of its output and of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.inputs import IMAGE_DIMS, InFields, Inputs, checked_images
from ..layers.pairs import Pairing, paired_forward
from ..layers.plan import Fields, Selector, make_plan
from ..symmetry.actions import act, quarter_turns, rotate, valid_mask
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group


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
        TypeError, ValueError: for integer, empty or non-square images, fields of another group or width, or a
            map that returns no tensor, or none of the size of the turned output.

    Taught in: notebooks/01, notebooks/13.
    """
    checked_images(x, f, group)
    chosen = group.elements[1:] if elements is None else tuple(group.element(g) for g in elements)
    if not chosen:
        raise ValueError(
            f"no element of {group} to average over: give elements=, or a larger group"
        )
    for field in (field_in, field_out):
        if field is not None and field.group != group:
            raise ValueError(f"{field!r} is a field of {field.group}, but the group is {group}")
    with torch.no_grad():
        # Copies: a model may change its input in place, or return the same memory at every call.
        y = _tensor(f(x.clone())).clone()
        errors = []
        for g in chosen:
            y_g = _tensor(f(_act(x, g, group, field_in).clone()))
            moved = _act(y, g, group, field_out)
            if y_g.shape != moved.shape:
                raise ValueError(
                    f"f returned shape {tuple(y.shape)} for {tuple(x.shape)}, which turned is {tuple(moved.shape)}, "
                    f"but {tuple(y_g.shape)} for the turned input"
                )
            difference, reference = y_g - moved, y
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
    in_fields: InFields | None = None,
    center: bool = False,
) -> dict[str, float]:
    """Relative equivariance error of each layer, averaged over all elements but the identity.

    The number is the one :class:`~eqreg.EquivarianceRegularizer` penalises: 0 is equivariant, about 2
    what random weights give. The model runs in the mode (train or eval) that it is in.

    Args:
        model: any module.
        x: images (B, C, H, W).
        group: the group.
        layers, fields, in_fields, center: as for the regularizer.

    Returns:
        Errors by layer name; the calls of a reused layer are named ``name``, ``name#2``, ...

    Raises:
        TypeError, ValueError: as for the regularizer.
    """
    plan = make_plan(model, group, layers, fields)
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
                center=center,
                check_grid=not sums,
            )
            for name, c in found.items():
                error = c.error / c.power.clamp_min(torch.finfo(c.power.dtype).tiny)
                sums[name] = sums.get(name, 0.0) + float(error) / (group.order - 1)
    return sums


def _tensor(y: Any) -> Tensor:
    if isinstance(y, Tensor):
        return y
    parts = f" of {len(y)}" if isinstance(y, list | tuple | dict) else ""
    raise TypeError(
        f"f returned a {type(y).__name__}{parts}, expected one tensor: measure its parts one by one, for example "
        "with lambda x: model(x)[0]"
    )


def _act(t: Tensor, g: Element, group: Group, field: FieldType | None) -> Any:
    if t.ndim < IMAGE_DIMS:
        return t
    return act(t, g, field) if field is not None else rotate(t, g, group)
