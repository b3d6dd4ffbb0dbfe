"""Fourier disc filters: functions of the plane, which can be turned by any angle."""

from __future__ import annotations

from math import cos, hypot, pi, radians, sin

import torch
from torch import Tensor

from ..symmetry.fields import FieldType
from ..symmetry.groups import Element, Group
from ..typed import typed
from ._base import StrictConv2d


class FourierConv2d(StrictConv2d):
    r"""Equivariant convolution for any C_n and D_n: a base filter is a windowed Fourier series.

    .. math:: \varphi(p) = w(|p|)\sum_{|k|\le k_\max}
        a_k\cos\frac{2\pi\,k\cdot p}{K} + b_k\sin\frac{2\pi\,k\cdot p}{K}

    and its copy for ``g`` is :math:`\varphi(g^{-1}p)`, sampled at the pixels. Equivariance is exact for
    the multiples of 90 degrees and the mirrorings in the group. For other angles it holds up to what
    lies beyond the grid's frequencies, in the filter and in the image: small for smooth images.

    The idea is that of F-Conv (Xie et al.), the basis is not. F-Conv takes all frequencies of a square
    behind a flat window, so that every upright K x K array can be represented, and weighs principal
    components of the turned copies. Here frequencies fill a disc and the window falls to zero smoothly:
    copies turn far better, and upright filters are confined to 5 of 9, 13 of 25 or 29 of 49
    dimensions (chapter 6 measures both). ``max_frequency`` moves along this trade.

    Args:
        in_field: type of the input, of any C_n or D_n.
        out_field: type of the output, same group.
        kernel_size: K, odd. 5 or more for angles off the grid: on 3 x 3 pixels hardly anything can be
            turned.
        max_frequency: :math:`k_\max`, in periods per K pixels; ``(K - 1) / 2`` if not given.
        stride: exact only if it divides H + 2P - K, and only for the exact elements.
        padding: zeros on every side; ``(K - 1) // 2`` if not given.
        bias: add a learned bias.

    Shape:
        (B, in_field.channels, H, W) to (B, out_field.channels, H', W'), H' as for ``nn.Conv2d``.

    Raises:
        ValueError: if the groups differ, the kernel size is even, or the frequency is out of range.

    >>> from eqreg import C8
    >>> FourierConv2d(C8.field("1t"), C8.field("2r"), 5).to_plain()
    Conv2d(1, 16, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))

    Reference: Xie, Zhao, Xu & Meng, Fourier Series Expansion Based Filter Parametrization for
    Equivariant Convolutions, IEEE TPAMI 45, 2022.
    Taught in: notebooks/06.
    """

    basis: Tensor

    @typed
    def __init__(
        self,
        in_field: FieldType,
        out_field: FieldType,
        kernel_size: int,
        *,
        max_frequency: float | None = None,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
    ) -> None:
        group = in_field.group
        self.max_frequency = max_frequency
        n = len(fourier_basis(kernel_size, 0, group, max_frequency))
        super().__init__(in_field, out_field, (n,), kernel_size, stride, padding, bias)

    def _tables(self) -> dict[str, Tensor]:
        group = self.in_field.group
        basis = torch.stack(
            [fourier_basis(self.kernel_size, g, group, self.max_frequency) for g in group.elements]
        )
        # Unit energy on average over the copies: then torch's initialisation means what it says.
        basis /= basis.square().sum((-2, -1), keepdim=True).mean(0, keepdim=True).sqrt()
        return {"basis": basis.to(torch.get_default_dtype())}

    def turned(self, psi: Tensor, g: Element) -> Tensor:
        """Coefficients (..., number of basis functions) to filters (..., K, K), turned by ``g``."""
        return torch.einsum("...n,nij->...ij", psi, self.basis[self.in_field.group.index(g)])


@typed
def fourier_basis(
    kernel_size: int, g: Element | int, group: Group, max_frequency: float | None = None
) -> Tensor:
    r"""Windowed cosines and sines, turned by ``g`` and sampled on a K x K grid.

    The window is :math:`\cos^2\frac{\pi r}{K+1}` for :math:`r\le\frac{K+1}2` and zero beyond.

    Args:
        kernel_size: K, odd.
        g: element of ``group``.
        group: the group that ``g`` is taken from.
        max_frequency: largest ``|k|`` in periods per K pixels; ``(K - 1) / 2`` if not given.

    Returns:
        Float64 tensor (n, K, K): the constant, then cosine and sine of each frequency in a half plane
        (the other half repeats them).

    Raises:
        ValueError: if the kernel size is even, or the frequency is out of range.

    >>> from eqreg import C8
    >>> basis = fourier_basis(5, 2, C8)  # turned by 90 degrees
    >>> basis.shape, torch.equal(basis, fourier_basis(5, 0, C8).rot90(1, (-2, -1)))
    (torch.Size([13, 5, 5]), True)
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"Fourier filters need an odd kernel_size (a pixel in the centre), got {kernel_size}"
        )
    half = (kernel_size - 1) // 2
    if max_frequency is None:
        max_frequency = half
    if not 0 <= max_frequency <= half * 2**0.5:
        raise ValueError(
            f"max_frequency must lie between 0 and {half * 2**0.5:.3g} periods per {kernel_size} "
            f"pixels, the corner of the grid's frequencies, got {max_frequency}"
        )
    g = group.element(g)
    if g.flip:
        # r^k m = m r^-k: turn the other way, then mirror. This and the quarter turns below are moves
        # of pixels, so copies that the grid can compare agree to the last bit.
        return fourier_basis(kernel_size, -g.turns, group, max_frequency).flip(-1)
    quarters, degrees = divmod(group.angle(g), 90.0)
    c = torch.arange(-half, half + 1, dtype=torch.float64)
    up, right = torch.meshgrid(-c, c, indexing="ij")  # rows count downwards
    cosine, sine = cos(radians(degrees)), sin(radians(degrees))
    right, up = cosine * right + sine * up, cosine * up - sine * right  # g^-1 p
    functions = [torch.ones_like(up)]
    for k in range(-half, half + 1):
        for m in range(-half, half + 1):
            if (k, m) > (0, 0) and hypot(k, m) <= max_frequency:
                phase = 2 * pi / kernel_size * (k * right + m * up)
                functions += [phase.cos(), phase.sin()]
    distance = torch.hypot(right, up) / (half + 1)
    window = (pi / 2 * distance.clamp(max=1)).cos().square()
    return torch.rot90(torch.stack(functions) * window, int(quarters), (-2, -1))
