"""The U-Net: exact on the grid when strict, ordinary when not."""

import pytest
import torch

from eqreg import (
    C2,
    C4,
    C8,
    D4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    layer_errors,
    rotate,
)
from eqreg.models.unet import UNet
from eqreg.strict import equivariant


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def unet(group=None, **options):
    torch.manual_seed(0)
    return UNet(width=8, levels=2, strict=group, **options)


IMAGE = torch.rand(2, 1, 16, 16, generator=seeded(1))


def largest_error(net, x, turns):
    with torch.no_grad():
        plain, turned = net(x), [net(rotate(x, k)) for k in turns]
    return max(
        float((a - rotate(plain, k)).abs().max()) for k, a in zip(turns, turned, strict=True)
    )


@pytest.mark.parametrize(
    ("group", "turns"), [(C2, [2]), (C4, [1, 2, 3]), (C8, [1, 2, 3]), (D4, [1, 2, 3])]
)
def test_strict_net_is_exact_under_quarter_turns(group, turns):
    net = unet(group, kernel_size=5 if group == C8 else 3)
    assert largest_error(net, IMAGE, turns) < 1e-5
    assert largest_error(net.double(), IMAGE.double(), turns) < 1e-12


@pytest.mark.parametrize("levels", [0, 1, 3])
def test_exact_on_every_number_of_levels_and_for_colours(levels):
    net = UNet(3, 4, levels, strict=C4).double()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    assert largest_error(net, x, [1, 2, 3]) < 1e-12


def test_mirrors():
    net = unet(D4).double()
    x = IMAGE.double()
    assert torch.allclose(net(x.flip(-1)), net(x).flip(-1), atol=1e-12)


def test_plain_net_is_not_equivariant():
    assert largest_error(unet(), IMAGE, [1, 3]) > 1e-3


def test_45_degrees_are_nearly_right_and_scales_cost():
    """Features as fields of C8, on a smooth blob: halving a grid knows quarter turns only."""
    grid = torch.linspace(-1, 1, 32)
    x = torch.exp(-8 * (grid[:, None] ** 2 + (grid[None] - 0.2) ** 2))[None, None]
    strict, plain = (
        list(layer_errors(unet(group, kernel_size=5), x, C8).values()) for group in (C8, None)
    )
    assert max(strict[:2]) < 1e-3 < 0.05 < strict[2]
    assert sum(strict) / 11 < 0.4 < 1.8 < sum(plain) / 11


def test_shifts_by_the_coarsest_pixel_are_exact():
    net = unet().double()
    x = IMAGE.double()
    assert torch.allclose(net(x.roll((4, 8), (-2, -1))), net(x).roll((4, 8), (-2, -1)), atol=1e-12)
    assert not torch.allclose(net(x.roll(1, -1)), net(x).roll(1, -1), atol=1e-6)


def test_layers_are_fields():
    net = unet(C4).double()
    assert max(layer_errors(net, IMAGE.double(), C4).values()) < 1e-24
    fields = [str(f) for f in EquivarianceRegularizer(net, C4).plan.fields.values()]
    assert fields == ["2r", "2r", "4r", "4r", "8r", "8r", "4r", "2r", "4r", "2r", "1t"]


def test_soft_methods_attach_to_the_plain_net():
    net = unet()
    out = EquivarianceRegularizer(net, C4)(IMAGE, g=1)
    assert len(out.per_layer) == 11 and 0.5 < float(out.penalty.detach()) < 4
    EquivarianceDecay(net, C4, float("inf")).step(1.0)
    assert largest_error(net, IMAGE, [1, 2, 3]) < 1e-5


def test_twins():
    net = unet()
    size = sum(p.numel() for p in net.parameters())
    narrow, large = net.twin(C4), net.twin(C4, "parameters")
    assert narrow.width == 8 and large.width == 16
    n, m = (sum(p.numel() for p in t.parameters()) for t in (narrow, large))
    assert abs(n / size - 0.25) < 0.01 and abs(m / size - 1) < 0.02
    assert largest_error(large, IMAGE, [1, 3]) < 1e-5
    # The converter finds the same fields for equal width.
    converted = equivariant(net, C4)
    assert [p.shape for p in converted.parameters()] == [p.shape for p in narrow.parameters()]
    assert largest_error(converted, IMAGE, [1, 3]) < 1e-5


def test_starts_near_the_identity_and_without_biases():
    net = unet()
    with torch.no_grad():
        change = net(IMAGE) - IMAGE
    assert float(change.std()) < 0.5 * float(IMAGE.std())
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "channels >= 1, width >= 1 and levels >= 0, got 0, 16 and 2"),
        ((1, 8, -1), {}, "got 1, 8 and -1"),
        ((1, 8), {"kernel_size": 2}, "kernel_size must be odd, got 2"),
        ((1, 6), {"strict": C4}, "divisible by the 4 elements of C4, got 6"),
    ],
)
def test_bad_sizes(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        UNet(*arguments, **options)


@pytest.mark.parametrize("shape", [(1, 1, 18, 16), (1, 16, 16), (1, 1, 2, 2)])
def test_bad_images(shape):
    with pytest.raises(ValueError, match=r"expected \(B, 1, H, W\) with sides divisible by 4, got"):
        unet()(torch.rand(shape))


def test_bad_twins():
    with pytest.raises(ValueError, match='"width" or "parameters", got \'size\''):
        unet().twin(C4, "size")
    with pytest.raises(ValueError, match="divisible by the 8 elements"):
        UNet(width=12).twin(C8)


@pytest.mark.parametrize("x", [None, True, 1.5, [1, 2], "image"])
def test_what_is_no_image_is_named(x):
    with pytest.raises(
        ValueError, match=r"UNet: expected \(B, 1, H, W\) with sides divisible by .*, got"
    ):
        UNet()(x)
