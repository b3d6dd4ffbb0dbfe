"""What the regularizer says to bad inputs, and its warnings."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from eqreg import C2, C4, EquivarianceRegularizer, layer_errors
from eqreg.strict import GroupConv2d


def regularizer(group=C4, **kwargs):
    return EquivarianceRegularizer(nn.Conv2d(1, 4, 3, padding=1), group, **kwargs)


IMAGE = torch.rand(2, 1, 8, 8)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            (torch.rand(2, 1, 8, 6),),
            ValueError,
            "needs square images, got 8 x 6; crop to squares or use C2",
        ),
        (
            (torch.zeros(2, 1, 8, 8, dtype=torch.uint8),),
            TypeError,
            "floating point images, got torch.uint8",
        ),
        ((torch.rand(0, 1, 8, 8),), ValueError, r"empty batch of shape \(0, 1, 8, 8\)"),
        (
            (torch.rand(1, 8, 8),),
            TypeError,
            r"at least one batch of images, a tensor \(B, C, H, W\)",
        ),
        ((), TypeError, "at least one batch of images"),
        ((IMAGE, IMAGE.double()), ValueError, "share one dtype, got torch.float32, torch.float64"),
        (
            (IMAGE.double(),),
            ValueError,
            "dtype torch.float64, but the model's parameters have torch.float32",
        ),
        ((IMAGE, IMAGE.to("meta")), ValueError, "share one device, got cpu, meta"),
        ((IMAGE.to("meta"),), ValueError, "device meta, but the model's parameters have cpu"),
        (
            (IMAGE, torch.rand(3, 1, 8, 8)),
            ValueError,
            r"batch size of the first, 2, got shape \(3, 1, 8, 8\)",
        ),
        (
            (IMAGE, torch.rand(2, 8, 8)),
            ValueError,
            r"cannot tell whether shape \(2, 8, 8\) is an image",
        ),
    ],
)
def test_bad_inputs_are_named_before_anything_runs(inputs, error, message):
    reg = regularizer()
    reg.model.register_forward_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        reg(*inputs)


def test_half_turns_need_no_square():
    reg = regularizer(C2)
    assert reg(torch.rand(2, 1, 8, 6)).penalty.item() > 0


def test_metrics_check_the_same():
    with pytest.raises(ValueError, match="needs square images"):
        layer_errors(nn.Conv2d(1, 4, 3), torch.rand(1, 1, 8, 6), C4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_name_the_layer(value):
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    model[1].bias.data[0] = value
    with pytest.raises(FloatingPointError, match=r"features of '1', '2' \(first: '1'\)"):
        EquivarianceRegularizer(model, C4)(IMAGE)
    out = EquivarianceRegularizer(model, C4, check_finite=False)(IMAGE)
    assert not out.penalty.isfinite()


def test_targets_of_another_batch_or_shape():
    out = regularizer()(IMAGE)
    with pytest.raises(
        ValueError, match=r"target for each of the 2 images, got shape \(3, 1, 8, 8\)"
    ):
        out.act(torch.rand(3, 1, 8, 8))
    with pytest.raises(ValueError, match="cannot tell whether shape"):
        out.act(torch.rand(2, 8, 8))


def test_unknown_element():
    with pytest.raises(ValueError, match="not an element of C4"):
        regularizer()(IMAGE, g=(0, 1))


def test_nested_regularizers():
    inner = regularizer()

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = inner.model

        def forward(self, x):
            self.conv(x)
            return EquivarianceRegularizer(self, C4)(x).y

    with pytest.raises(RuntimeError, match="already running on this Outer: they cannot be nested"):
        EquivarianceRegularizer(Outer(), C4)(IMAGE)
    assert inner(IMAGE).penalty.item() > 0


def test_layers_that_fold_space_into_the_batch():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x.unfold(2, 4, 4).unfold(3, 4, 4).reshape(-1, 1, 4, 4))

    with pytest.raises(
        ValueError, match=r"layer 'conv': expected features \(4, C, H, W\) for 2 images"
    ):
        EquivarianceRegularizer(Windows(), C4)(IMAGE)


def test_layers_that_never_run():
    class Bypass(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return nn.functional.conv2d(x, self.conv.weight, self.conv.bias)

    with pytest.raises(RuntimeError, match="none of the 1 planned layers ran: conv"):
        EquivarianceRegularizer(Bypass(), C4)(IMAGE)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.Conv2d(1, 4, 3, stride=2, padding=1), r"s \| H\+2P-K, here 2 does not divide 7"),
        (nn.Conv2d(1, 4, 4, padding="same"), "pads one side more"),
        (nn.ConvTranspose2d(1, 4, 3, stride=2, padding=1, output_padding=1), "output_padding"),
        (GroupConv2d(C4.field("1t"), C4.field("1r"), 3, stride=2), r"s \| H\+2P-K"),
        (
            nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.Conv2d(1, 4, 1)),
            "layer '0'.*kernel K=3, stride s=2",
        ),
    ],
)
def test_inexact_grids_warn_once_per_size(layer, message, recwarn):
    reg = EquivarianceRegularizer(layer, C4)
    with pytest.warns(UserWarning, match=message):
        reg(IMAGE)
    recwarn.clear()
    reg(IMAGE)
    assert not recwarn.list


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 4, 2, stride=2),
        nn.Conv2d(1, 4, 4, stride=2, padding=1),
        nn.ConvTranspose2d(1, 4, 2, stride=2),
        nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 4, 3, padding="same")),
    ],
)
def test_exact_grids_do_not_warn(layer):
    EquivarianceRegularizer(layer, C4)(IMAGE)


def test_lost_gradients_are_told():
    class Reentrant(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return checkpoint(self.b, self.a(x), use_reentrant=True)

    reg = EquivarianceRegularizer(Reentrant(), C4)
    with pytest.warns(
        UserWarning, match="no gradient reaches the penalty of 'b'.*use_reentrant=False"
    ):
        reg(IMAGE)
