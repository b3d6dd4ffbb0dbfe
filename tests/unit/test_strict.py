"""Group convolutions: hand-computed kernels, exactness, the plain layer, errors."""

import pytest
import torch
from torch import nn

from eqreg import C2, C4, C8, D4, DihedralGroup, equivariance_error, layer_errors, rotate
from eqreg.strict import FourierConv2d, GroupConv2d


def test_lifting_kernel_holds_turned_copies():
    layer = GroupConv2d(C4.field("1t"), C4.field("1r"), 3)
    psi = layer.blocks[0][0, 0, 0]
    for k in range(4):
        assert torch.equal(layer.expanded_weight()[k, 0], rotate(psi, k))


def test_regular_kernel_is_block_circulant_with_turns():
    weight = GroupConv2d(C4.field("2r"), C4.field("3r"), 3).expanded_weight()
    weight = weight.reshape(3, 4, 2, 4, 3, 3)
    for k in range(4):
        moved = rotate(weight.roll((k, k), (1, 3)), k)
        assert torch.equal(moved, weight)


def test_free_parameters_at_equal_width():
    # A regular layer has 1/|G| of the weights of the plain one; biases are one per field.
    layer = GroupConv2d(C4.field("4r"), C4.field("4r"), 3)
    assert sum(p.numel() for p in layer.parameters()) == 16 * 16 * 9 // 4 + 4


@pytest.mark.parametrize("group", [C2, C4, D4, DihedralGroup(2)], ids=repr)
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_exact_for_every_pair_of_types(group, kernel_size):
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    net = nn.Sequential(
        GroupConv2d(group.field("3t"), group.field("2t + 2r"), kernel_size),
        nn.ReLU(),
        GroupConv2d(group.field("2t + 2r"), group.field("3r"), kernel_size),
        nn.ReLU(),
        GroupConv2d(group.field("3r"), group.field("3t"), kernel_size),
    ).double()
    assert equivariance_error(net, x, group).max() < 1e-24
    assert max(layer_errors(net, x, group).values()) < 1e-24


def test_stride_is_exact_iff_it_divides():
    layer = GroupConv2d(C4.field("1t"), C4.field("2r"), 3, stride=2).double()
    for size, exact in ((16, False), (17, True)):
        x = torch.randn(1, 1, size, size, dtype=torch.float64)
        error = equivariance_error(layer, x, C4, field_out=C4.field("2r"))
        assert (float(error.max()) < 1e-24) is exact


def test_to_plain_is_an_ordinary_convolution():
    layer = GroupConv2d(C4.field("3t"), C4.field("1t + 2r"), 3, stride=2, padding=2)
    x = torch.randn(2, 3, 9, 9)
    conv = layer.to_plain()
    assert type(conv) is nn.Conv2d
    assert torch.equal(conv(x), layer(x))
    assert conv.weight.requires_grad and conv.weight.is_leaf


def test_even_kernels_are_exact():
    # The same padding on all sides; it is padding="same" that breaks them, see `equivariant`.
    layer = GroupConv2d(C4.field("1t"), C4.field("2r"), 4).double()
    x = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    assert layer(x).shape == (1, 8, 8, 8)
    assert equivariance_error(layer, x, C4, field_out=C4.field("2r")).max() < 1e-24


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GroupConv2d(C4.field("1t"), C2.field("1r"), 3), "fields of one group expected"),
        (
            lambda: GroupConv2d(C8.field("1t"), C8.field("1r"), 3),
            "C8 turns by 45 degrees.*FourierConv2d",
        ),
        (lambda: GroupConv2d(C4.field("1t"), C4.field("1r"), 0), "kernel_size >= 1"),
        (
            lambda: GroupConv2d(C4.field("1t"), C4.field("1r"), 3)(torch.ones(1, 2, 5, 5)),
            r"needs input \(B, 1, H, W\), got \(1, 2, 5, 5\)",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("layer", [GroupConv2d, FourierConv2d])
def test_tables_that_no_checkpoint_holds_survive_the_device_meta(layer):
    """Big models are built without memory, given some that holds anything, and then loaded."""
    fields = C4.field("1t+2r"), C4.field("2r+1t")
    made = layer(*fields, 3)
    with torch.device("meta"):
        empty = layer(*fields, 3)
    loaded = empty.to_empty(device="cpu")
    loaded.load_state_dict(made.state_dict())
    x = torch.rand(1, 9, 6, 6)
    assert torch.equal(loaded(x), made(x))
    assert torch.equal(loaded.double()(x.double()), made.double()(x.double()))


@pytest.mark.parametrize("group", [C2, C4, D4])
def test_one_gather_is_the_turned_copies_with_their_gradient(group):
    layer = GroupConv2d(group.field("1t+2r"), group.field("2t+1r"), 3).double()
    kernel = layer.expanded_weight()
    probe, blocks = torch.rand_like(kernel), list(layer.blocks)
    found = torch.autograd.grad(kernel, blocks, probe)
    kinds = [("t", "t"), ("t", "r"), ("r", "t"), ("r", "r")]
    parts = [layer._arranged(p, *kind) for p, kind in zip(blocks, kinds, strict=True)]
    parts[0] = parts[0].mean(0)
    turned = torch.cat([torch.cat(parts[:2], 1), torch.cat(parts[2:], 1)])
    assert torch.equal(kernel, turned)
    torch.testing.assert_close(found, torch.autograd.grad(turned, blocks, probe))
