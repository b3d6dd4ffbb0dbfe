"""Tracing: ties that make unmodified networks exactly equivariant, and the operation that breaks, by name."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqreg import (
    C2,
    C4,
    C8,
    D4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    check,
    equivariance_distance,
    equivariant_init_,
    rotate,
    soften,
)
from eqreg.layers.trace import tie


@torch.no_grad()
def noisy(model):
    """In float64, with noise on all parameters and statistics, so that no symmetry is there by itself."""
    torch.manual_seed(0)
    model = model.double().eval()
    for p in model.parameters():
        p.add_(torch.randn_like(p) * (0.02 + 0.2 * p.abs().mean()))
    for name, b in model.named_buffers():
        if name.endswith("running_mean"):
            b.normal_()
        if name.endswith("running_var"):
            b.uniform_(0.5, 1.5)
    return model


@torch.no_grad()
def error(model, group, size, channels=3):
    x = torch.rand(2, channels, size, size, dtype=torch.float64)
    worst = 0.0
    for g in group.elements[1:]:
        y, y_g = model(x.clone()), model(rotate(x, g, group))
        y = rotate(y, g, group) if y.ndim == 4 else y
        worst = max(worst, float((y - y_g).norm() / y.norm()))
    return worst


class Shuffles(nn.Module):
    """Sub-pixels in both directions, by modules and by functions, and a concatenation with the image."""

    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(16, 4, 3, padding=1)  # registered first, runs last
        self.down, self.up = nn.Conv2d(12, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.join, self.skip = nn.Conv2d(19, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, x):
        y = F.pixel_shuffle(self.up(self.down(F.pixel_unshuffle(x, 2)).relu()), 2)
        return self.last(self.join(torch.cat([y, x], 1)).relu() + self.skip(x))


class Norms(nn.Module):
    """Norms, gains, layer scale, PReLU, channel attention, writes in place."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 16, 3, padding=1, padding_mode="circular")
        self.groups = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(16), nn.GroupNorm(4, 16), nn.InstanceNorm2d(16, affine=True)]
        )
        self.act, self.scale = nn.PReLU(16), nn.Parameter(torch.randn(16, 1, 1))
        self.squeeze, self.excite = nn.Linear(16, 8), nn.Linear(8, 16)
        self.up, self.tail = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        y = self.act(self.norms[0](self.head(x)))
        y = y + self.scale * self.norms[1](self.groups(y))
        z = torch.zeros_like(y)
        z[:, :8] = self.norms[2](self.deep(y))[:, :8]
        z[:, 8:] += y[:, 8:]
        z.relu_()
        s = self.excite(F.silu(self.squeeze(z.mean((2, 3))))).sigmoid()
        return F.avg_pool2d(self.tail(self.up(F.max_pool2d(z * s[..., None, None], 2))), 1) + x


class Tokens(nn.Module):
    """A vision transformer with class token, position table and nn.MultiheadAttention."""

    def __init__(self, heads=4):
        super().__init__()
        self.patch, self.cls = nn.Conv2d(3, 32, 4, 4), nn.Parameter(torch.randn(1, 1, 32))
        self.position = nn.Parameter(torch.randn(1, 17, 32))
        self.block = nn.TransformerEncoderLayer(32, heads, 64, batch_first=True)
        self.classes = nn.Linear(32, 8)

    def forward(self, x):
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.cls.expand(len(y), -1, -1), y], 1) + self.position
        return self.classes(self.block(y)[:, 0])


class Windows(nn.Module):
    """Attention in shifted windows with a table of relative positions, heads of width 15."""

    def __init__(self, width=60, heads=4, window=4, shift=2):
        super().__init__()
        self.window, self.heads, self.shift = window, heads, shift
        self.head, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        at = torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
        ).flatten(1)
        away = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer("index", away[0] * (2 * window - 1) + away[1])
        self.tail = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, x):
        w, y = self.window, self.head(x)
        b, c, h, _ = y.shape
        z = torch.roll(y, (-self.shift, -self.shift), (2, 3)).permute(0, 2, 3, 1)
        z = z.view(b, h // w, w, h // w, w, c).transpose(2, 3).reshape(-1, w * w, c)
        q, k, v = (
            self.qkv(self.norm(z))
            .view(-1, w * w, 3, self.heads, c // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        a = q @ k.transpose(-1, -2) + self.table[self.index].permute(2, 0, 1)
        z = self.proj((a.softmax(-1) @ v).transpose(1, 2).reshape(-1, w * w, c))
        z = (
            z.view(b, h // w, h // w, w, w, c)
            .transpose(2, 3)
            .reshape(b, h, h, c)
            .permute(0, 3, 1, 2)
        )
        y = y + torch.roll(z, (self.shift, self.shift), (2, 3))
        return F.pixel_shuffle(self.tail(y), 2)


@pytest.mark.parametrize("group", [C2, C4, D4], ids=str)
@pytest.mark.parametrize("make", [Shuffles, Norms, Tokens, Windows])
def test_tied_networks_are_exactly_equivariant(make, group):
    model = noisy(make())
    assert error(model, group, 16) > 1e-3
    ties = tie(model, torch.rand(1, 3, 16, 16), group)
    assert not ties.breaks and ties.coverage == 1
    ties.project_(model)
    assert error(model, group, 16) < 1e-12
    if make is not Tokens:
        assert error(model, group, 24) < 1e-12  # traced at 16, right at other sizes


@pytest.mark.parametrize(
    ("window", "shift"), [(4, 0), (4, 1), (4, 2), (4, 3), (3, 0), (3, 1), (6, 2), (6, 3)]
)
def test_shifted_windows_can_be_tied_if_twice_the_shift_is_a_multiple(window, shift):
    """The borders of windows lie at shift + window Z, from either edge only then (chapter 4)."""
    model, x = noisy(Windows(window=window, shift=shift)), torch.rand(1, 3, 12, 12)
    ties = tie(model, x, C4)
    ties.project_(model)
    exact = 2 * shift % window == 0
    assert (not ties.breaks) == exact
    assert (error(model, C4, 12) < 1e-12) == exact


def test_only_what_must_be_is_tied():
    model = noisy(Shuffles())
    ties = tie(model, torch.rand(1, 3, 16, 16), C4)
    free = sum(
        len(ties.index(n).view(-1, p.numel()).amin(0).unique()) for n, p in model.named_parameters()
    )
    total = sum(p.numel() for p in model.parameters())
    assert 0.25 <= free / total < 0.28


def test_a_group_that_moves_no_pixels():
    with pytest.raises(ValueError, match="C8 does not; expected C2, C4"):
        tie(Shuffles(), torch.rand(1, 3, 16, 16), C8)


def test_infinite_decay_with_an_example_makes_a_network_strict():
    for make in (Shuffles, Norms, Tokens, Windows):
        model, x = noisy(make()), torch.rand(2, 3, 16, 16)
        decay = EquivarianceDecay(model, C4, math.inf, example=x)
        decay.step(0.1)
        assert error(model, C4, 16) < 1e-12
        assert max(equivariance_distance(model, C4, example=x).values()) < 1e-20
        assert float(ProjectionPenalty(model, C4, example=x)().detach()) < 1e-20


def test_equivariant_init_with_an_example():
    model = noisy(Windows())
    equivariant_init_(model, C4, example=torch.rand(1, 3, 16, 16))
    assert error(model, C4, 16) < 1e-12


def test_the_regularizer_is_zero_on_a_strict_network_and_sees_all_convolutions():
    model, x = noisy(Shuffles()), torch.rand(2, 3, 16, 16, dtype=torch.float64)
    equivariant_init_(model, C4, example=x)
    reg = EquivarianceRegularizer(model, C4, example=x)
    fields = {n: str(f) for n, f in reg.plan.fields.items()}
    # In the order of execution; what feeds pixel_shuffle moves in raster order and is no regular field.
    assert fields == {"down": "8r", "join": "4r", "skip": "4r", "last": "4t"}
    assert list(fields) == ["down", "join", "skip", "last"]
    assert "no regular and trivial fields" in next(
        r.reason for r in reg.plan.rows if r.name == "up"
    )
    assert float(reg(x).penalty.detach()) < 1e-20


def test_given_fields_win():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    x = torch.rand(1, 1, 8, 8)
    fields = EquivarianceRegularizer(
        model, C4, example=x, fields={"0": "8t", "2": "1r"}
    ).plan.fields
    assert {n: str(f) for n, f in fields.items()} == {"0": "8t", "2": "1r"}
    rows = EquivarianceDecay(model, C4, example=x, fields={"0": "8t"}).plan.tied
    assert str(rows["0"].out_field) == "8t" and str(rows["2"].out_field) == "4t"


def test_check_says_what_breaks_and_what_would_mend_it():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 3, 1)
    )
    report = check(model, torch.rand(1, 3, 16, 16), C4, sizes=range(13, 18))
    assert not report and not report.ok
    assert [(b.path, b.op) for b in report.breaks] == [
        ("0", "convolution"),
        ("2", "max_pool2d_with_indices"),
    ]
    assert all("stride | H + 2P - K" in b.remedy for b in report.breaks)
    assert [s for s, e in report.sizes.items() if e is not None and e < 1e-8] == [13, 17]
    for text in (str(report), report._repr_html_()):
        assert "2 operations break it" in text and "convolution" in text and "13, 17" in text
    good = check(model, torch.rand(1, 3, 17, 17), C4)
    assert good and good.parameters == 1 and good.tied_error < 1e-12 < good.error
    assert "can be made exactly equivariant" in str(good)


def test_soften_measures_the_way_to_a_strict_network():
    model, x = noisy(Windows()).float(), torch.rand(2, 3, 16, 16)
    ways = [soften(model, C4, b, example=x) for b in (0, 0.5, 1)]
    assert ways[0].defect == ways[0].before > ways[1].defect > 1e-3
    assert ways[2].defect < 1e-5 and type(ways[2].model) is Windows
    torch.testing.assert_close(ways[0].model(x), model(x))
    with pytest.raises(ValueError, match=r"b must lie in \[0, 1\], got 2"):
        soften(model, C4, 2, example=x)


@pytest.mark.parametrize("size", [64, 65])
def test_large_images_are_traced_as_crops_and_checked_whole(size, monkeypatch):
    from eqreg.layers.trace import ties

    seen = []
    record = ties.record
    monkeypatch.setattr(
        ties, "record", lambda m, a, k: seen.append(a[0].shape[-1]) or record(m, a, k)
    )
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.MaxPool2d(3, 2, 1) if size % 2 else nn.MaxPool2d(2)
    )
    assert tie(model, torch.rand(1, 3, size, size), C4).exact
    assert seen == [16 + size % 2]
    # A stride that fits the crop and not the whole is found at the whole.
    kernel = 5 + size % 2
    model = nn.Conv2d(3, 8, kernel, 11)
    assert (16 + size % 2 - kernel) % 11 == 0 and (size - kernel) % 11
    assert tie(model, torch.rand(1, 3, size, size), C4).breaks
    assert seen[-1] == size


def test_one_trace_serves_report_decay_and_regularizer(monkeypatch):
    from eqreg.layers.trace import latest, ties

    latest.forget()
    seen = []
    record = ties.record
    monkeypatch.setattr(ties, "record", lambda *given: seen.append(1) or record(*given))
    model, x = Shuffles(), torch.rand(1, 3, 16, 16)
    assert check(model, x, C4)
    decay = EquivarianceDecay(model, C4, math.inf, example=x)
    EquivarianceRegularizer(model, C4, example=x)
    decay.step(0.1)  # other weights, the same ties
    soften(model, C4, 1, example=x)
    assert len(seen) == 1
    for change in (
        lambda: tie(model, x, C2),
        lambda: tie(model, x + 1, C4),
        lambda: tie(model, x, C4, out_fields=[C4.field("1r")]),
        lambda: (setattr(model.down, "padding_mode", "reflect"), tie(model, x, C4)),
        lambda: (setattr(model, "join", nn.Conv2d(19, 16, 3, padding=1)), tie(model, x, C4)),
        lambda: (model.join.register_forward_hook(lambda m, i, o: o.relu()), tie(model, x, C4)),
        lambda: tie(Shuffles(), x, C4),
    ):
        before = len(seen)
        change()
        assert len(seen) == before + 1
    assert latest._kept == {}  # the last model is gone, and its trace with it


def test_blocks_of_one_kind_share_an_index():
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)), nn.Conv2d(8, 3, 1))
    ties = tie(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *model), torch.rand(1, 3, 8, 8), C4)
    assert ties.index("1.weight") is ties.index("2.weight") is ties.index("3.weight")
    assert ties.index("0.weight") is not ties.index("4.weight")
