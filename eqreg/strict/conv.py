"""Group convolution from scratch: filters on the pixel grid, turned by moving pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..symmetry.actions import quarter_turns, rotate
from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group
from ..typed import typed
from ._base import StrictConv2d


class GroupConv2d(StrictConv2d):
    r"""Convolution between two fields that commutes with the group exactly, whatever its weights.

    A base filter is any array of K x K pixels, and its copies are that array turned. So there is one
    layer for each group that turns pixels into pixels; :class:`FourierConv2d` is for the others. (It
    could be made to interpolate its filters here. But then a layer whose name promises exactness
    would keep the promise for some groups only.)

    With base filters :math:`\psi`, output element :math:`h'` and input element :math:`h`:

    * trivial to regular (lifting): :math:`W_{h'} = \pi_{h'}\psi`
    * regular to regular: :math:`W_{h',h} = \pi_{h'}\,\psi_{h'^{-1}h}`
    * regular to trivial (projection): :math:`W_{h} = \pi_h\psi`
    * trivial to trivial: the mean of :math:`\pi_h\psi` over the group.

    Biases are shared over each field.

    Args:
        in_field: type of the input, group exact on the grid (C1, C2, C4, D1, D2, D4).
        out_field: type of the output, same group.
        kernel_size: K, side of the square kernel in pixels; even ones are exact too, as the padding
            is the same on all sides.
        stride: exact only if it divides H + 2P - K; see chapter 4.
        padding: zeros on every side; ``(K - 1) // 2`` if not given.
        bias: add a learned bias.

    Shape:
        (B, in_field.channels, H, W) to (B, out_field.channels, H', W'), H' as for ``nn.Conv2d``.

    Raises:
        ValueError: if the groups differ, or hold angles that need interpolation.

    >>> from eqreg import C4
    >>> GroupConv2d(C4.field("1t"), C4.field("2r"), 3).to_plain()
    Conv2d(1, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))

    Reference: Cohen & Welling, Group Equivariant Convolutional Networks, ICML 2016.
    Taught in: notebooks/03.
    """

    @typed
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
        group = in_field.group
        if not exact_on_grid(group):
            raise ValueError(
                f"{group} turns by {group.angle(1):g} degrees, which the pixel grid cannot do exactly; "
                "expected a group of multiples of 90 degrees (C1, C2, C4, D1, D2, D4), or "
                "FourierConv2d, whose filters can be turned by any angle"
            )
        super().__init__(
            in_field, out_field, (kernel_size, kernel_size), kernel_size, stride, padding, bias
        )

    def turned(self, psi: Tensor, g: Element) -> Tensor:
        """Base filters (..., K, K), turned by ``g``."""
        return rotate(psi, g, self.in_field.group)

    def _tables(self) -> dict[str, Tensor]:
        """Where the copies of a pair of fields read in its base filters, for all pairs alike: entries only move."""
        kinds = [(o, i) for _, o in self.out_field.terms for _, i in self.in_field.terms]
        made = {}
        for psi, kind in zip(self.blocks, kinds, strict=True):
            place = torch.arange(psi[0, 0].numel(), dtype=torch.int32)
            made["source_" + "".join(kind)] = self._arranged(
                place.view(1, 1, *psi.shape[2:]), *kind
            )
        return made

    def _copies(self, i: int, kind_out: str, kind_in: str) -> Tensor:
        psi, table = self.blocks[i], self.get_buffer(f"source_{kind_out}{kind_in}")
        n_out, n_in = psi.shape[:2]
        order = self.in_field.group.order
        copies = psi.flatten(2).index_select(2, table.flatten())
        if kind_out == kind_in == "t":
            return copies.view(n_out, n_in, *table.shape[:1], *table.shape[-2:]).movedim(2, 0)
        rows, columns = (order if kind == "r" else 1 for kind in (kind_out, kind_in))
        copies = copies.view(n_out, n_in, rows, columns, *table.shape[-2:]).transpose(1, 2)
        return copies.reshape(n_out * rows, n_in * columns, *table.shape[-2:])


@typed
def exact_on_grid(group: Group) -> bool:
    """True if every element moves pixels to pixels."""
    return all(quarter_turns(g, group) is not None for g in group.elements)
