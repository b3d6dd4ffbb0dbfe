"""The camera that loses pixels and counts photons, and the photographs of the papers."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from eqreg import rotate
from eqreg.data.rain import PairFolder
from eqreg.data.urban import Urban100
from eqreg.physics.inpainting import deepinv_operator, measure, random_mask
from eqreg.tasks import get_task
from eqreg.tasks.inpainting import Measurements, rei_psnr


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# ---- masks


@pytest.mark.parametrize("keep", [0.3, 0.7])
@pytest.mark.parametrize("hole", [1, 4, (1, 8)])
def test_mask_keeps_its_share(keep, hole):
    m = random_mask((8, 64, 64), keep, hole=hole, generator=seeded(0))
    area = hole**2 if isinstance(hole, int) else hole[0] * hole[1]
    cells = m.numel() / area
    assert m.shape == (8, 1, 64, 64) and set(m.unique().tolist()) == {0.0, 1.0}
    # Five standard deviations of the mean of independent cells.
    assert abs(float(m.mean()) - keep) < 5 * (keep * (1 - keep) / cells) ** 0.5


def test_pixels_are_lost_independently():
    m = random_mask((1, 256, 256), 0.7, generator=seeded(0))[0, 0] - 0.7
    for shift in ((0, 1), (1, 0), (1, 1)):
        assert abs(float((m * m.roll(shift, (0, 1))).mean())) < 5 * 0.21 / 256


def test_holes_are_cells():
    m = random_mask((1, 9, 10), 0.5, hole=(3, 4), generator=seeded(1))[0, 0]
    for top in range(0, 9, 3):
        for left in range(0, 10, 4):
            assert len(m[top : top + 3, left : left + 4].unique()) == 1


def test_masks_are_seeded():
    a, b, c = (random_mask((1, 16, 16), generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3), {}, r"three positive integers \(B, H, W\), got \(2, 3\)"),
        ((1, 0, 4), {}, "three positive integers"),
        ((1, 4, 4), {"keep": 0.0}, r"keep must lie in \(0, 1\], got 0.0"),
        ((1, 4, 4), {"keep": 1.2}, "got 1.2"),
        ((1, 4, 4), {"hole": 0}, "two positive integers .height, width., got .0, 0."),
        ((1, 4, 4), {"hole": (1, 2, 3)}, "two positive integers .height, width., got"),
    ],
)
def test_bad_masks(shape, options, message):
    with pytest.raises(ValueError, match=message):
        random_mask(shape, **options)


# ---- the camera


@pytest.mark.parametrize("gamma", [0.01, 0.05, 0.1])
def test_mean_and_variance(gamma):
    y = torch.tensor([0.0, 0.2, 0.9]).reshape(1, 1, 1, 3).expand(40_000, 1, 1, 3)
    x = measure(y, torch.ones(1, 3), gamma, generator=seeded(0))
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    assert torch.allclose(mean, y[0, 0, 0], atol=5 * (gamma * 0.9 / 40_000) ** 0.5)
    assert torch.allclose(variance, gamma * y[0, 0, 0], rtol=0.05, atol=1e-9)


def test_photons_are_counted():
    y = torch.rand(2, 3, 8, 8, generator=seeded(0))
    x = measure(y, random_mask((2, 8, 8), generator=seeded(1)), 0.05, generator=seeded(2))
    counts = x / 0.05
    assert torch.allclose(counts, counts.round(), atol=1e-4)


def test_lost_pixels_read_zero_and_dark_ones_may():
    mask = random_mask((1, 64, 64), generator=seeded(0))
    x = measure(torch.full((1, 1, 64, 64), 0.05), mask, 0.05, generator=seeded(1))
    assert not x[mask == 0].any()
    # One photon expected: none comes with probability 1/e.
    dark = float((x[mask == 1] == 0).float().mean())
    assert abs(dark - np.exp(-1)) < 5 * (0.23 / float(mask.sum())) ** 0.5
    assert not measure(torch.zeros(1, 1, 4, 4), torch.ones(4, 4), 0.05).any()


def test_saturation_cuts():
    y = torch.ones(1, 1, 32, 32)
    free = measure(y, torch.ones(32, 32), 0.05, generator=seeded(0))
    cut = measure(y, torch.ones(32, 32), 0.05, saturation=1.0, generator=seeded(0))
    assert free.max() > 1 and torch.equal(cut, free.clamp(max=1))
    assert cut.mean() < 0.95  # the price: the mean is no longer y


def test_same_seed_same_picture():
    y, mask = torch.rand(1, 1, 16, 16), torch.ones(16, 16)
    a, b, c = (measure(y, mask, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (2, 1, 8, 8), (2, 3, 8, 8)])
def test_mask_shapes(shape):
    y, mask = torch.rand(2, 3, 8, 8), torch.ones(shape)
    mask[..., :4] = 0
    assert not measure(y, mask, generator=seeded(0))[..., :4].any()


def test_no_gradient_through_photons():
    y = torch.rand(1, 1, 4, 4, requires_grad=True)
    assert not measure(y, torch.ones(4, 4)).requires_grad


@pytest.mark.parametrize("gamma", [0.02, 0.1])
def test_agrees_with_deepinv(gamma):
    y = torch.rand(2, 3, 12, 12, generator=seeded(0))
    mask = random_mask((2, 12, 12), generator=seeded(1))
    operator = deepinv_operator(mask, gamma, 3, generator=seeded(2))
    assert torch.equal(operator.A(y), mask * y)
    assert torch.allclose(operator(y), measure(y, mask, gamma, generator=seeded(2)), atol=1e-6)
    assert (operator(-y) == 0).all()  # negative restorations send no photons


IMAGE = torch.rand(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("y", "mask", "options", "error", "message"),
    [
        (
            (IMAGE * 255).byte(),
            torch.ones(4, 4),
            {},
            TypeError,
            "uint8; divide 8-bit images by 255",
        ),
        (IMAGE[0], torch.ones(4, 4), {}, ValueError, r"\(B, C, H, W\), got shape \(1, 4, 4\)"),
        (IMAGE - 1, torch.ones(4, 4), {}, ValueError, "values of at least 0, got -"),
        (IMAGE / 0 * 0, torch.ones(4, 4), {}, ValueError, "NaN or Inf"),
        (IMAGE, torch.ones(4, 5), {}, ValueError, r"\(4, 5\) does not fit images \(1, 1, 4, 4\)"),
        (IMAGE, torch.ones(2, 1, 4, 4), {}, ValueError, "does not fit"),
        (IMAGE, torch.full((4, 4), 0.5), {}, ValueError, "zeros and ones"),
        (IMAGE, torch.zeros(4, 4), {}, ValueError, "keeps no pixel"),
        (IMAGE, torch.ones(4, 4), {"gamma": 0.0}, ValueError, "gamma must be positive.*got 0.0"),
        (IMAGE, torch.ones(4, 4), {"gamma": -0.1}, ValueError, "gamma must be positive"),
        (IMAGE, torch.ones(4, 4), {"gamma": float("nan")}, ValueError, "gamma must be positive"),
        (IMAGE, torch.ones(4, 4), {"saturation": 0.0}, ValueError, "saturation must be positive"),
    ],
)
def test_bad_pictures(y, mask, options, error, message):
    with pytest.raises(error, match=message):
        measure(y, mask, **options)


# ---- measurements for training, and the metric


def test_measurements_are_taken_once():
    y, mask = torch.rand(2, 1, 8, 8), random_mask((1, 8, 8), generator=seeded(0))
    sample = Measurements(y, mask, 0.05, crop=8, batch=3, generator=seeded(1))
    x1, (y1, m1) = sample(seeded(2))
    x2, _ = sample(seeded(2))
    assert x1.shape == y1.shape == m1.shape == (3, 1, 8, 8)
    assert torch.equal(x1, x2) and torch.equal(m1, mask.expand(3, -1, -1, -1))
    assert not x1[m1 == 0].any()
    fresh = Measurements(y, mask, 0.05, crop=8, batch=3, fresh=True, generator=seeded(1))
    g = seeded(2)
    assert not torch.equal(fresh(g)[0], fresh(g)[0])


def test_rei_psnr_by_hand():
    clean = torch.zeros(1, 3, 2, 2)
    clean[0, 0, 0, 0] = 0.5
    # Peak 0.5; error 0.01 in each of 3 colours, summed over colours: 0.03.
    expected = 10 * np.log10(0.25 / 0.03)
    assert float(rei_psnr(clean + 0.1, clean)) == pytest.approx(expected, abs=1e-4)


def test_self_supervised_rows_never_see_the_clean_image():
    task = get_task("inpainting")
    preset = task.preset("quick")
    model = task.model(preset)
    x, (y, mask) = task.batches(preset, 0, 2, None, torch.device("cpu"))(seeded(0))
    for name in ("sure", "rei"):
        objective = task.objective(name, preset)
        values = [
            objective(model, model(x), x, (label, mask), seeded(1)) for label in (y, y * 0 + 7)
        ]
        assert torch.equal(*values)
    with pytest.raises(ValueError, match="no objective 'other'"):
        task.objective("other", preset)


def test_evaluation_states_the_law_of_the_ensemble():
    task = get_task("inpainting")
    preset = task.preset("quick")
    torch.manual_seed(0)
    found = task.evaluate(task.model(preset).eval(), preset, "test", None)
    assert np.allclose(found["ensemble_gain_mse"], found["half_difference_mse"], rtol=1e-3)
    assert set(task.evaluate(task.model(preset).eval(), preset, "val", None)) == {"psnr"}


# ---- Urban100


@pytest.fixture
def folder(tmp_path):
    """Eighteen images of side 16 in the published layout, their red value the number."""
    train, test = tmp_path / "train" / "train", tmp_path / "test" / "test"
    for place, numbers in ((train, range(18)), (test, range(90, 92))):
        place.mkdir(parents=True)
        for i in numbers:
            Image.new("RGB", (16, 16), (i, 0, 0)).save(place / f"img_{i:03}.png")
    np.savez(tmp_path / "rei_mask_random0.3.npz", mask=np.eye(16, dtype=np.uint8))
    return tmp_path


def test_parts_do_not_overlap(folder):
    parts = {p: Urban100(p, folder, size=16).names for p in ("train", "val", "all", "test")}
    assert parts["val"] == ["img_004", "img_013"]
    assert sorted(parts["train"] + parts["val"]) == parts["all"] and len(parts["all"]) == 18
    assert parts["test"] == ["img_090", "img_091"]


def test_images_and_mask(folder):
    images = Urban100("all", folder, size=16)
    assert images.stacked().shape == (18, 3, 16, 16)
    assert float(images[7][0, 0, 0]) == pytest.approx(7 / 255)
    assert torch.equal(images.mask(), torch.eye(16))
    assert "18 images" in repr(images)
    with pytest.raises(ValueError, match=r"\(16, 16\), expected \(8, 8\)"):
        Urban100("all", folder, size=8).mask()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_that_unpack_to_far_more_are_refused(folder, monkeypatch):
    """Pillow's error is no OSError; of such images it warns from MAX_IMAGE_PIXELS on, and stops at twice that."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"could not decode .*img_000.png: .*decompression bomb"):
        Urban100("all", folder, size=16)[0]
    pair = {"rainy": "*_0.png", "clean": "*_1.png"}
    for name in ("a_0.png", "a_1.png"):
        Image.new("L", (16, 16)).save(folder / name)
    with pytest.raises(ValueError, match=r"could not decode .*a_0.png: .*decompression bomb"):
        PairFolder(folder, **pair)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive", None])
def test_masks_that_cannot_be_read_are_named(folder, content):
    path = folder / "rei_mask_random0.3.npz"
    if content is None:
        np.savez(path, other=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"expected an array `mask` in .*rei_mask_random0.3.npz"):
        Urban100("all", folder, size=16).mask()


def test_originals_are_cut_and_reduced(tmp_path):
    pixels = np.zeros((520, 640, 3), np.uint8)
    pixels[4:516, 64:576] = 200  # the central 512 x 512
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = Urban100("all", tmp_path)[0]
    assert image.shape == (3, 256, 256)
    assert torch.allclose(image, torch.tensor(200 / 255), atol=1e-4)


def test_missing_data_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("EQREG_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="give root=, or set EQREG_DATA"):
        Urban100()
    with pytest.raises(FileNotFoundError, match="found no folder"):
        Urban100(root=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"expected images \(.png"):
        Urban100(root=tmp_path)
    with pytest.raises(ValueError, match="part must be one of train, val, all, test, got 'x'"):
        Urban100("x", tmp_path)
    Image.new("RGB", (20, 20)).save(tmp_path / "small.png")
    (tmp_path / "torn.png").write_bytes(b"no image")
    images = Urban100("all", tmp_path)
    with pytest.raises(ValueError, match="20x20 pixels; expected 256x256, or at least 512"):
        images[0]
    with pytest.raises(ValueError, match="could not decode .*torn.png"):
        images[1]
    with pytest.raises(FileNotFoundError, match="expected the mask in"):
        images.mask()


@pytest.mark.skipif(not os.environ.get("EQREG_DATA"), reason="needs EQREG_DATA")
def test_published_images():
    train, val = Urban100("train"), Urban100("val")
    assert (len(train), len(val)) == (80, 10)
    assert train[0].shape == (3, 256, 256)
    # 30 % lost, within five standard deviations of a Bernoulli mask.
    assert abs(float(train.mask().mean()) - 0.7) < 5 * (0.21 / 256**2) ** 0.5


def test_law_of_the_camera_turns_with_the_picture():
    """Same counts in another order: a turned scene through a turned mask."""
    y = torch.rand(1, 1, 8, 8, generator=seeded(0))
    mask = random_mask((1, 8, 8), generator=seeded(1))
    x = torch.stack([measure(y, mask, generator=seeded(s)) for s in range(300)]).mean(0)
    y_g, mask_g = rotate(y, 1), rotate(mask, 1)
    x_g = torch.stack([measure(y_g, mask_g, generator=seeded(s)) for s in range(300, 600)]).mean(0)
    assert torch.allclose(rotate(x, 1), x_g, atol=5 * (2 * 0.05 / 300) ** 0.5)
