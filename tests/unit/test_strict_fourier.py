"""Fourier filters: the basis, exactness where the grid allows it, accuracy elsewhere, errors."""

import math

import pytest
import torch
from torch import nn

from eqreg import (
    C2,
    C4,
    C8,
    D4,
    CyclicGroup,
    DihedralGroup,
    act,
    equivariance_error,
    layer_errors,
    rotate,
)
from eqreg.strict import FourierConv2d, GroupConv2d, fourier_basis


@pytest.mark.parametrize(("kernel_size", "functions"), [(1, 1), (3, 5), (5, 13), (7, 29)])
def test_basis_counts_the_frequencies_in_a_disc(kernel_size, functions):
    basis = fourier_basis(kernel_size, 0, C8)
    assert basis.shape == (functions, kernel_size, kernel_size)
    assert torch.linalg.matrix_rank(basis.flatten(1)) == functions


def test_all_frequencies_reach_every_filter_that_the_window_lets_through():
    basis = fourier_basis(5, 0, C4, max_frequency=2 * math.sqrt(2)).flatten(1)
    assert basis.shape == (25, 25) and torch.linalg.matrix_rank(basis) == 25


def test_basis_by_hand():
    # First frequency of the half plane: k = (0, 1), one period over the height of 3 pixels.
    basis = fourier_basis(3, 0, C8)
    edge = math.cos(math.pi / 4) ** 2  # window at r = 1 of a radius of 2
    corner = math.cos(math.pi / 4 * math.sqrt(2)) ** 2
    up = torch.tensor([[1.0], [0.0], [-1.0]], dtype=torch.float64)
    window = torch.tensor(
        [[corner, edge, corner], [edge, 1, edge], [corner, edge, corner]]
    ).double()
    assert torch.allclose(basis[0], window, atol=1e-7)
    assert torch.allclose(basis[1], window * torch.cos(2 * math.pi / 3 * up), atol=1e-7)
    assert torch.allclose(basis[2], window * torch.sin(2 * math.pi / 3 * up), atol=1e-7)


@pytest.mark.parametrize("group", [CyclicGroup(12), C8, DihedralGroup(8)], ids=repr)
def test_filters_turn_by_quarters_exactly_and_by_any_angle_as_functions(group):
    for g in group.elements:
        basis = fourier_basis(5, g, group)
        quarter = group.compose(group.n // 4, g)
        assert torch.equal(fourier_basis(5, quarter, group), torch.rot90(basis, 1, (1, 2)))
        # Whatever the angle, the centre stays, and the constant function keeps its energy.
        assert torch.allclose(basis[:, 2, 2], fourier_basis(5, 0, group)[:, 2, 2])
    if group.has_flips:
        for g in group.elements:
            mirrored = group.compose((0, 1), g)
            assert torch.equal(
                fourier_basis(5, mirrored, group), fourier_basis(5, g, group).flip(-1)
            )


@pytest.mark.parametrize("group", [C2, C4, C8, D4, DihedralGroup(8)], ids=repr)
def test_exact_for_the_elements_that_the_grid_has(group):
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    field = group.field("1t + 2r")
    net = nn.Sequential(
        FourierConv2d(group.field("3t"), field, 5), nn.ReLU(), FourierConv2d(field, field, 3)
    ).double()
    exact = [g for g in group.elements[1:] if group.angle(g) % 90 == 0]
    assert equivariance_error(net, x, group, field_out=field, elements=exact).max() < 1e-24


def smooth(size, seed):
    """Gaussian bumps 4 pixels wide, and the same picture turned by 45 degrees: no interpolation."""
    generator = torch.Generator().manual_seed(seed)
    i, j, a = torch.rand(3, 12, 1, 1, generator=generator, dtype=torch.float64) - 0.5
    c = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    up, right = torch.meshgrid(-c, c, indexing="ij")
    s = math.sqrt(0.5)

    def picture(right, up):
        r2 = (right - 0.6 * size * i) ** 2 + (up - 0.6 * size * j) ** 2
        return (a * torch.exp(-r2 / 32)).sum(0)[None, None]

    return picture(right, up), picture(s * (right + up), s * (up - right))


def error_at_45(layer, seed):
    """Relative error of the law for one turn of C8, inside a disc, on features without bias."""
    x, turned = smooth(65, seed)
    c = torch.arange(65) - 32
    inside = c**2 + c[:, None] ** 2 < 24**2
    with torch.no_grad():
        z, expected = layer(turned), act(layer(x), 1, layer.out_field)
    return float((z - expected)[..., inside].norm() / expected[..., inside].norm())


def test_small_at_45_degrees_on_smooth_images_and_smaller_than_interpolated_filters():
    class Interpolated(FourierConv2d):
        """The same copies made the naive way: turn the array of pixels bilinearly."""

        def turned(self, psi, g):
            upright = super().turned(psi, self.in_field.group.identity)
            return rotate(upright, g, self.in_field.group)

    fields = C8.field("1t"), C8.field("4r")
    for seed in range(3):
        torch.manual_seed(seed)
        fourier = FourierConv2d(*fields, 7, bias=False).double()
        naive = Interpolated(*fields, 7, bias=False).double()
        naive.load_state_dict(fourier.state_dict())
        small, large = error_at_45(fourier, seed), error_at_45(naive, seed)
        # What is left is mostly the bilinear rotation of the features that we compare with.
        assert small < 0.04 and large > 3 * small


def test_checker_fails_for_free_weights():
    x = torch.randn(1, 1, 15, 15, dtype=torch.float64)
    layer = FourierConv2d(C4.field("1t"), C4.field("2r"), 3).double()
    plain = layer.to_plain()
    nn.init.normal_(plain.weight)
    assert max(layer_errors(layer, x, C4).values()) < 1e-24
    assert equivariance_error(plain, x, C4, field_out=C4.field("2r")).min() > 0.5


def test_initialisation_is_that_of_conv2d():
    torch.manual_seed(0)
    layer = FourierConv2d(C8.field("4r"), C8.field("32r"), 5)
    energy = layer.expanded_weight().detach().square().sum((1, 2, 3)).mean()
    assert abs(float(energy) - 1 / 3) < 0.01  # variance 1 / (3 fan-in)


def test_state_holds_the_coefficients_only_and_the_basis_follows_the_type():
    layer = FourierConv2d(C8.field("1t"), C8.field("1r"), 5)
    assert set(layer.state_dict()) == {"bias", "blocks.0"}
    assert layer.double().expanded_weight().dtype == torch.float64


def test_to_plain():
    layer = FourierConv2d(D4.field("3t"), D4.field("1t + 2r"), 5, stride=2, padding=1)
    x = torch.randn(2, 3, 12, 12)
    assert type(layer.to_plain()) is nn.Conv2d
    assert (layer.to_plain()(x) - layer(x)).abs().max() <= 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: c(C8.field("1t"), C8.field("1r"), 4), r"odd kernel_size .*, got 4"),
        (lambda c: c(C8.field("1t"), C4.field("1r"), 5), "fields of one group expected"),
        (lambda c: c(C8.field("1t"), C8.field("1r"), 5, max_frequency=3), "between 0 and 2.83"),
        (lambda c: c(C8.field("1t"), C8.field("1r"), 5, stride=0), "stride >= 1"),
        (lambda c: c(C8.field("2t"), C8.field("1r"), 5)(torch.ones(1, 1, 9, 9)), "got .1, 1, 9, 9"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(FourierConv2d)


def test_group_convolution_and_fourier_share_their_weights_layout():
    shapes = [
        [tuple(p.shape[:3]) for p in kind(C4.field("3t + 1r"), C4.field("2r"), 3).blocks]
        for kind in (GroupConv2d, FourierConv2d)
    ]
    assert shapes[0] == shapes[1]
