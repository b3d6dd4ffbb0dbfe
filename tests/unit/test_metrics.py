"""Metrics: hand-computed values, scikit-image as oracle, errors."""

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from eqreg import (
    C2,
    C4,
    C8,
    equivariance_error,
    layer_errors,
    luma,
    psnr,
    rotate,
    ssim,
    valid_mask,
)

GENERATOR = torch.Generator().manual_seed(0)
A = torch.rand(3, 3, 32, 40, generator=GENERATOR, dtype=torch.float64)
B = (A + 0.1 * torch.randn(A.shape, generator=GENERATOR, dtype=torch.float64)).clamp(0, 1)


def test_equivariance_error_by_hand():
    # f(x) = x times a mask that keeps the left half; turned by 180 degrees nothing overlaps.
    x = torch.ones(2, 1, 4, 4)
    left = torch.zeros(4, 4)
    left[:, :2] = 1
    assert equivariance_error(lambda x: x * left, x, C2).tolist() == [2.0, 2.0]
    # Turned by 90 or 270 degrees half of it overlaps: (2 + 1 + 1) / 3.
    assert equivariance_error(lambda x: x * left, x, C4).tolist() == pytest.approx([4 / 3] * 2)
    assert equivariance_error(lambda x: x * left, x, C4, elements=[1]).tolist() == [1.0, 1.0]


def test_equivariance_error_of_invariant_vectors():
    x = torch.randn(2, 3, 8, 8)
    assert equivariance_error(lambda x: x.mean((2, 3)), x, C4).max() < 1e-10
    assert equivariance_error(lambda x: x[:, :, 0, 0], x, C4).min() > 0


def test_margin_leaves_the_border_out():
    x = torch.rand(1, 1, 33, 33, dtype=torch.float64)
    blur = nn.AvgPool2d(5, 1, 2)
    errors = [equivariance_error(blur, x, C8, elements=[1], margin=m).item() for m in (0, 4)]
    assert errors[1] < 0.5 * errors[0]


def test_zero_output_counts_as_equivariant():
    assert equivariance_error(lambda x: 0 * x, torch.rand(1, 1, 4, 4), C4).item() == 0


def test_centred_layer_errors_are_larger():
    conv = nn.Conv2d(1, 4, 3, padding=1)
    nn.init.constant_(conv.bias, 3.0)
    x = torch.rand(2, 1, 8, 8)
    plain, centred = (layer_errors(conv, x, C4, center=c)["(model)"] for c in (False, True))
    assert centred > 5 * plain


def test_luma_is_that_of_rgb2ycbcr():
    expected = rgb2ycbcr(A[0].permute(1, 2, 0).numpy())[..., 0] / 255
    np.testing.assert_allclose(luma(A)[0, 0].numpy(), expected, atol=1e-6)
    black, white = luma(torch.zeros(3, 1, 1)).item(), luma(torch.ones(3, 1, 1)).item()
    assert (black * 255, white * 255) == pytest.approx((16, 235), abs=1e-3)


@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_psnr_and_ssim_agree_with_scikit_image(channel):
    ours = psnr(B, A, channel=channel), ssim(B, A, channel=channel)
    images = [luma(t) if channel == "y" else t for t in (B, A)]
    for i in range(3):
        b, a = (t[i].permute(1, 2, 0).numpy() for t in images)
        assert ours[0][i].item() == pytest.approx(
            peak_signal_noise_ratio(a, b, data_range=1), abs=1e-6
        )
        reference = structural_similarity(
            a,
            b,
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            channel_axis=2,
        )
        assert ours[1][i].item() == pytest.approx(reference, abs=1e-6)


def test_psnr_by_hand():
    x = torch.zeros(1, 1, 11, 11)
    assert psnr(x + 0.1, x).item() == pytest.approx(20.0)
    assert psnr(x + 0.1, x, data_range=10.0).item() == pytest.approx(40.0)
    assert psnr(x, x).item() == float("inf")
    assert ssim(x, x).item() == pytest.approx(1.0)


@pytest.mark.parametrize("score", [psnr, ssim])
def test_images_and_data_range_are_of_one_scale(score):
    """8-bit numbers in a range of 1 would score 48 dB too low, images in [-1, 1] 6 dB."""
    for x, spans in ((255 * A, "25[45]"), (2 * A - 1, r"(1\.9|2)")):
        with pytest.raises(
            ValueError, match=rf"ground truth spans {spans}.*, more than data_range=1"
        ):
            score(x, x)
    whole = score(255 * A, 255 * B, data_range=255)
    assert torch.allclose(whole, score(A, B), atol=1e-4)
    score(A, 1.1 * B - 0.05)  # overshoot of a resized image
    score(3 * A, B)  # an estimate may be anything
    with pytest.warns(
        UserWarning, match=r"lies in \[0.*\] and data_range is 255: for images in \[0, 1\] it is 1"
    ):
        score(A, B, data_range=255)


def test_ssim_of_images_about_zero_is_told():
    assert torch.allclose(psnr(2 * A - 1, 2 * B - 1, data_range=2), psnr(A, B))
    with pytest.warns(
        UserWarning, match=r"ssim: the ground truth has values down to -1; .* begin at 0"
    ):
        assert (ssim(2 * A - 1, 2 * B - 1, data_range=2) < ssim(A, B) - 0.1).all()


def test_what_a_mask_leaves_out_has_no_scale():
    x, mask = A.clone(), torch.ones(32, 40, dtype=torch.bool)
    x[..., :3], mask[:, :3] = 999.0, False
    assert torch.allclose(psnr(B, x, mask=mask), psnr(B[..., 3:], A[..., 3:]))


def test_masked_psnr_by_hand():
    x = torch.zeros(2, 3, 4, 4)
    y = x.clone()
    y[..., 0] = 0.1
    y[0, :, :, 3] = float("nan")
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:, :2] = True  # half of the pixels that count are off by 0.1
    expected = 20 + 10 * np.log10(2)
    assert psnr(x, y, mask=mask).tolist() == pytest.approx([expected] * 2)
    each = torch.stack([mask, mask.roll(1, -1)])[:, None]
    each[1, ..., 0] = False
    assert psnr(x, y, mask=each).tolist() == [pytest.approx(expected), float("inf")]


@pytest.mark.parametrize("channel", ["rgb", "y"])
def test_a_mask_of_everything_changes_nothing(channel):
    mask = torch.ones(32, 40, dtype=torch.bool)
    assert torch.allclose(psnr(B, A, channel=channel, mask=mask), psnr(B, A, channel=channel))


def test_a_turned_pair_inside_the_mask_agrees_with_scikit_image():
    a, b = (rotate(t[..., :32], 1, C8) for t in (A, B))
    mask = valid_mask((32, 32), 1, C8)
    assert 0.4 < mask.float().mean() < 1
    ours = psnr(b, a, channel="y", mask=mask)
    for i in range(3):
        inside = (luma(t)[i, 0][mask].numpy() for t in (a, b))
        reference = peak_signal_noise_ratio(*inside, data_range=1)
        assert ours[i].item() == pytest.approx(reference, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: psnr(A, A[:2]),
            ValueError,
            r"one shape, got \(3, 3, 32, 40\) and \(2, 3, 32, 40\)",
        ),
        (lambda: ssim(A[0], A[0]), ValueError, r"two batches \(B, C, H, W\)"),
        (
            lambda: ssim(A[..., :9], A[..., :9]),
            ValueError,
            r"at least 11 x 11 pixels, got \(32, 9\)",
        ),
        (lambda: psnr(A.int(), A.int()), TypeError, "floating point images, got torch.int32"),
        (lambda: psnr(A, A, channel="Y"), ValueError, 'channel must be "rgb" or "y", got \'Y\''),
        (lambda: psnr(A, A, mask=torch.ones(32, 40)), TypeError, "boolean mask, got torch.float32"),
        (
            lambda: psnr(A, A, mask=torch.ones(3, 3, 32, 40, dtype=torch.bool)),
            ValueError,
            r"broadcasts to \(3, 1, 32, 40\), got shape \(3, 3, 32, 40\)",
        ),
        (
            lambda: psnr(A, A, mask=torch.tensor([True, False, True]).reshape(3, 1, 1, 1)),
            ValueError,
            "the mask leaves no pixel of image 1",
        ),
        (
            lambda: psnr(A, A, data_range=0),
            ValueError,
            "data_range must be positive and finite, got 0",
        ),
        (lambda: psnr(A[:, :1], A[:, :1], channel="y"), ValueError, "luma needs RGB images"),
        (
            lambda: equivariance_error(lambda x: x, A[..., :32], C4, field_in=C8.field("3t")),
            ValueError,
            "is a field of C8, but the group is C4",
        ),
        (
            lambda: equivariance_error(lambda x: x, A, C4),
            ValueError,
            "needs square images, got 32 x 40",
        ),
        (
            lambda: equivariance_error(lambda x: x, A[..., :32], C4, elements=[]),
            ValueError,
            "no element of C4",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_interpolated_angles_compare_the_pixels_inside_only():
    answers = iter([1.0, 2.0])  # to the image, and to the turned image
    error = equivariance_error(
        lambda x: torch.full_like(x, next(answers)), torch.rand(1, 1, 16, 16), C8, elements=[1]
    )
    assert torch.allclose(error, torch.ones(1))


def test_features_of_random_layers_have_an_error_of_about_two():
    errors = []
    for seed in range(3):
        torch.manual_seed(seed)
        a, b = nn.Conv2d(8, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)
        net = nn.Sequential(a, nn.ReLU(), b)
        errors.append(list(layer_errors(net, torch.randn(8, 8, 20, 20), C4).values()))
    first, second = np.mean(errors, 0)
    assert abs(first - 2) < 0.05 and abs(second - 2) < 0.15
