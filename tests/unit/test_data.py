"""Bundled photographs and the loader of rain pairs."""

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqreg import psnr, ssim
from eqreg.data import PHOTOGRAPHS, Rain100, images, patches, photographs

REAL = Path(
    os.environ.get("EQREG_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
).resolve()
needs_real = pytest.mark.skipif(
    not (REAL / "Rain100L").is_dir(), reason="set EQREG_DATA to a folder that holds Rain100L"
)


# ---- photographs


def test_no_photograph_is_in_two_parts():
    for a, b in combinations(PHOTOGRAPHS.values(), 2):
        assert not set(a) & set(b) and not set(a.values()) & set(b.values())


@pytest.mark.parametrize("split", PHOTOGRAPHS)
def test_photographs_are_real_and_in_range(split):
    pictures = photographs(split)
    assert list(pictures) == list(PHOTOGRAPHS[split]) == sorted(pictures)
    for name, picture in pictures.items():
        assert picture.shape[0] == 1 and min(picture.shape[1:]) >= 300, name
        assert picture.dtype == torch.float32
        assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.05, name


def test_colour_and_grey():
    colour, grey = photographs("train", color=True), photographs("train")
    assert colour["coffee"].shape == (3, 400, 600)
    weights = torch.tensor([0.299, 0.587, 0.114])
    luma = (colour["coffee"] * weights[:, None, None]).sum(0)
    assert torch.allclose(grey["coffee"][0], luma, atol=1e-6)
    assert torch.equal(colour["camera"][1], grey["camera"][0])


def test_size_cuts_the_central_square():
    small = photographs("test", size=64)
    assert all(picture.shape == (1, 64, 64) for picture in small.values())
    chelsea = photographs("val")["chelsea"]  # 300 x 451
    assert torch.allclose(photographs("val", size=300)["chelsea"], chelsea[..., 75:375], atol=1e-6)


def test_photographs_say_what_they_expect(monkeypatch):
    with pytest.raises(ValueError, match=r"one of \['test', 'train', 'val'\], got 'dev'"):
        photographs("dev")
    for size in (0, 301):
        with pytest.raises(ValueError, match=rf"in \[1, 300\] for chelsea .*, got {size}"):
            photographs("val", size=size)
    monkeypatch.setitem(images.PHOTOGRAPHS, "val", {"absent": "absent.png"})
    with pytest.raises(FileNotFoundError, match="expected absent.png inside the installed skimage"):
        photographs("val")


def test_patches_come_from_their_photographs():
    pictures = {"dark": torch.zeros(1, 20, 30), "bright": torch.ones(1, 30, 20)}
    cut = patches(pictures, 16, 5, generator=torch.Generator().manual_seed(0))
    assert cut.shape == (5, 1, 16, 16)
    assert cut.mean((1, 2, 3)).tolist() == [0, 1, 0, 1, 0]
    ramp = {"ramp": torch.arange(400.0).reshape(1, 20, 20)}
    a, b, c = (patches(ramp, 8, 3, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(patches(ramp, 20, 1)[0], ramp["ramp"])


def test_patches_say_what_they_expect():
    picture = {"tiny": torch.zeros(1, 8, 8)}
    with pytest.raises(ValueError, match="at least one image"):
        patches({}, 4, 1)
    with pytest.raises(ValueError, match="n=0, size=4"):
        patches(picture, 4, 0)
    with pytest.raises(ValueError, match="n=1, size=0"):
        patches(picture, 0, 1)
    with pytest.raises(ValueError, match=r"tiny of shape \(1, 8, 8\) is smaller than .* side 9"):
        patches(picture, 9, 1)


# ---- rain pairs


def write(path, size=(12, 10), value=100, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    Image.fromarray(np.full(shape, value, np.uint8), mode).save(path)


@pytest.fixture(params=["rainy/rain", "rain"], ids=["Rain100L", "Rain100H"])
def pairs(request, tmp_path):
    """Two pairs in one of the two published layouts: clean 100, rainy 110 and 130."""
    for number, value in (("002", 110), ("010", 130)):
        write(tmp_path / f"norain-{number}.png")
        write(tmp_path / f"{request.param}-{number}.png", value=value)
    (tmp_path / "PROVENANCE.txt").write_text("other files do not matter")
    return tmp_path


def test_pairs_are_found_in_order(pairs):
    folder = Rain100(pairs)
    assert len(folder) == 2 and repr(folder).endswith("2 pairs")
    assert [pair.name for pair in folder] == ["002", "010"]
    rainy, clean, _ = folder[1]
    assert rainy.shape == clean.shape == (3, 10, 12) and rainy.dtype == torch.float32
    assert torch.allclose(rainy, torch.tensor(130 / 255))
    assert torch.allclose(clean, torch.tensor(100 / 255))
    with pytest.raises(IndexError):
        folder[2]


def test_numbers_sort_as_numbers(tmp_path):
    for number in (2, 10, 1):
        write(tmp_path / f"norain-{number}.png")
        write(tmp_path / f"rain-{number}.png")
    assert [pair.name for pair in Rain100(tmp_path)] == ["1", "2", "10"]


def test_grey_and_alpha_become_rgb(pairs):
    write(pairs / "norain-010.png", mode="L")
    write(pairs / "norain-002.png", mode="RGBA")
    assert all(pair.clean.shape == (3, 10, 12) for pair in Rain100(pairs))


def test_root_from_the_environment(pairs, monkeypatch):
    monkeypatch.setenv("EQREG_DATA", str(pairs.parent))
    assert len(Rain100(name=pairs.name)) == 2
    monkeypatch.delenv("EQREG_DATA")
    with pytest.raises(FileNotFoundError, match="set EQREG_DATA to the folder that holds Rain100L"):
        Rain100()


def test_a_missing_partner_is_named_at_once(pairs):
    next(pairs.rglob("rain-010.png")).unlink()
    with pytest.raises(FileNotFoundError, match=r"norain-010.png has no rainy partner; expected"):
        Rain100(pairs)


def test_a_truncated_file_is_named(pairs):
    path = pairs / "norain-002.png"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"could not decode .*norain-002.png"):
        Rain100(pairs)[0]
    path.write_text("not a picture")
    with pytest.raises(ValueError, match=r"could not decode .*norain-002.png"):
        Rain100(pairs)[0]


def test_different_sizes_are_named(pairs):
    write(pairs / "norain-010.png", size=(8, 10))
    folder = Rain100(pairs)
    folder[0]
    with pytest.raises(ValueError, match=r"got 12x10 in .*rain-010.png and 8x10 in .*norain-010"):
        folder[1]


def test_wrong_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no folder .*nowhere"):
        Rain100(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="expected norain-NNN.png in .*, found nothing"):
        Rain100(tmp_path)
    write(tmp_path / "photo.png")
    with pytest.raises(FileNotFoundError, match="found photo.png"):
        Rain100(tmp_path)


@needs_real
def test_mean_input_quality_of_the_real_pairs():
    folder = Rain100(REAL / "Rain100L")
    if len(folder) == 100:
        expected = 26.90  # dB, the value of the deraining papers
    else:
        assert len(folder) == 50
        expected = 26.418  # dB, odd-numbered half of the set
    quality = [psnr(p.rainy[None], p.clean[None], channel="y") for p in folder]
    assert float(torch.cat(quality).mean()) == pytest.approx(expected, abs=0.005)


@needs_real
def test_ssim_of_real_pairs():
    folder = Rain100(REAL / "Rain100L")
    first = [folder[i] for i in range(5)]
    values = [ssim(p.rainy[None], p.clean[None], channel="y") for p in first]
    assert 0.6 < float(torch.cat(values).mean()) < 0.95


@needs_real
def test_the_other_real_layout():
    assert [pair.name for pair in Rain100(REAL / "Rain100H_train_sample")][:2] == ["2", "3"]
