"""What a trace claims: of which outputs, by which mean, and that a shut gate does not hide a break."""

import math

import pytest
import torch
from torch import nn

from eqreg import C2, C4, EquivarianceRegularizer, check, layer_errors
from eqreg.layers.reynolds import reynolds
from eqreg.layers.trace import tie
from eqreg.layers.trace.defect import tied_defect
from eqreg.layers.trace.orbits import factored_mean
from eqreg.symmetry.groups import DihedralGroup


class Tail(nn.Module):
    """A convolution, and something done to its output."""

    def __init__(self, done):
        super().__init__()
        self.conv, self.done = nn.Conv2d(3, 8, 3, padding=1), done

    def forward(self, x):
        return self.done(self.conv(x))


@pytest.mark.parametrize(
    ("done", "shape"),
    [
        (lambda z: z.flatten(2), (1, 8, 144)),
        (lambda z: z[..., :6], (1, 8, 12, 6)),
        (lambda z: z.mean(-1), (1, 8, 12)),
    ],
)
def test_nothing_is_claimed_of_an_output_of_which_nothing_was_asked(done, shape):
    x = torch.rand(1, 3, 12, 12)
    ties = tie(Tail(done), x, C4)
    assert ties.exact is None and ties.unasked == (shape,) and math.isnan(ties.error)
    report = check(Tail(done), x, C4)
    assert not report and f"an output of shape {shape} is neither an image that can turn" in str(
        report
    )
    both = tie(Tail(lambda z: (z, done(z))), x, C4)
    assert both.exact is None and both.unasked == (shape,) and both.error < 1e-12
    assert tie(Tail(lambda z: z), x, C4).exact is True


def test_what_is_wrong_is_wrong_whatever_else_was_not_asked():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            z = self.conv(x)
            return z.cumsum(-1), z.flatten(2)

    ties = tie(Broken(), torch.rand(1, 3, 12, 12), C4)
    assert ties.exact is False and ties.breaks and ties.unasked == ((1, 4, 144),)


class Mixed(nn.Module):
    """Parameters that are read in all the ways whose means need no index."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=2), nn.ReLU(),
            nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, padding=1),
            nn.ReLU(), nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2), nn.Conv2d(8, 8, 1),
        )  # fmt: skip
        self.rows, self.head = nn.Linear(8, 12), nn.Linear(12, 3, bias=False)

    def forward(self, x):
        return self.head(self.rows(self.body(x).movedim(1, -1)).relu()).movedim(-1, 1)


@pytest.mark.parametrize("group", [C2, C4, DihedralGroup(2), DihedralGroup(4)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_means_by_rows_are_the_means_by_index(group, dtype):
    torch.manual_seed(0)
    model = Mixed()
    ties = tie(model, torch.rand(1, 3, 9, 9), group)
    assert ties.exact
    seen = 0
    for name, p in model.named_parameters():
        factors, index = ties._uses.factors(name), ties.index(name)
        if factors is None:
            assert p.ndim == 1
            continue
        seen, p = seen + 1, p.detach().to(dtype)
        found = factored_mean(p, factors, group)
        assert found.dtype == dtype and found.shape == p.shape
        torch.testing.assert_close(found, reynolds(p, index), atol=torch.finfo(dtype).eps, rtol=0)
        assert torch.equal(factored_mean(found, factors, group), found), "a projection, to the bit"
    assert seen == 8


def test_what_no_weights_let_through_breaks_nothing():
    """Open ReLUs show what is behind a gate; where the gate is shut for all weights, the network itself decides."""

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.way, self.side = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)

        def forward(self, x):
            return self.way(x) + (-self.side(x).square() - 0.1).relu().cumsum(-1)

    model, x = Gate().double().eval(), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    ties = tie(nn.Conv2d(1, 4, 3, padding=1), x, C4, out_fields=[None])

    for part in (model.way, model.side):
        ties.project_(part)
    for proved in (False, True):
        assert tied_defect(model, x, ties.action, None, None, None, proved=proved) < 1e-12


def test_what_breaks_at_the_whole_size_alone_is_found_behind_a_shut_gate():
    """The crop proves the ties; the one pass at the whole size still looks behind ReLUs."""

    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.way, self.side = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
            nn.init.constant_(self.side.bias, -9)  # open for the other sign

        def forward(self, x):
            side = self.side(x).relu()
            return self.way(x) + (side.cumsum(-1) if x.shape[-1] > 32 else side)

    x = torch.rand(1, 1, 48, 48)
    for size, exact in ((32, True), (48, False)):
        assert tie(Late(), x[..., :size, :size], C4).exact is exact


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("way", ["plane", "rows"])
def test_a_bare_scale_of_a_vector_takes_the_action_of_what_it_meets(way, swap):
    """The vector does not turn, so it lets the scale move in any way; the trunk need not become trivial for it."""

    class Conditioned(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
            self.scale, self.last = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(3, 1, 1))

        def forward(self, x, sigma):
            z = self.a(x).relu()
            plane = way == "plane"
            s = (
                sigma * self.scale[:, None, None]
                if plane
                else (sigma[:, None] * self.scale)[..., None, None]
            )
            z = s * z if swap else z * s
            return self.b(z) + sigma * self.last

    torch.manual_seed(0)
    ties = tie(Conditioned(), (torch.rand(1, 3, 12, 12), torch.rand(1)), C4)
    assert ties.exact and not ties.untied and str(ties.fields["a"]) == "2r"
    assert len(ties.index("scale").view(4, 8)[:, :4].unique()) == 4, "one number for each field"
    index = ties.index("last")
    assert index is None or torch.equal(index, torch.arange(3).int().repeat(4)), "outputs stay"


def test_a_search_finds_the_next_sizes_that_serve_all_strides():
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 3, 1)
    )
    report = check(body, torch.rand(1, 3, 16, 16), C4)
    assert "sizes='search'" in str(report) and not report.sizes
    report = check(body, torch.rand(1, 3, 16, 16), C4, sizes="search")
    assert list(report.sizes) == [17, 21, 25] and max(report.sizes.values()) < 1e-8
    assert "sizes from 17 to 80 at which tied weights are exact: the next are 17, 21, 25" in str(
        report
    )

    class Pooled(nn.Module):  # a stride in no module, which only the measurement sees
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x, y):
            return nn.functional.max_pool2d(self.body(x + y), 4)

    two = (torch.rand(1, 3, 14, 14), torch.rand(1, 3, 14, 14))
    report = check(Pooled(), two, C4, sizes="search")
    assert [s for s, e in report.sizes.items() if e is not None and e < 1e-8] == [16, 20, 24]
    never = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ConstantPad2d((0, 1, 0, 1), 0.0))
    assert ": there is none" in str(check(never, torch.rand(1, 3, 9, 9), C4, sizes="search"))


def test_layer_errors_of_traced_layers():
    """With an example tokens are compared as images, as the regularizer does; the numbers are its own."""

    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.mix, self.head = (
                nn.Conv2d(3, 8, 3, padding=1),
                nn.Linear(8, 8),
                nn.Conv2d(8, 3, 1),
            )

        def forward(self, x):
            z = self.mix(self.body(x).flatten(2).transpose(1, 2))
            return self.head(z.transpose(1, 2).unflatten(2, x.shape[-2:]))

    torch.manual_seed(0)
    model, x = Tokens().double(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    asked = {"layers": ["body", "mix", "head"], "example": x}
    found = layer_errors(model, x, C4, **asked)
    assert list(found) == asked["layers"]
    reg = EquivarianceRegularizer(model, C4, **asked)
    per_layer = [reg(x, g=g).per_layer for g in (1, 2, 3)]
    for name, error in found.items():
        assert error == pytest.approx(sum(float(p[name].detach()) for p in per_layer) / 3)
    tie(model, x, C4).project_(model)
    assert max(layer_errors(model, x, C4, **asked).values()) < 1e-20 < min(found.values())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda net, x: check(net, x, "C4"), TypeError, "group must be a Group such as C4"),
        (lambda net, x: tie(net, x, "C4"), TypeError, "group must be a Group such as C4"),
        (lambda net, x: check(net, x, C4, sizes="all"), TypeError, "whole numbers or 'search', got 'all'"),
        (lambda net, x: check(net, x, C4, sizes=9), TypeError, "whole numbers or 'search', got 9"),
        (lambda net, x: check(net, x, C4, sizes=[0]), ValueError, "sizes"),
        (
            lambda net, x: check(net, x[0], C4, turn=[True], sizes="search"), ValueError,
            r"resizes images \(B, C, H, W\), got \(1, 8, 8\)",
        ),
        (
            lambda net, x: EquivarianceRegularizer(net, C4, fields="0"), TypeError,
            "fields: expected types by layer name",
        ),
    ],
)  # fmt: skip
def test_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call(nn.Conv2d(1, 4, 3, padding=1), torch.rand(1, 1, 8, 8))
