r"""Soft symmetry in weight space: project weights, measure their distance, shrink it.

A layer is equivariant if and only if its weight is a fixed point of
:math:`T_gW=\rho_{out}(g)\,(\pi_gW)\,\rho_{in}(g)^{-1}` for every ``g``. The mean over the group,
:math:`\Pi W=\frac1{|G|}\sum_gT_gW`, is the orthogonal projection on these weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import need_number, need_tensor, need_whole, wide
from ..layers.grid import warn_of_strides
from ..layers.plan import Fields, Selector
from ..layers.reynolds import Index, projected, reynolds, source_index
from ..layers.traced import weight_plan
from ..layers.wrappers import unwrapped
from ..symmetry.fields import FieldType, need_field
from ..symmetry.groups import Group
from .remainders import Decay


def project(
    weight: Tensor, in_field: FieldType | None, out_field: FieldType, *, groups: int = 1
) -> Tensor:
    r"""Reynolds projection of a weight: the nearest equivariant one, :math:`\Pi W=\frac1{|G|}\sum_gT_gW`.

    Args:
        weight: of a convolution (C_out, C_in / groups, K, K) or of a linear layer (C_out, C_in); a bias or
            a scale (C_out,) with ``in_field=None``. The weight of a transposed convolution
            (C_in, C_out / groups, K, K) is that of the convolution back: exchange the fields.
        in_field: type of the layer's input.
        out_field: type of its output.
        groups: of the convolution.

    Returns:
        A tensor of the same shape. Its gradient is the projection of the gradient.

    Raises:
        TypeError: if ``weight`` is not a floating point tensor.
        ValueError: if shape and fields do not fit, the kernel cannot be turned (not square, or angles
            other than multiples of 90 degrees), or ``groups`` cuts through fields.

    >>> from eqreg import C4
    >>> w = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> project(w, C4.field("1t"), C4.field("1t"))[0, 0, 0].tolist()
    [4.0, 4.0, 4.0]

    Reference: Elesedy & Zaidi, Provably Strict Generalisation Benefit for Equivariant Models, ICML 2021.
    Taught in: notebooks/10.
    """
    need_field(out_field, out_field if in_field is None else in_field)
    need_whole(groups, "project: groups", 0)
    need_tensor(weight, "project: weight", floating=True)
    if in_field is not None and in_field.group != out_field.group:
        raise ValueError(
            f"project: the fields must belong to one group, got {in_field!r}, {out_field!r}"
        )
    if groups < 1 or (in_field is not None and in_field.channels % groups):
        raise ValueError(f"project: groups={groups} does not divide the channels of {in_field!r}")
    inputs = () if in_field is None else (in_field.channels // groups,)
    expected = (out_field.channels, *inputs)
    dims = (1,) if in_field is None else (2, 4)
    if tuple(weight.shape[: len(expected)]) != expected or weight.ndim not in dims:
        taps = "" if in_field is None else "[, K, K]"
        raise ValueError(
            f"project: {in_field} -> {out_field} with groups={groups} needs a weight "
            f"({', '.join(map(str, expected))}{taps}), got shape {tuple(weight.shape)}"
        )
    kernel = tuple(weight.shape[len(expected) :])
    return projected(weight, source_index(in_field, out_field, groups, kernel, weight.device))


def equivariance_distance(
    model: nn.Module,
    group: Group,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    in_fields: Fields | None = None,
    example: Any = None,
) -> dict[str, float]:
    r"""Share of each layer's energy outside the equivariant subspace, :math:`\|W-\Pi W\|^2/\|W\|^2`.

    0 for an equivariant layer; :math:`1-1/|G|` is expected of random weights between regular fields.
    Biases count with their weights; normalisation layers are rows of their own.

    Args:
        model: a network or a single layer (which then needs ``fields`` and ``in_fields`` under the name
            ``"(model)"``).
        group: the group.
        layers, fields: as for :class:`~eqreg.EquivarianceRegularizer`.
        in_fields: types of inputs by layer name, to override what the earlier layers suggest.
        example: an input; with it the ties of all parameters are traced (``eqreg.check`` shows them), not guessed.

    Returns:
        Shares in [0, 1] by layer name.

    Raises:
        TypeError, ValueError: as for :class:`EquivarianceDecay`.

    The nearest equivariant weights to 0, ..., 8 are nine fours, and :math:`1-9\cdot16/204=.294`:

    >>> from eqreg import C4
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False))
    >>> net[0].weight.data = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> {name: round(share, 3) for name, share in equivariance_distance(net, C4).items()}
    {'0': 0.294}

    Taught in: notebooks/10.
    """
    plan = weight_plan(model, group, layers, fields, in_fields, example)
    with torch.no_grad():
        return {name: float(layer.asymmetric_share()) for name, layer in plan.tied.items()}


def equivariant_init_(
    model: nn.Module,
    group: Group,
    *,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    in_fields: Fields | None = None,
    example: Any = None,
) -> nn.Module:
    """Make a network equivariant at its start: project its parameters, keep the norm of each weight.

    Without the rescaling, projected random weights would be smaller by ``sqrt(|G|)`` and the signal would
    fade with the depth. Training is free to leave the symmetry; see :class:`EquivarianceDecay`.

    Args:
        model: changed in place.
        group, layers, fields, in_fields, example: as for :func:`equivariance_distance`.

    Returns:
        The model.

    Raises:
        TypeError, ValueError: as for :class:`EquivarianceDecay`.

    >>> from eqreg import C4
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False))
    >>> net[0].weight.data = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> equivariant_init_(net, C4)[0].weight.data.unique()  # nine times the root of 204 / 9
    tensor([4.7610])

    Taught in: notebooks/09, notebooks/10.
    """
    plan = weight_plan(model, group, layers, fields, in_fields, example)
    with torch.no_grad():
        for layer in plan.tied.values():
            for tensor, index in layer.tensors():
                whole = wide(tensor)
                projected = reynolds(whole, index)
                if tensor.ndim > 1 and bool(norm := projected.norm()):
                    projected *= whole.norm() / norm
                tensor.copy_(projected)
            layer.tie_statistics_()
    return model


class EquivarianceDecay(Decay):
    r"""Decoupled shrinkage towards the equivariant weights, after each optimizer step.

    .. math:: W\leftarrow W+\big(1-e^{-\lambda\,\mathrm{lr}}\big)(\Pi W-W)

    What AdamW does to the whole weight, this does to its asymmetric part alone, for weights, biases and
    the affine parameters of normalisation layers. Strength 0 changes nothing, ``math.inf`` projects.
    Running statistics of BatchNorm are measured, not trained: they stay, but for ``math.inf``. Projecting random
    weights halves the signal in every layer, which may kill a network: use :func:`equivariant_init_` before.
    What rounding takes from weights in half precision is kept here in float32, and in the decay's ``state_dict``:
    checkpoints that hold it beside the model's go on to the last bit.

    Args:
        model: any module, also wrapped by ``torch.compile`` or ``DistributedDataParallel``.
        group: the rotations, for example ``C4``. Kernels larger than 1x1 turn by multiples of 90 degrees.
        strength: :math:`\lambda\ge0`, one number or one for each layer name; 10 to 150 are worth a try.
        layers: which layers: as for :class:`~eqreg.EquivarianceRegularizer`. Linear layers must be named.
        fields: field types of outputs by name or glob, to override the plan.
        in_fields: field types of inputs by name.
        example: an input of the model, a tensor or a tuple: then the ties of all parameters are traced, not guessed.

    Attributes:
        plan: the layers with the types of their inputs and outputs, and the reason where one is left free.
        strengths: the current strength of each layer; may be changed between steps.

    Raises:
        TypeError, ValueError: for unknown layers or fields that do not fit, negative strengths, layers that
            cannot be tied, or a model without any that can; each message says what was given and expected.

    With a strength of 10 log 2, a step at the rate .1 goes half of the way to nine fours:

    >>> from eqreg import C4
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False))
    >>> net[0].weight.data = torch.arange(9.0).reshape(1, 1, 3, 3)
    >>> decay = EquivarianceDecay(net, C4, strength=10 * math.log(2))
    >>> decay.step(lr=0.1)  # after optimizer.step()
    >>> net[0].weight.data.flatten()
    tensor([2.0000, 2.5000, 3.0000, 3.5000, 4.0000, 4.5000, 5.0000, 5.5000, 6.0000])

    Reference: Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, for the decoupling.
    Taught in: notebooks/10, notebooks/11b.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        strength: float | Mapping[str, float] = 40.0,
        *,
        layers: Selector | Iterable[Selector] | None = None,
        fields: Fields | None = None,
        in_fields: Fields | None = None,
        example: Any = None,
    ) -> None:
        self.model, self.group = model, group
        self.plan = weight_plan(model, group, layers, fields, in_fields, example)
        self._tied = self.plan.tied
        super().__init__(self._tied, strength)
        if example is None:  # else the plan has warned of what breaks at the example's size
            warn_of_strides(unwrapped(model), stacklevel=3)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Shrink once; call it after ``optimizer.step()``.

        Args:
            lr: the optimizer's current learning rate, so that a schedule acts on both; at 0 nothing moves.

        Raises:
            TypeError, ValueError: for what is no rate.
        """
        if need_number(lr, "lr", 0) == 0:
            return
        alike: dict[Any, tuple[list[str], list[Tensor], Index]] = {}
        for name, layer in self._tied.items():
            strength = self.strengths[name]
            share = 1.0 if math.isinf(strength) else -math.expm1(-strength * lr)
            if share == 0:
                continue
            for i, (tensor, index) in enumerate(layer.tensors()):
                kind = id(index), tensor.shape, tensor.dtype, share
                names, tensors, _ = alike.setdefault(kind, ([], [], index))
                names.append(f"{name}/{i}")
                tensors.append(tensor)
            if share == 1:  # else the network would be equivariant in train mode alone
                layer.tie_statistics_()
        for (*_, share), (names, tensors, index) in alike.items():
            self.shrink_(names, tensors, index, share)

    def _shapes(self) -> dict[str, torch.Size]:
        return {
            f"{n}/{i}": t.shape
            for n, a in self._tied.items()
            for i, (t, _) in enumerate(a.tensors())
        }

    def __repr__(self) -> str:
        return f"EquivarianceDecay({self.group}, {len(self._tied)} layers)"
