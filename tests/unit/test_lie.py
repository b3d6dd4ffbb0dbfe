"""Lie derivatives: known by hand, against small finite rotations, and what users read when it cannot work."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqreg import C4, CyclicGroup, rotate
from eqreg.measure.lie import lie_derivative, lie_error
from eqreg.models import ResidualNet

N, MARGIN = 48, 8
TENTHS = CyclicGroup(3600)  # one turn of this group is a tenth of a degree
CENTRAL = torch.tensor([-0.5, 0.0, 0.5]).double()[None, None, None]


def coordinates(n=N, m=N):
    """Right and up, in [-1, 1] along the longer side."""
    scale = 2 / max(n, m)
    right = (torch.arange(m).double() - (m - 1) / 2) * scale
    up = ((n - 1) / 2 - torch.arange(n).double()) * scale
    return right, up[:, None]


def waves(n=N, m=N):
    u, v = coordinates(n, m)
    one = torch.exp(-3 * (u**2 + v**2)) * (torch.cos(5 * u + 2 * v) + torch.sin(3 * u - 6 * v) / 2)
    return torch.stack([one, torch.exp(-4 * (u - 0.2) ** 2 - 3 * v**2)])[:, None]


def gaussian(sigma):
    r = math.ceil(5 * sigma)
    g = torch.exp(-(torch.arange(-r, r + 1).double() ** 2) / (2 * sigma**2))
    return (g[:, None] * g / g.sum() ** 2)[None, None]


def blur(x, sigma=1.5):
    return F.conv2d(x, gaussian(sigma), padding="same")


def to_the_right(x):
    return F.conv2d(x, CENTRAL, padding=(0, 1))


def upwards(x):
    return -F.conv2d(x, CENTRAL.mT, padding=(1, 0))


def inside(z):
    return z[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.mark.parametrize("about", ["center", "pixel"])
def test_the_identity_is_exactly_equivariant(about):
    x = torch.randn(2, 3, 12, 17)
    error = lie_error(lambda x: x, x, about=about)
    assert error.shape == (2,) and error.max() < 1e-11


def test_generator_by_hand():
    # x = u g(r): turned by 90 degrees it is v g, so the rate of change of the pixels is v g.
    u, v = coordinates()
    g = torch.exp(-14 * (u**2 + v**2))
    rate = lie_derivative(lambda x: x.flatten(1), (u * g)[None, None]).reshape(N, N)
    assert (rate - v * g).abs().max() < 1e-3 * g.max()
    wrong_way = (rate + v * g).abs().max()
    assert wrong_way > 0.1


def test_it_is_the_rate_of_a_small_rotation():
    torch.manual_seed(0)
    kernel = torch.randn(1, 1, 5, 5).double()

    def f(x):
        return torch.tanh(F.conv2d(x, kernel, padding=2))

    def turned_back(k):
        return rotate(f(rotate(x, k, TENTHS)), -k, TENTHS)

    x = waves(96, 96)
    k = 10
    slope = (turned_back(k) - turned_back(-k)) / (2 * math.radians(k / 10))
    rate = lie_derivative(f, x)
    assert inside(slope - rate).norm() < 0.02 * inside(rate).norm()
    # and its sign, which no norm of the error sees
    assert inside(slope + rate).norm() > inside(rate).norm()


def test_blur_has_a_small_error_that_falls_with_the_fourth_power():
    errors = []
    for n in (48, 96):
        error = lie_error(lambda x, n=n: blur(x, n / 32), waves(n, n), margin=n // 4)
        errors.append(error.max().item())
    assert errors[0] < 1e-6
    assert errors[1] < errors[0] / 100  # a square of h^4: 256 for ever smaller pixels


def test_derivative_to_the_right_by_hand():
    # Turning back the derivative of the turned image differentiates along a direction turned back.
    x = waves(96, 96)
    rate, expected = lie_derivative(to_the_right, x, margin=MARGIN), -upwards(x)
    assert inside(rate - expected).norm() < 0.02 * inside(expected).norm()
    # On a set closed under quarter turns both directions have the same energy: relative error 1.
    closed = torch.cat([rotate(x[:1], k) for k in range(4)])
    y = to_the_right(closed)
    rate = lie_derivative(to_the_right, closed, margin=MARGIN)
    assert (inside(rate).square().sum() / inside(y).square().sum()).item() == pytest.approx(
        1, abs=0.02
    )


def test_anisotropic_blur_by_hand():
    # L = -(X w) * x with X w = (1/b^2 - 1/a^2) u v w; on white noise the ratio is (a/b - b/a)^2 / 4.
    a, b = 1.5, 2.5
    r = 9
    t = torch.arange(-r, r + 1).double()
    kernel = torch.exp(-(t**2) / (2 * a**2)) * torch.exp(-(t[:, None] ** 2) / (2 * b**2))
    x = torch.randn(8, 1, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    for about in ("center", "pixel"):
        error = lie_error(
            lambda x: F.conv2d(x, kernel[None, None], padding=r), x, about=about, margin=14
        )
        assert error.mean().item() == pytest.approx((a / b - b / a) ** 2 / 4, rel=0.1)


def test_about_the_pixel_pointwise_functions_are_exact_and_aliasing_is_not_seen():
    x = torch.rand(2, 1, N, N).double()
    assert lie_error(lambda x: F.relu(x - 0.5), x, about="pixel").max() < 1e-24
    assert lie_error(lambda x: F.relu(x - 0.5), x).min() > 1
    smooth = lie_error(lambda x: torch.tanh(x), waves(), margin=MARGIN)
    assert smooth.max() < 1e-4


def test_the_difference_of_the_two_is_what_shifts_do():
    torch.manual_seed(0)
    f = ResidualNet(width=4, depth=3).double()
    x = torch.rand(1, 1, N, N).double()
    by_center, by_pixel = (
        lie_derivative(f, x, about=a, margin=MARGIN) for a in ("center", "pixel")
    )

    def gradient(z):  # fourth order, away from the border
        def along(dim):
            return (
                2 / 3 * (z.roll(-1, dim) - z.roll(1, dim)) - (z.roll(-2, dim) - z.roll(2, dim)) / 12
            )

        return along(-1), -along(-2)

    u, v = coordinates()
    u, v = u * N / 2, v * N / 2
    with torch.no_grad():
        y = f(x)
        shifts = [
            torch.func.jvp(f, (x,), (d_in,))[1] - d_out
            for d_in, d_out in zip(gradient(x), gradient(y), strict=True)
        ]
    expected = by_pixel + v * shifts[0] - u * shifts[1]
    torch.testing.assert_close(inside(by_center), inside(expected))


def test_invariant_vectors_and_strides():
    u, v = coordinates()
    spot = torch.exp(-14 * ((u - 0.1) ** 2 + v**2))[None, None]  # nothing turns in from outside
    assert lie_error(lambda x: torch.tanh(x).mean((2, 3)), spot).max() < 1e-6
    x = waves()
    assert lie_error(lambda x: x[:, :, 10, 20], x).min() > 1e-3
    pooled = lie_error(lambda x: F.avg_pool2d(x, 2), x, margin=4)
    off_centre = lie_error(lambda x: x[..., ::2, ::2], x, margin=4)
    assert (pooled < 0.01 * off_centre).all()


def test_any_height_and_width():
    x = waves(40, 64)
    error = lie_error(blur, x, margin=10)
    assert error.max() < 1e-6


def test_strict_networks_are_not_exact_between_their_angles():
    torch.manual_seed(0)
    net = ResidualNet(width=8, depth=3, strict=C4).double()
    assert lie_error(net.body, waves(), about="pixel", margin=MARGIN)[0] > 1e-3


def test_margin_is_zero_and_leaves_both_norms():
    x = torch.rand(1, 1, 20, 20).double()
    rate = lie_derivative(to_the_right, x, margin=3)
    assert rate[..., :3, :].abs().max() == 0 and rate[..., -3:].abs().max() == 0
    power = to_the_right(x)[..., 3:-3, 3:-3].square().sum()
    assert lie_error(to_the_right, x, margin=3).item() == pytest.approx(
        (rate.square().sum() / power).item()
    )


def test_zero_output_counts_as_equivariant():
    assert lie_error(lambda x: 0 * x, torch.rand(1, 1, 8, 8)).item() == 0


def test_no_gradient_and_no_trace_on_the_model():
    net = ResidualNet(width=4, depth=2)
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    rate, error = lie_derivative(net, x), lie_error(net, x, about="pixel")
    assert not rate.requires_grad and not error.requires_grad
    assert rate.shape == x.shape and rate.dtype == torch.float32
    assert x.grad is None and all(p.grad is None for p in net.parameters())
    net(x).sum().backward()  # the model still trains
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize(
    ("f", "x", "options", "error", "message"),
    [
        (nn.Identity(), torch.zeros(1, 1, 8, 8, dtype=torch.uint8), {}, TypeError, "uint8"),
        (nn.Identity(), torch.zeros(8, 8), {}, TypeError, r"\(B, C, H, W\)"),
        (nn.Identity(), torch.zeros(0, 1, 8, 8), {}, ValueError, "empty batch"),
        (nn.Identity(), torch.zeros(1, 1, 8, 8), {"about": "left"}, ValueError, "got 'left'"),
        (nn.Identity(), torch.zeros(1, 1, 8, 9), {"margin": 4}, ValueError, r"\[0, 3\] for 8 x 9 .* got 4"),
        (nn.Identity(), torch.zeros(1, 1, 8, 8), {"margin": -1}, ValueError, "got -1"),
        (nn.Flatten(2), torch.zeros(1, 1, 8, 8), {}, ValueError, r"of shape \(1, 1, 64\)"),
        (lambda x: x[:1], torch.zeros(2, 1, 8, 8), {}, ValueError, "B = 2"),
        (nn.AvgPool2d(2), torch.zeros(1, 1, 8, 8), {"about": "pixel"}, ValueError, 'use about="center"'),
        (nn.Flatten(), torch.zeros(1, 1, 8, 8), {"about": "pixel"}, ValueError, 'use about="center"'),
        (lambda x: (x, x), torch.zeros(1, 1, 8, 8), {}, TypeError, "got tuple"),
    ],
)  # fmt: skip
def test_messages(f, x, options, error, message):
    for function in (lie_derivative, lie_error):
        with pytest.raises(error, match=message):
            function(f, x, **options)


@pytest.mark.parametrize("f", [len, lambda x: None, lambda x: (x, x), lambda x: [1]])
def test_a_map_that_returns_no_tensor_is_named(f):
    """torch's forward mode would say only what it expects of functions in general."""
    with pytest.raises(TypeError, match="f must return one tensor, got"):
        lie_error(f, torch.rand(1, 1, 6, 6))
