"""Actions on tensors: conventions by hand-computed values, interpolation, masks, errors."""

import numpy as np
import pytest
import torch
from skimage.transform import rotate as skimage_rotate

from eqreg import C2, C4, C8, D4, CyclicGroup, Element, act, permute_channels, rotate, valid_mask

IMAGE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def test_quarter_turns_are_rot90_counter_clockwise():
    assert rotate(IMAGE, 1).tolist() == [[2, 4], [1, 3]]
    x = torch.randn(2, 3, 4, 6)
    for k in range(-2, 6):
        assert torch.equal(rotate(x, k), torch.rot90(x, k, (-2, -1)))
    assert torch.equal(rotate(x, 1, C2), torch.rot90(x, 2, (-2, -1)))
    assert torch.equal(rotate(x, 2, C8), torch.rot90(x, 1, (-2, -1)))


def test_flip_is_left_right_and_comes_first():
    assert rotate(IMAGE, Element(0, 1), D4).tolist() == [[2, 1], [4, 3]]
    assert rotate(IMAGE, Element(1, 1), D4).tolist() == [[1, 3], [2, 4]]


def test_exact_turns_keep_any_dtype():
    for dtype in (torch.uint8, torch.bool, torch.int64, torch.complex64):
        assert rotate(IMAGE.to(dtype), 3).dtype == dtype


def test_interpolated_rotation_agrees_with_scikit_image():
    x = torch.randn(17, 17, dtype=torch.float64)
    for k in (1, 3, 7):
        ours = rotate(x, k, C8)
        theirs = skimage_rotate(x.numpy(), 45 * k, order=1, mode="constant", preserve_range=True)
        mask = valid_mask((17, 17), k, C8).numpy()
        np.testing.assert_allclose(ours.numpy()[mask], theirs[mask], atol=1e-12)


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 12)])
def test_interpolation_is_exact_for_linear_images_inside_the_mask(size):
    h, w = size
    y, x = torch.meshgrid(
        torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij"
    )
    y, x = y.double(), x.double()
    turned, mask = rotate(x, 1, C8), valid_mask(size, 1, C8)
    # Counter-clockwise on screen by 45 degrees: the value at p is x of the point turned back.
    expected = (x - y) * 2**-0.5
    assert mask.any()
    assert torch.allclose(turned[mask], expected[mask], atol=1e-12)


def test_mask_margin_and_exact_angles():
    assert valid_mask((6, 6), 1).all()
    assert valid_mask((6, 6), 1, margin=1).sum() == 16
    assert 0 < valid_mask((20, 20), 1, C8).sum() < 400


def test_regular_fields_shift_and_trivial_ones_stay():
    z = torch.arange(9.0).reshape(1, 9, 1, 1)
    moved = permute_channels(z, 1, C4.field("1t + 2r")).flatten().tolist()
    assert moved == [0, 4, 1, 2, 3, 8, 5, 6, 7]


@pytest.mark.parametrize("group", [C2, C4, C8, D4, CyclicGroup(3)], ids=repr)
def test_permutation_of_channels_is_that_of_the_field(group):
    field = group.field("2t + 2r + 1t")
    z = torch.randn(2, field.channels, 3, 3)
    for g in group.elements:
        moved = permute_channels(z, g, field)
        assert torch.equal(moved[:, list(field.permutation(g))], z)


def test_act_turns_and_permutes():
    z = torch.randn(1, 4, 5, 5)
    assert torch.equal(act(z, 1, C4.field("1r")), torch.rot90(z, 1, (-2, -1)).roll(1, 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rotate([[1, 2]], 1), TypeError, "expected images as a tensor .*, got list"),
        (
            lambda: rotate(torch.ones(3), 1),
            ValueError,
            r"expected images \(..., H, W\), got shape \(3,\)",
        ),
        (
            lambda: rotate(torch.ones(4, 4, dtype=torch.uint8), 1, C8),
            TypeError,
            "rotating by 45 degrees interpolates and needs floating point images, got torch.uint8",
        ),
        (
            lambda: permute_channels(torch.ones(1, 6, 2, 2), 1, C4.field("1r")),
            ValueError,
            r"needs features \(..., 4, H, W\), got shape \(1, 6, 2, 2\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
