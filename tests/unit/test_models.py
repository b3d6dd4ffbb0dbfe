"""The residual network and its strict twin."""

import pytest
import torch

from eqreg import C2, C4, D4, equivariance_error, layer_errors
from eqreg.models import ResidualNet


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_it_predicts_a_change():
    model = ResidualNet(channels=3, width=8, depth=4)
    x = torch.rand(2, 3, 14, 14)
    assert torch.equal(model(x), x + model.body(x))
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (3, 8),
        (8, 8),
        (8, 8),
        (8, 3),
    ]
    assert parameters(model) == 9 * (3 * 8 + 2 * 64 + 8 * 3) + 3 * 8 + 3


@pytest.mark.parametrize("group", [C2, C4, D4], ids=str)
def test_the_twin_is_equivariant_and_the_plain_one_is_not(group):
    torch.manual_seed(0)
    x = torch.rand(2, 1, 13, 13, dtype=torch.float64)
    plain, twin = (ResidualNet(1, 16, 4, strict=s).double() for s in (None, group))
    assert equivariance_error(twin.body, x, group).max() < 1e-24
    assert equivariance_error(plain.body, x, group).max() > 1e-3
    errors = layer_errors(twin, x, group)
    assert len(errors) == 4 and max(errors.values()) < 1e-24


def test_the_twin_has_a_quarter_of_the_parameters():
    ratio = parameters(ResidualNet(strict=C4)) / parameters(ResidualNet())
    assert 0.25 <= ratio < 0.27


@pytest.mark.parametrize("group", [None, C4], ids=str)
def test_signals_keep_their_power_and_the_net_starts_near_the_identity(group):
    torch.manual_seed(0)
    model = ResidualNet(width=32, depth=12, strict=group)
    x = torch.randn(1, 1, 64, 64)
    power = {}
    for name, layer in list(model.body.named_children())[:-1]:
        layer.register_forward_hook(lambda m, i, o, n=name: power.update({n: float(o.var())}))
    with torch.no_grad():
        y = model(x)
    relative = power["20"] / power["0"]
    assert 0.2 < relative < 5, "twelve layers of torch's default would leave 6**-10"
    assert (y - x).std() < 0.3 * x.std()
    assert all(not p.any() for n, p in model.named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"channels": 0}, "channels and width must be positive, got 0 and 16"),
        ({"width": 0}, "channels and width must be positive, got 1 and 0"),
        ({"depth": 1}, "depth must be at least 2, got 1"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"width": 6, "strict": C4}, "divisible by the 4 elements of C4, got 6"),
    ],
)
def test_it_refuses_sizes_that_do_not_fit(setting, message):
    with pytest.raises(ValueError, match=message):
        ResidualNet(**setting)
