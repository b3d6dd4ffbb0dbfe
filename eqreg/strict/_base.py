"""What the strict convolutions share: one filter bank, turned and shifted by the group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod, sqrt
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import given, outside_autocast
from ..symmetry.fields import FieldType, need_field
from ..symmetry.groups import Element
from ..typed import typed


class StrictConv2d(nn.Module, ABC):
    """A convolution between two fields that is equivariant whatever its weights.

    Subclasses say what a base filter is (``filter_shape``) and how it is turned (:meth:`turned`); how
    the turned copies make a kernel is the same for all, see :class:`GroupConv2d`.

    Args:
        in_field: type of the input.
        out_field: type of the output, same group.
        filter_shape: shape of the parameters of one base filter.
        kernel_size: K, side of the square kernel in pixels.
        stride: step of the kernel in pixels.
        padding: zeros on every side; ``(K - 1) // 2`` if None.
        bias: add a learned bias.

    Raises:
        ValueError: if the groups differ or a size is out of range.
    """

    @typed
    def __init__(
        self,
        in_field: FieldType,
        out_field: FieldType,
        filter_shape: tuple[int, ...],
        kernel_size: int,
        stride: int,
        padding: int | None,
        bias: bool,
    ) -> None:
        check_arguments(in_field, out_field, kernel_size, stride, padding)
        super().__init__()
        group = in_field.group
        self.in_field, self.out_field = in_field, out_field
        self.kernel_size, self.stride = kernel_size, stride
        self.padding = (kernel_size - 1) // 2 if padding is None else padding
        self.filter_shape = filter_shape
        self.blocks = nn.ParameterList()
        for n_out, kind_out in out_field.terms:
            for n_in, kind_in in in_field.terms:
                depth = group.order if kind_out == kind_in == "r" else 1
                self.blocks.append(nn.Parameter(torch.empty(n_out, n_in, depth, *filter_shape)))
        self.bias = nn.Parameter(torch.empty(sum(n for n, _ in out_field.terms))) if bias else None
        self.reset_parameters()
        for name, table in self._tables().items():
            self.register_buffer(name, table, persistent=False)

    @abstractmethod
    def turned(self, psi: Tensor, g: Element) -> Tensor:
        """Base filters (..., *filter_shape), turned by ``g`` and sampled: (..., K, K)."""

    def _tables(self) -> dict[str, Tensor]:
        """Constants that the arguments determine: buffers that are not saved."""
        return {}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        missing = [name for name, t in self.named_buffers(recurse=False) if t.is_meta]
        super()._apply(fn, recurse)
        # Built on the device "meta" and given memory by `to_empty`: no checkpoint fills these.
        made = self._tables() if missing and not self.get_buffer(missing[0]).is_meta else {}
        for name, table in made.items():
            self.get_buffer(name).copy_(table)
        return self

    def reset_parameters(self) -> None:
        """Draw weights and biases as ``nn.Conv2d`` does, with the fan-in of the expanded kernel."""
        bound = 1 / sqrt(self.in_field.channels * prod(self.filter_shape))
        for p in self.parameters():
            nn.init.uniform_(p, -bound, bound)

    def expanded_weight(self) -> Tensor:
        """The kernel of the ordinary convolution that this layer is: (C_out, C_in, K, K)."""
        blocks = iter(range(len(self.blocks)))
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
        check_input(x, self.in_field)
        return F.conv2d(x, self.expanded_weight(), self.expanded_bias(), self.stride, self.padding)

    def to_plain(self) -> nn.Conv2d:
        """The same map as an ordinary ``nn.Conv2d``, at the cost of one."""
        first = self.blocks[0]
        with outside_autocast(first):  # its products would be in half precision
            weight, bias = self.expanded_weight(), self.expanded_bias()
        return plain_conv(weight, bias, self.stride, self.padding).train(self.training)

    def extra_repr(self) -> str:
        """What ``print(layer)`` shows."""
        return (
            f"{self.in_field!r}, {self.out_field!r}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )

    def _expand(self, i: int, kind_out: str, kind_in: str) -> Tensor:
        copies = self._copies(i, kind_out, kind_in)
        return copies.mean(0) if kind_out == kind_in == "t" else copies

    def _copies(self, i: int, kind_out: str, kind_in: str) -> Tensor:
        """What block ``i`` is in the kernel; between trivial fields still one for each element."""
        return self._arranged(self.blocks[i], kind_out, kind_in)

    def _arranged(self, psi: Tensor, kind_out: str, kind_in: str) -> Tensor:
        group = self.in_field.group
        if kind_out == kind_in == "r":
            copies = [
                # psi[h'^-1 h] for all h: the filter bank shifts along its group axis as it turns.
                self.turned(psi[:, :, list(group.permutation(group.inverse(g)))], g)
                for g in group.elements
            ]
            return torch.stack(copies, 1).flatten(0, 1).flatten(1, 2)
        copies = [self.turned(psi[:, :, 0], g) for g in group.elements]
        if kind_out == "r":
            return torch.stack(copies, 1).flatten(0, 1)
        if kind_in == "r":
            return torch.stack(copies, 2).flatten(1, 2)
        return torch.stack(copies)


def check_arguments(
    in_field: FieldType, out_field: FieldType, kernel_size: int, stride: int, padding: int | None
) -> None:
    """Reject fields of two groups and sizes out of range."""
    need_field(in_field)
    need_field(out_field)
    for size in (kernel_size, stride, 0 if padding is None else padding):
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(
                f"kernel_size, stride and padding must be whole numbers, got {given(size)}"
            )
    if out_field.group != in_field.group:
        raise ValueError(f"fields of one group expected, got {in_field!r} and {out_field!r}")
    if kernel_size < 1 or stride < 1 or (padding is not None and padding < 0):
        raise ValueError(
            "expected kernel_size >= 1, stride >= 1 and padding >= 0, got "
            f"{kernel_size}, {stride} and {padding}"
        )


def check_input(x: Tensor, field: FieldType) -> None:
    """Reject what is no batch of features of type ``field``."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{field!r} needs a tensor (B, {field.channels}, H, W), got {given(x)}")
    if x.ndim != 4 or x.shape[1] != field.channels:
        raise ValueError(f"{field!r} needs input (B, {field.channels}, H, W), got {tuple(x.shape)}")


@typed
def plain_conv(weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> nn.Conv2d:
    """An ``nn.Conv2d`` with a copy of these weights, on their device and of their type."""
    c_out, c_in, kernel_size, _ = weight.shape
    # Skip torch's random initialisation: it would cost time and move the user's random state.
    conv = nn.utils.skip_init(
        nn.Conv2d,
        c_in,
        c_out,
        kernel_size,
        stride,
        padding,
        bias=bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    with torch.no_grad():
        conv.weight.copy_(weight)
        if bias is not None:
            conv.bias.copy_(bias)
    return conv
