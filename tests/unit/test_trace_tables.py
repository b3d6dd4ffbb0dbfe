"""Tracing where values repeat, where a table of positions turns, and where a check could be fooled."""

import math
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqreg import C2, C4, D4, EquivarianceDecay, ProjectionPenalty, check, equivariance_distance
from eqreg.layers.reynolds import Signed, projected, reynolds
from eqreg.layers.trace import tie


def conv(a, b, k=3, **kwargs):
    return nn.Conv2d(a, b, k, padding=k // 2, **kwargs)


class Offsets(nn.Module):
    """Attention whose bias a small network computes from the offset of two pixels, as in Swin V2."""

    def __init__(self, size=4, heads=4, width=16):
        super().__init__()
        self.heads = heads
        self.head, self.qkv, self.tail = conv(3, width), nn.Linear(width, 3 * width), conv(width, 3)
        self.mlp = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, heads, bias=False))
        line = torch.arange(1.0 - size, size) / size
        self.register_buffer("table", torch.stack(torch.meshgrid(line, line, indexing="ij"), -1))
        at = torch.stack(
            torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        ).flatten(1)
        away = at[:, :, None] - at[:, None] + size - 1
        self.register_buffer("index", away[0] * (2 * size - 1) + away[1])

    def forward(self, x):
        z = self.head(x)
        t = z.flatten(2).transpose(1, 2)
        b, n, c = t.shape
        q, k, v = self.qkv(t).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.mlp(self.table).view(-1, self.heads)[self.index].permute(2, 0, 1)
        t = ((q @ k.transpose(-1, -2) + 16 * bias.sigmoid()).softmax(-1) @ v).transpose(1, 2)
        return self.tail(z + t.reshape(b, n, c).transpose(1, 2).reshape(z.shape))


@pytest.mark.parametrize("group", [C2, C4, D4], ids=str)
def test_a_bias_computed_from_offsets(group):
    model, x = Offsets(), torch.rand(1, 3, 4, 4)
    report = check(model, x, group)
    assert report and report.parameters == 1 and report.error > 1e-3 > 1e-12 > report.tied_error
    # A hidden field of |G| features reads one pair of weights: turned, it is that of its neighbours.
    ties = tie(model, x, group)
    index = ties.index("mlp.0.weight")
    assert isinstance(index, Signed)
    basis = torch.eye(48)
    rank = torch.linalg.matrix_rank(
        torch.stack([reynolds(e.view(24, 2), index).flatten() for e in basis])
    )
    assert int(rank) == 48 // group.order


def test_signs_reach_decay_distance_and_gradient():
    torch.manual_seed(0)
    model, x = Offsets(), torch.rand(1, 3, 4, 4)
    index = tie(model, x, C4).index("mlp.0.weight")
    w = torch.randn(24, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: projected(t, index), w)
    twice = reynolds(reynolds(w, index), index)
    torch.testing.assert_close(twice, reynolds(w, index))
    EquivarianceDecay(model, C4, math.inf, example=x).step(0.1)
    assert max(equivariance_distance(model, C4, example=x).values()) < 1e-10
    assert float(ProjectionPenalty(model, C4, example=x)().detach()) < 1e-10
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(
        model(x.rot90(1, (2, 3))), model(x).rot90(1, (2, 3)), atol=1e-5, rtol=1e-5
    )


def test_a_gate_takes_the_fields_of_what_it_scales():
    class Gated(nn.Module):
        """Six channels are a regular field and two trivial ones, twelve of two such are not three regular."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.tail = conv(3, 6), conv(3, 6), conv(12, 3)
            self.gate = nn.Sequential(conv(12, 4, 1), nn.ReLU(), conv(4, 12, 1))

        def forward(self, x):
            z = torch.cat([self.a(x), self.b(x)], 1)
            return self.tail(z * self.gate(z.mean((2, 3), keepdim=True)).sigmoid())

    assert check(Gated(), torch.rand(1, 3, 8, 8), C4)


def test_pixels_that_all_hold_one_value_still_turn():
    model = nn.Sequential(
        conv(3, 8), nn.MaxPool2d(4), nn.MaxPool2d(3, 1, 1), conv(8, 8, 1), nn.BatchNorm2d(8),
        nn.ReLU(), conv(8, 8, 3), nn.BatchNorm2d(8), nn.Upsample(scale_factor=2), conv(8, 3),
    )  # fmt: skip
    report = check(model, torch.rand(1, 3, 8, 8), C4)
    assert report and report.features == 1, str(report)


def test_statistics_that_hide_the_signal_do_not_hide_a_break():
    model = nn.Sequential(conv(3, 8), nn.MaxPool2d(3, 2, 1), nn.BatchNorm2d(8), conv(8, 3))
    model[2].running_var.fill_(1e24)
    report = check(model, torch.rand(1, 3, 16, 16), C4)
    assert [b.op for b in report.breaks] == ["max_pool2d_with_indices"]
    assert report.tied_error > 1e-3 and float(model[2].running_var[0]) == pytest.approx(1e24)


def test_a_constant_that_no_weights_make_turn_is_named():
    class Ramp(nn.Module):
        """Adds a ramp of its own to the image, which no weights make turn."""

        def __init__(self):
            super().__init__()
            self.head, self.tail = conv(3, 8), conv(8, 3)

        def forward(self, x):
            return self.tail(F.relu(self.head(x) + torch.linspace(0, 1, x.shape[-1])))

    report = check(Ramp(), torch.rand(1, 3, 8, 8), C4)
    assert not report and report.breaks[0].op == "add" and "constant" in report.breaks[0].remedy


class Kernels(nn.Module):
    """Each pixel is filtered by a mixture of learnt kernels, its own, as in KBNet."""

    def __init__(self, channels=8, each=4, kernels=6):
        super().__init__()
        self.each, self.head, self.mix = each, conv(3, channels), conv(3, kernels, 1)
        self.kernels = nn.Parameter(torch.randn(1, kernels, channels * each * 9))
        self.tail = conv(channels, 3)

    def forward(self, x):
        z, (h, w) = self.head(x), x.shape[-2:]
        b, c, e = len(z), z.shape[1], self.each
        k = (self.mix(x).flatten(2).transpose(1, 2) @ self.kernels).view(b, h * w, c // e, e, e * 9)
        u = F.unfold(z, 3, padding=1).view(b, c // e, e * 9, h * w).permute(0, 3, 1, 2)
        y = (k @ u[..., None]).view(b, h * w, c).transpose(1, 2).view(z.shape)
        return self.tail(y + z)


def test_kernels_of_each_pixel():
    report = check(Kernels(), torch.rand(1, 3, 6, 6), C4)
    assert report and report.parameters == 1, str(report)


class Masked(nn.Module):
    """Writes where a condition on the image holds."""

    def __init__(self):
        super().__init__()
        self.head, self.tail = conv(3, 8), conv(8, 3)

    def forward(self, x):
        z, bright = self.head(x), x.mean(1) > 0.5
        hue = torch.full_like(x[:, 0], float("nan"))  # not read before it is written
        hue[bright] = 2.0 + (x[:, 1] - x[:, 2])[bright]
        hue[~bright] = 1.0
        return self.tail(z.masked_fill(bright[:, None], 0.0)) + hue[:, None]


@pytest.mark.parametrize("group", [C4, D4], ids=str)
def test_masks_of_the_image_turn_with_it(group):
    report = check(Masked(), torch.rand(1, 3, 8, 8), group)
    assert report and report.parameters == 1, str(report)


class Sorted(nn.Module):
    """Tokens in the order of what they are most like, which is not the order of a turned image."""

    def __init__(self):
        super().__init__()
        self.head, self.score, self.mix, self.tail = (
            conv(3, 8), conv(8, 5, 1), nn.Conv1d(8, 8, 3, padding=1), conv(8, 3),
        )  # fmt: skip

    def forward(self, x):
        z = self.head(x)
        order = torch.sort(self.score(z).argmax(1).flatten(1), dim=1, stable=True).indices
        t = self.mix(z.flatten(2).gather(2, order[:, None].expand(-1, 8, -1)))
        return self.tail(t.view(z.shape))


class Spectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.filter, self.tail = (
            conv(3, 8), nn.Parameter(torch.rand(8, 8, 5)), conv(8, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.tail(
            torch.fft.irfft2(torch.fft.rfft2(self.head(x)) * self.filter, s=x.shape[2:])
        )


@pytest.mark.parametrize(
    ("make", "op", "reason"),
    [(Sorted, "sort", "what argmax of the model gives: places"), (Spectral, "_fft_r2c", "phases")],
)
def test_what_tracing_cannot_carry_is_named_where_it_begins(make, op, reason):
    report = check(make(), torch.rand(1, 3, 8, 8), C4)
    assert not report
    assert report.breaks[0].op == op and reason in report.breaks[0].reason, str(report)
    assert "tail.weight" in report.untied and "head.weight" not in report.untied


class Merged(nn.Module):
    """Runs one convolution with the weights of two, written past autograd, as re-parametrised networks do."""

    def __init__(self):
        super().__init__()
        self.three, self.one, self.run = conv(3, 8), conv(3, 8, 1), conv(3, 8)
        self.tail = conv(8, 3)

    def forward(self, x):
        one = F.pad(self.one.weight.data, [1, 1, 1, 1])
        self.run.weight.data = (self.three.weight.data + one).contiguous()
        self.run.bias.data = self.three.bias.data + self.one.bias.data
        return self.tail(self.run(x).relu())


def test_weights_written_past_autograd_are_seen():
    report = check(Merged(), torch.rand(1, 3, 8, 8), C4)
    assert report and not report.untied, str(report)
    ties = tie(Merged(), torch.rand(1, 3, 8, 8), C4)
    assert {"three.weight", "one.weight", "three.bias"} <= set(ties.tied)


class Product(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.tail = conv(3, 8, 1), conv(8, 8), conv(8, 3)

    def forward(self, x):
        w = F.conv2d(self.a.weight.permute(1, 0, 2, 3), self.b.weight.flip(2, 3), padding=2)
        return self.tail(F.conv2d(x, w.flip(2, 3).permute(1, 0, 2, 3), padding=1))


def test_a_weight_that_is_a_product_is_named():
    report = check(Product(), torch.rand(1, 3, 8, 8), C4)
    assert not report and report.breaks[0].op == "convolution"
    assert "product of parameters" in report.breaks[0].reason, str(report)


def test_a_trace_is_not_reused_after_a_change_of_any_attribute():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pads, self.then = nn.Conv2d(1, 4, 3), [1, 1, 1, 1], torch.relu

        def forward(self, x):
            return self.then(self.conv(F.pad(x, self.pads))).sum(1, keepdim=True)

    model, x = Listed(), torch.rand(1, 1, 8, 8)
    assert tie(model, x, C4) is tie(model, x, C4)
    model.pads[:2] = 2, 0  # in place
    assert not tie(model, x, C4).exact
    model.pads[:2] = 1, 1
    before = tie(model, x, C4)
    model.then = torch.tanh
    after = tie(model, x, C4)
    assert after is not before and after.exact
    aside = types.MethodType(lambda self, x: self.conv(F.pad(x, [2, 0, 1, 1]))[:, :1], model)
    model.forward = aside
    assert not tie(model, x, C4).exact
