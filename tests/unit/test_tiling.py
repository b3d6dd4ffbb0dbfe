"""Tiles: equal to the whole image under the condition stated, and only then."""

import pytest
import torch
from torch import nn

from eqreg import C4, rotate
from eqreg.models import ResidualNet
from eqreg.models.dicdnet import DICDNet
from eqreg.models.rcdnet import RCDNet
from eqreg.physics.tiling import needed_overlap, needed_period, tiled

X = torch.rand(2, 3, 61, 83, generator=torch.Generator().manual_seed(0))


def network(strict=None):
    torch.manual_seed(0)
    return ResidualNet(channels=3, width=8, depth=4, strict=strict)


@pytest.mark.parametrize("strict", [None, C4], ids=["plain", "strict"])
@pytest.mark.parametrize(
    ("tile", "batch"), [(16, 1), (23, 4), (40, 100), (61, 2), (83, 1), (500, 1)]
)
def test_tiles_give_the_whole_image(strict, tile, batch):
    model = network(strict)
    with torch.no_grad():
        whole = model(X)
    found = tiled(model, X, tile, needed_overlap(model), batch=batch)
    assert torch.allclose(found, whole, atol=1e-6), "also along the borders"


def test_too_little_overlap_shows():
    model = network()
    with torch.no_grad():
        whole = model(X)
    assert needed_overlap(model) == 8  # four layers of 3 x 3
    errors = [float((tiled(model, X, 20, o) - whole).abs().max()) for o in (0, 4, 6, 7, 8, 9)]
    assert min(errors[:4]) > 1e-4 and max(errors[4:]) < 1e-6
    # Seams are where tiles meet: elsewhere nothing changes.
    off = (tiled(model, X[..., :40, :40], 20, 0) - model(X[..., :40, :40])).abs().amax((0, 1))
    assert off[:16, :16].max() < 1e-6 and off[:16, 16:24].max() > 1e-4


@pytest.mark.parametrize("side", [1, 2, 7, 31, 32, 33])
def test_every_size_is_covered_once(side):
    x = torch.arange(float(side * 32)).reshape(1, 1, side, 32)
    for tile in range(2, 35):
        for overlap in {0, 1, tile // 2, tile - 1}:
            assert torch.equal(tiled(lambda t: 2 * t, x, tile, overlap, batch=64), 2 * x)


def test_several_inputs_and_other_channels():
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(1, 5, 5, padding=2)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, image, mask):
            return self.first(image) * self.second(mask)

    model, mask = Two(), X[:, :1] > 0.5
    assert needed_overlap(model, (3, 1)) == 4
    with torch.no_grad():
        whole = model(X, mask.float())
    assert whole.shape == (2, 5, 61, 83)
    assert torch.allclose(tiled(model, (X, mask.float()), 20, 4), whole, atol=1e-6)


@pytest.mark.parametrize("strict", [None, C4], ids=["plain", "strict"])
def test_unfolded_networks_in_tiles(strict):
    torch.manual_seed(0)
    rain = RCDNet(2, 4, 4, 1, dictionary_size=5, strict=strict)
    # Radius: 2 for the blur at the start; a stage compares, refines, draws, lifts, refines and reads.
    assert needed_overlap(rain) == 2 * (2 + 2 * (2 + 2 + 2 + 1 + 2 + 1))
    o = torch.rand(1, 3, 90, 121, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = rain(o)
    assert torch.allclose(tiled(rain, o, 64, 44), whole, atol=1e-5), "also along the borders"
    seams = (tiled(rain, o, 64, 8) - whole).abs().amax((0, 1))
    assert seams.max() > 1e-4
    metal = DICDNet(2, 4, 4, 1, dictionary_size=5, strict=strict)
    overlap = needed_overlap(metal, (1, 1, 1))
    ma, li, mask = o.split(1, 1)
    with torch.no_grad():
        whole = metal(ma, li, mask)
    assert torch.allclose(tiled(metal, (ma, li, mask), 64, overlap), whole, atol=1e-5)


def test_tiles_of_a_strict_network_keep_the_law():
    model = network(C4)
    a = tiled(model, rotate(X, 1), 20, 8)
    assert torch.allclose(a, rotate(tiled(model, X, 20, 8), 1), atol=1e-5)


def test_the_model_sees_no_more_than_a_tile_and_a_batch():
    seen = []

    def model(t):
        seen.append(tuple(t.shape))
        return t

    tiled(model, X[:1], 32, 8, batch=4)
    # 61 = 32 + 24 + 5: three rows; 83 = 32 + 2 * 24 + 3: four columns.
    assert seen == 3 * [(4, 3, 32, 32)]


def test_type_and_gradient():
    model = network().double()
    out = tiled(model, X.double(), 30, 8)
    assert out.dtype == torch.float64 and not out.requires_grad


@pytest.mark.parametrize(
    ("layer", "overlap"),
    [
        (nn.Conv2d(3, 3, 1), 0),
        (nn.Conv2d(3, 3, 5, padding=4, dilation=2), 8),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, (1, 7), padding=(0, 3))), 8),
        (nn.MaxPool2d(3, 1, 1), 2),
        (nn.Conv2d(3, 3, 63, padding=31, groups=3), 62),
    ],
)  # fmt: skip
def test_overlaps_by_hand(layer, overlap):
    assert needed_overlap(layer) == overlap
    for p in layer.parameters():  # whatever the weights are
        nn.init.constant_(p, -1.0)
    assert needed_overlap(layer) == overlap


def test_a_network_that_sees_everything_is_refused():
    class Mean(nn.Module):
        def forward(self, x):
            return x - x.mean((2, 3), keepdim=True)

    with pytest.raises(ValueError, match="256 pixels away or more, perhaps on all: no overlap"):
        needed_overlap(Mean(), 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tiled(nn.Identity(), X[0]), ValueError, r"images \(B, C, H, W\), got .*\(3, 61, 83\)"),
        (lambda: tiled(nn.Identity(), X[:0]), ValueError, r"got shapes \[\(0, 3, 61, 83\)\]"),
        (lambda: tiled(nn.Identity(), ()), ValueError, r"got shapes \[\]"),
        (lambda: tiled(nn.Identity(), (X, X[..., 1:])), ValueError, "inputs of one B, H and W, got"),
        (lambda: tiled(nn.Identity(), X, 8, 8), ValueError, "overlap=8, tile=8, batch=1"),
        (lambda: tiled(nn.Identity(), X, 8, -1), ValueError, "overlap=-1, tile=8, batch=1"),
        (lambda: tiled(nn.Identity(), X, 8, 1, batch=0), ValueError, "batch=0"),
        (lambda: tiled(nn.Identity(), X, 9, 1, period=2), ValueError, "period=2, tile=9, overlap=1"),
        (lambda: tiled(nn.Identity(), X, 8, 6, period=4), ValueError, "period=4, tile=8, overlap=6"),
        (lambda: tiled(lambda t: (t,), X), TypeError, "returns one tensor, got tuple"),
        (
            lambda: tiled(nn.AvgPool2d(2), X, 16, 4),
            ValueError,
            r"keeps the size, got \(2, 3, 8, 8\) for tiles of \(2, 3, 16, 16\)",
        ),
        (lambda: needed_overlap(nn.Conv2d(3, 3, 3)), ValueError, r"keeps the size, got .*62, 62\)"),
    ],
)  # fmt: skip
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Windows(nn.Module):
    """Attention in windows of 8, then in windows shifted by 4, on images padded to whole windows, as SwinIR."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lift, self.drop = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 3, padding=1)
        self.mix = nn.Linear(64, 64)

    def windows(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 8, 8, w // 8, 8).transpose(3, 4).reshape(b, c, h // 8, w // 8, 64)
        x = torch.tanh(self.mix(x)).reshape(b, c, h // 8, w // 8, 8, 8).transpose(3, 4)
        return x.reshape(b, c, h, w)

    def forward(self, x):
        h, w = x.shape[-2:]
        x = nn.functional.pad(x, (0, -w % 8, 0, -h % 8), mode="reflect")
        z = self.windows(self.lift(x))
        inner = self.windows(z[..., 4:-4, 4:-4])  # the frame of 4 pixels keeps its values
        z = nn.functional.pad(inner, (4, 4, 4, 4)) + z
        return self.drop(z)[..., :h, :w]


def test_windows_need_tiles_on_their_grid():
    model, x = Windows(), torch.rand(1, 3, 150, 173, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = model(x)
    with pytest.warns(
        UserWarning, match=r"only if they lie 8 pixels apart: give tiled\(.*period=8"
    ):
        overlap = needed_overlap(model)
    assert needed_period(model) == 8
    for tile in (48, 64, 72, 104):
        found = tiled(model, x, tile, overlap, period=8, batch=3)
        assert torch.allclose(found, whole, atol=1e-5), (
            "also along the borders, and in the last tiles"
        )
    # 60 is what goes wrong without a period, and so does a last tile off the grid.
    assert (tiled(model, x, 60, overlap) - whole).abs().max() > 1e-2
    assert (tiled(model, x, 64, overlap) - whole).abs().max() > 1e-2


def test_strides_need_tiles_on_their_grid():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 4, 4), nn.Conv2d(8, 3, 3, padding=1),
    )  # fmt: skip
    assert needed_period(model) == 4
    with pytest.warns(UserWarning, match="4 pixels apart"):
        overlap = needed_overlap(model)
    x = torch.rand(1, 3, 132, 100)
    with torch.no_grad():
        whole = model(x)
    assert torch.allclose(tiled(model, x, 48, overlap, period=4), whole, atol=1e-6)
    assert (tiled(model, x, 48, overlap + 1) - whole).abs().max() > 1e-3


def test_a_model_that_knows_positions_has_no_period():
    class Positions(nn.Module):
        def forward(self, x):
            return x + torch.arange(x.shape[-1]) ** 2 / 100

    with pytest.raises(ValueError, match="places alike at no distance up to 64"):
        needed_period(Positions(), 1)
