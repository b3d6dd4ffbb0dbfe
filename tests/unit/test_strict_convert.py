"""Twins of plain networks, and plain copies of strict ones."""

import copy

import pytest
import torch
from torch import nn

from eqreg import C4, C8, D4, equivariance_error
from eqreg.models import ResidualNet
from eqreg.strict import FourierConv2d, GroupConv2d, equivariant, to_plain


def size(model):
    return sum(p.numel() for p in model.parameters())


def small_net(**options):
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, **options), nn.ReLU(), nn.Conv2d(16, 3, 5))


@pytest.mark.parametrize("group", [C4, D4], ids=repr)
@pytest.mark.parametrize("match", ["width", "parameters"])
def test_twin_is_equivariant(group, match):
    model = ResidualNet(channels=3, width=16, depth=4)
    twin = equivariant(model, group, match=match).double()
    x = torch.rand(2, 3, 12, 12, dtype=torch.float64)
    assert isinstance(twin, ResidualNet)
    assert equivariance_error(twin, x, group).max() < 1e-24
    assert equivariance_error(model.double(), x, group).min() > 1e-6


def test_twin_of_equal_width_is_the_models_own():
    twin, own = equivariant(ResidualNet(), C4), ResidualNet(strict=C4)
    for net in (twin, own):
        torch.manual_seed(0)
        net.reset_parameters()
    for a, b in zip(twin.parameters(), own.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("group", [C4, C8, D4], ids=repr)
def test_equal_parameters(group):
    model = ResidualNet(width=48)
    twin = equivariant(model, group, match="parameters")
    assert abs(size(twin) / size(model) - 1) < 0.1
    hidden = twin.body[2].in_field.channels
    assert hidden > 48


def test_twin_keeps_what_the_convolutions_have():
    model = small_net(stride=2, bias=False, dtype=torch.float64).eval()
    twin = equivariant(model, C4)
    assert (twin[0].stride, twin[0].padding, twin[0].bias) == (2, 1, None)
    assert twin[2].padding == 0 and twin[2].kernel_size == 5
    assert twin[0].blocks[0].dtype == torch.float64 and not twin[0].training
    assert type(model[0]) is nn.Conv2d
    same = nn.Sequential(nn.Conv2d(1, 8, 5, padding="same"), nn.Conv2d(8, 1, 3, padding="valid"))
    assert [layer.padding for layer in equivariant(same, C4)] == [2, 0]


def test_layer_follows_the_group_or_the_argument():
    assert type(equivariant(small_net(), C4)[0]) is GroupConv2d
    assert type(equivariant(small_net(), C8)[0]) is FourierConv2d
    assert type(equivariant(small_net(), C4, layer=FourierConv2d)[0]) is FourierConv2d


def test_a_shared_convolution_stays_shared():
    middle = nn.Conv2d(8, 8, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), middle, nn.ReLU(), middle, nn.Conv2d(8, 1, 3))
    twin = equivariant(model, C4)
    assert twin[1] is twin[3] and isinstance(twin[1], GroupConv2d)
    plain = to_plain(twin)
    assert plain[1] is plain[3] and type(plain[1]) is nn.Conv2d


def test_to_plain_of_a_network():
    twin = equivariant(ResidualNet(channels=3), C4)
    before = copy.deepcopy(twin.state_dict())
    plain = to_plain(twin)
    x = torch.rand(2, 3, 16, 16)
    assert (plain(x) - twin(x)).abs().max() <= 1e-6
    assert not any(isinstance(m, GroupConv2d) for m in plain.modules())
    assert all(torch.equal(v, before[k]) for k, v in twin.state_dict().items())
    assert to_plain(nn.ReLU()) is not None  # nothing to replace is fine


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: equivariant(small_net(), C4, match="size"), '"width" or "parameters", got'),
        (lambda: equivariant(nn.Conv2d(1, 1, 3), C4), "at least two convolutions.*got 1"),
        (
            lambda: equivariant(nn.Sequential(nn.Conv2d(1, 6, 3), nn.Conv2d(6, 1, 3)), C4),
            "0 has 6 channels, which the 4 elements of C4 do not divide",
        ),
        (
            lambda: equivariant(nn.Sequential(*small_net(), nn.BatchNorm2d(3)), C4),
            r"no strict twin for 3 \(BatchNorm2d\)",
        ),
        (
            lambda: equivariant(nn.Sequential(nn.Conv2d(1, 8, 3, dilation=2), *small_net()), C4),
            r"no strict twin for 0: expected dilation=\(1, 1\), got \(2, 2\)",
        ),
        (
            lambda: equivariant(nn.Sequential(nn.Conv2d(1, 8, (3, 5)), *small_net()), C4),
            r"0: expected a square kernel_size, got \(3, 5\)",
        ),
        (
            lambda: equivariant(
                nn.Sequential(nn.Conv2d(1, 8, 4, padding="same"), *small_net()), C4
            ),
            'even kernel .4, 4. with padding="same"',
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
