"""The pixel grid: sizes, one-sided padding, resampling, dropout; and running statistics after tying."""

import math
import warnings

import pytest
import torch
from torch import nn

from eqreg import (
    C4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    equivariance_error,
    equivariant_init_,
)
from eqreg.layers.grid import exact_sizes, grid_problem

X = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def exact(module, side):
    """Whether the layer itself commutes with a quarter turn."""
    return equivariance_error(module, torch.rand(1, 2, side, side).double(), C4).max() < 1e-20


RESAMPLERS = [
    nn.ZeroPad2d((0, 1, 0, 1)),
    nn.ReflectionPad2d(2),
    nn.ReplicationPad2d((1, 0, 1, 0)),
    nn.CircularPad2d((1, 2, 1, 2)),
    nn.ConstantPad2d((1, 1, 1, 1), 0.5),
    nn.Upsample(scale_factor=0.5, mode="nearest"),
    nn.Upsample(scale_factor=1.5, mode="nearest"),
    nn.Upsample(scale_factor=2, mode="nearest"),
    nn.Upsample(scale_factor=3, mode="nearest-exact"),
    nn.Upsample(scale_factor=0.5, mode="nearest-exact"),
    nn.Upsample(scale_factor=1.5, mode="bilinear"),
    nn.Upsample(size=(5, 5), mode="bicubic", align_corners=True),
    nn.MaxPool2d(3, 2, 1),
    nn.MaxPool2d(2, ceil_mode=True),
    nn.AvgPool2d(2),
    nn.AvgPool2d(3, 1, 1),
    nn.LPPool2d(2, 2),
    nn.LPPool2d(2, 3, stride=2),
]


@pytest.mark.parametrize("module", RESAMPLERS, ids=str)
@pytest.mark.parametrize("side", [12, 13])
def test_what_is_told_is_what_is_wrong(module, side):
    assert (grid_problem(module, (side, side)) is None) == exact(module, side)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.ZeroPad2d((0, 1, 0, 1)), r"layer '0': padding \(0, 1, 0, 1\) pads one side more"),
        (nn.Upsample(scale_factor=1.5), "mode='nearest' by 1.5 takes pixels off centre at H=16"),
        (nn.Upsample(scale_factor=0.5), "mode='nearest' by 0.5 takes pixels off centre"),
        (nn.LPPool2d(2, 3, stride=2), "H=16, kernel K=3, stride s=2, padding P=0"),
        (nn.MaxPool2d(3, 2, 1), "at H=15 or 17, but never at a multiple of 2.*kernel 4 with padding 1"),
        (nn.MaxPool2d(5), "crop so that this layer gets a multiple of 5, as U-Nets need anyway"),
        (nn.Dropout2d(0.5), "Dropout2d draws one mask for the image and another"),
    ],
)  # fmt: skip
def test_the_regularizer_tells(module, message):
    reg = EquivarianceRegularizer(nn.Sequential(module, nn.Conv2d(3, 4, 1)).double(), C4)
    with pytest.warns(UserWarning, match=message):
        reg(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reg(X)  # once per size


def test_dropout_that_is_off_is_not_told():
    model = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.3), nn.Conv2d(3, 4, 1)).double()
    EquivarianceRegularizer(model.eval(), C4)(X)


@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (1, 2, 0), (7, 2, 3), (3, 4, 1)])
def test_the_advised_kernel_is_exact_at_all_multiples(kernel, stride, padding):
    advice = grid_problem(nn.Conv2d(1, 1, kernel, stride, padding), (24, 24))
    words = advice.split("kernel ")[-1].split()
    better = nn.MaxPool2d(int(words[0]), stride, int(words[3]))
    assert int(words[0]) - kernel in (1, stride - kernel)
    for side in (stride * n for n in range(4, 9)):
        assert exact(better, side)
        assert better(torch.rand(1, 1, side, side)).shape[-1] == side // stride
    # The sizes it names serve the layer as it is.
    for side in advice.split("it is at H=")[1].split(",")[0].split(" or "):
        assert grid_problem(nn.Conv2d(1, 1, kernel, stride, padding), (int(side),) * 2) is None


def unet(pool):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.pools = nn.ModuleList([pool() for _ in range(2)])
            self.up = nn.Upsample(scale_factor=2)

        def forward(self, x):
            y = self.pools[0](x)
            return x + self.up(y + self.up(self.pools[1](y)))

    return Net()


def test_sizes_that_serve_strides_and_halving():
    x = torch.rand(1, 3, 16, 16)
    model = nn.Sequential(unet(lambda: nn.MaxPool2d(2)), nn.Conv2d(3, 4, 3, 3, padding=0)).train()
    assert exact_sizes(model, x, range(8, 40)) == [12, 24, 36]  # multiples of 4 and 3
    assert all(m.training for m in model.modules()) and not any(
        m._forward_hooks for m in model.modules()
    )
    model = unet(lambda: nn.MaxPool2d(3, 2, 1))
    assert exact_sizes(model, x, range(8, 40)) == []
    assert exact_sizes(unet(lambda: nn.AvgPool2d(4, 2, 1)), x, range(8, 20)) == [8, 12, 16]
    assert exact_sizes(nn.Conv2d(3, 4, 3, 2, 1), x, range(8, 13)) == [9, 11]


def test_strided_layers_warn_in_the_decay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 2, 2))
    with pytest.warns(
        UserWarning,
        match=r"'0', '1' \(first: kernel 3, stride 2, padding 1: exact if its input is 1 mod 2 wide",
    ):
        EquivarianceDecay(model, C4)
    EquivarianceDecay(model[2:], C4)


@pytest.mark.parametrize("tie", ["decay", "init"])
def test_running_statistics_are_tied_too(tie):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)
    ).double()
    for _ in range(3):
        model(X + torch.randn_like(X))
    if tie == "decay":
        EquivarianceDecay(model, C4, math.inf).step(1.0)
    else:
        equivariant_init_(model, C4)
    assert equivariance_error(model.eval(), X, C4).max() < 1e-25
    assert equivariance_error(model.train(), X, C4).max() < 1e-25


def test_a_finite_decay_leaves_what_was_measured():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    model(X.float())
    before = model[1].running_mean.clone()
    EquivarianceDecay(model, C4, 40.0).step(0.1)
    assert torch.equal(model[1].running_mean, before)
