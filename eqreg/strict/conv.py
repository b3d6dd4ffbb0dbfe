"""Group convolution from scratch: layers whose equivariance is built into the weights."""

from __future__ import annotations

from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..actions import quarter_turns, rotate
from ..fields import FieldType


class GroupConv2d(nn.Module):
    r"""Convolution between two fields that commutes with the group exactly, whatever its weights.

    With base filters :math:`\psi`, output element :math:`h'` and input element :math:`h`:

    * trivial to regular (lifting): :math:`W_{h'} = \pi_{h'}\psi`
    * regular to regular: :math:`W_{h',h} = \pi_{h'}\,\psi_{h'^{-1}h}`
    * regular to trivial (projection): :math:`W_{h} = \pi_h\psi`
    * trivial to trivial: the mean of :math:`\pi_h\psi` over the group.

    Biases are shared over each field.

    Args:
        in_field: type of the input, group exact on the grid (C1, C2, C4, D1, D2, D4).
        out_field: type of the output, same group.
        kernel_size: K, side of the square kernel in pixels.
        stride: exact only if it divides H + 2P - K; see chapter 4.
        padding: zeros on every side; ``(K - 1) // 2`` if not given.
        bias: add a learned bias.

    Shape:
        (B, in_field.channels, H, W) to (B, out_field.channels, H', W'), H' as for ``nn.Conv2d``.

    Raises:
        ValueError: if the groups differ, or hold angles that need interpolation.

    Reference: Cohen & Welling, Group Equivariant Convolutional Networks, ICML 2016.
    Taught in: notebooks/03.
    """

    def __init__(
        self,
        in_field: FieldType,
        out_field: FieldType,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        group = in_field.group
        if out_field.group != group:
            raise ValueError(f"fields of one group expected, got {in_field!r} and {out_field!r}")
        inexact = [group.angle(g) for g in group.elements if quarter_turns(g, group) is None]
        if inexact:
            raise ValueError(
                f"{group} turns by {inexact[0]:g} degrees, which the pixel grid cannot do exactly; "
                "expected a group of multiples of 90 degrees (C1, C2, C4, D1, D2, D4)"
            )
        if kernel_size < 1 or stride < 1 or (padding is not None and padding < 0):
            raise ValueError(
                "expected kernel_size >= 1, stride >= 1 and padding >= 0, got "
                f"{kernel_size}, {stride} and {padding}"
            )
        self.in_field, self.out_field = in_field, out_field
        self.kernel_size, self.stride = kernel_size, stride
        self.padding = (kernel_size - 1) // 2 if padding is None else padding
        self.blocks = nn.ParameterList()
        for n_out, kind_out in out_field.terms:
            for n_in, kind_in in in_field.terms:
                depth = group.order if kind_out == kind_in == "r" else 1
                self.blocks.append(
                    nn.Parameter(torch.empty(n_out, n_in, depth, kernel_size, kernel_size))
                )
        self.bias = nn.Parameter(torch.empty(sum(n for n, _ in out_field.terms))) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights and biases as ``nn.Conv2d`` does, with the fan-in of the expanded kernel."""
        bound = 1 / sqrt(self.in_field.channels * self.kernel_size**2)
        for p in self.parameters():
            nn.init.uniform_(p, -bound, bound)

    def expanded_weight(self) -> Tensor:
        """The kernel of the ordinary convolution that this layer is: (C_out, C_in, K, K)."""
        blocks = iter(self.blocks)
        rows = []
        for _, kind_out in self.out_field.terms:
            row = [self._expand(next(blocks), kind_out, kind) for _, kind in self.in_field.terms]
            rows.append(torch.cat(row, 1))
        return torch.cat(rows)

    def expanded_bias(self) -> Tensor | None:
        """The bias of every output channel: (C_out,), or None."""
        if self.bias is None:
            return None
        order = self.out_field.group.order
        parts = self.bias.split([n for n, _ in self.out_field.terms])
        return torch.cat(
            [
                part.repeat_interleave(order) if kind == "r" else part
                for part, (_, kind) in zip(parts, self.out_field.terms, strict=True)
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the expanded kernel."""
        if x.ndim != 4 or x.shape[1] != self.in_field.channels:
            raise ValueError(
                f"{self.in_field!r} needs input (B, {self.in_field.channels}, H, W), got {tuple(x.shape)}"
            )
        return F.conv2d(x, self.expanded_weight(), self.expanded_bias(), self.stride, self.padding)

    def export(self) -> nn.Conv2d:
        """The same map as an ordinary ``nn.Conv2d``, at the cost of one."""
        c_in, c_out = self.in_field.channels, self.out_field.channels
        conv = nn.Conv2d(
            c_in, c_out, self.kernel_size, self.stride, self.padding, bias=self.bias is not None
        )
        weight, bias = self.expanded_weight().detach(), self.expanded_bias()
        conv = conv.to(weight)
        with torch.no_grad():
            conv.weight.copy_(weight)
            if bias is not None and conv.bias is not None:
                conv.bias.copy_(bias)
        return conv

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return (
            f"{self.in_field!r}, {self.out_field!r}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )

    def _expand(self, psi: Tensor, kind_out: str, kind_in: str) -> Tensor:
        group = self.in_field.group
        if kind_out == kind_in == "r":
            turned = [
                # psi[h'^-1 h] for all h: the filter bank shifts along its group axis as it turns.
                rotate(psi[:, :, list(group.permutation(group.inverse(g)))], g, group)
                for g in group.elements
            ]
            return torch.stack(turned, 1).flatten(0, 1).flatten(1, 2)
        turned = [rotate(psi[:, :, 0], g, group) for g in group.elements]
        if kind_out == "r":
            return torch.stack(turned, 1).flatten(0, 1)
        if kind_in == "r":
            return torch.stack(turned, 2).flatten(1, 2)
        return torch.stack(turned).mean(0)
