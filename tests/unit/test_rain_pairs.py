"""Folders of rain pairs and of backgrounds: what is found, and what is said when it is not."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqreg import psnr, ssim
from eqreg.data import Rain100
from eqreg.data.bsds import BSDS500
from eqreg.data.rain import PairFolder

REAL = Path(
    os.environ.get("EQREG_DATA") or Path(__file__).parents[2].parent / "shared" / "data"
).resolve()
needs_real = pytest.mark.skipif(
    not (REAL / "Rain100L").is_dir(), reason="set EQREG_DATA to a folder that holds Rain100L"
)


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
    with Image.open(pairs / "norain-002.png") as picture:
        picture.putalpha(255)
        picture.save(pairs / "norain-002.png")
    assert all(pair.clean.shape == (3, 10, 12) for pair in Rain100(pairs))


def test_root_from_the_environment(pairs, monkeypatch):
    monkeypatch.setenv("EQREG_DATA", str(pairs.parent))
    assert len(Rain100(name=pairs.name)) == 2
    monkeypatch.delenv("EQREG_DATA")
    with pytest.raises(FileNotFoundError, match="set EQREG_DATA to the folder that holds Rain100L"):
        Rain100()


def test_a_missing_partner_is_named_at_once(pairs):
    for path in list(pairs.rglob("rain-0*.png")):
        path.unlink()
        with pytest.raises(
            FileNotFoundError, match=r"norain-0\d\d.png has no rainy partner; expected"
        ):
            Rain100(pairs)
        write(path)
    (pairs / "norain-010.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"rain-010.png has no clean partner; .*/norain-010"
    ):
        Rain100(pairs)


def test_the_number_of_missing_partners_is_told(tmp_path):
    for number in range(4):
        write(tmp_path / f"norain-{number}.png")
    write(tmp_path / "rain-1.png")
    with pytest.raises(FileNotFoundError, match=r"expected .*/rain-0.png \(3 lack theirs\)"):
        Rain100(tmp_path)


@pytest.mark.parametrize("bytes_left", [0, 50, 70])
def test_a_truncated_file_is_named_at_once(pairs, bytes_left):
    path = pairs / "norain-002.png"
    path.write_bytes(path.read_bytes()[:bytes_left])
    with pytest.raises(ValueError, match=r"could not decode .*norain-002.png"):
        Rain100(pairs)


def test_a_foreign_file_is_named_at_once(pairs):
    (pairs / "norain-002.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"could not decode .*norain-002.png"):
        Rain100(pairs)


def test_damaged_pixels_are_named_when_they_are_read(pairs):
    path = pairs / "norain-002.png"
    whole = path.read_bytes()
    folder = Rain100(pairs)
    path.write_bytes(whole[:45] + bytes(8) + whole[53:])  # the header and the end are as they were
    Rain100(pairs)
    with pytest.raises(ValueError, match=r"could not decode .*norain-002.png"):
        folder[0]


def test_different_sizes_are_named(pairs):
    write(pairs / "norain-010.png", size=(8, 10))
    with pytest.raises(ValueError, match=r"got 12x10 in .*rain-010.png and 8x10 in .*norain-010"):
        Rain100(pairs)


def test_wrong_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no folder .*nowhere"):
        Rain100(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"expected norain-\*.png in .*, found nothing"):
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


# ---- other layouts of pairs


@pytest.mark.parametrize(
    ("rainy", "clean"),
    [
        ("input/*.png", "target/*.png"),
        ("*_rain.png", "*_clean.jpg"),
        ("a/x*.png", "b/y*.png"),
        ("deep/er/*.png", "*.png"),
    ],
)
def test_pairs_by_patterns(tmp_path, rainy, clean):
    for name, value in (("10", 30), ("9", 60), ("tree", 90)):
        write(tmp_path / rainy.replace("*", name), value=value)
        write(tmp_path / clean.replace("*", name), value=value)
    folder = PairFolder(tmp_path, rainy=rainy, clean=clean)
    assert folder.names == ["9", "10", "tree"]
    assert [round(float(p.rainy.mean()) * 255) for p in folder] == [60, 30, 90]
    assert repr(folder).startswith("PairFolder(")


def test_patterns_take_no_other_file(tmp_path):
    for name in ("rain-1.png", "norain-1.png", "xrain-1.png", "rain-1.png.bak", "rain-1xpng"):
        write(tmp_path / "some.png")
        (tmp_path / "some.png").rename(tmp_path / name)
    assert PairFolder(tmp_path, rainy="rain-*.png", clean="norain-*.png").names == ["1"]


@pytest.mark.parametrize("pattern", ["rain.png", "*/*.png", "**.png", "*/rain.png"])
def test_a_pattern_has_one_star(tmp_path, pattern):
    with pytest.raises(ValueError, match=r"exactly one \*, in the file's name, got"):
        PairFolder(tmp_path, rainy="r*.png", clean=pattern)


# ---- backgrounds


@pytest.fixture(params=[".", "data/images/test", "images/test"])
def photos(request, tmp_path):
    for number in range(25):
        write(tmp_path / request.param / f"{100 + number}.jpg", value=number)
    (tmp_path / request.param / "PROVENANCE.txt").write_text("")
    return tmp_path


def test_the_last_twenty_backgrounds_are_for_validation(photos, monkeypatch):
    parts = {part: BSDS500(part, photos) for part in ("train", "val", "all")}
    assert parts["train"].names == ["100", "101", "102", "103", "104"]
    assert parts["train"].names + parts["val"].names == parts["all"].names
    assert [len(part) for part in parts.values()] == [5, 20, 25]
    assert parts["val"][0].shape == (3, 10, 12) and repr(parts["val"]).endswith("20 images")
    assert [round(float(x.mean()) * 255) for x in parts["train"]] == [0, 1, 2, 3, 4]
    (photos.parent / "BSDS500").symlink_to(photos)
    monkeypatch.setenv("EQREG_DATA", str(photos.parent))
    assert len(BSDS500()) == 5
    (photos.parent / "BSDS500").unlink()


def test_backgrounds_of_the_test_set_are_left_out(photos):
    place = next(photos.rglob("100.jpg")).parent
    listed = place / "bsds_overlap.csv"
    listed.write_text("split,bsds_file\ntrain,101.jpg\nval,104.jpg\ntrain,9.jpg\n")
    assert BSDS500("all", photos).names[:4] == ["100", "102", "103", "105"]
    listed.write_text("name\n101.jpg\n")
    with pytest.raises(ValueError, match="expected a column bsds_file in .*bsds_overlap.csv"):
        BSDS500("all", photos)


def test_only_the_test_part_of_the_published_folder_is_taken(photos):
    write(photos / "data/images/train/7.jpg")
    write(photos / "images/train/8.jpg")
    assert len(BSDS500("all", photos)) == 25


def test_backgrounds_say_what_they_expect(photos, tmp_path_factory):
    with pytest.raises(ValueError, match="one of train, val, all, fit, test, got 'night'"):
        BSDS500("night", photos)
    with pytest.raises(ValueError, match="'test' needs more than 60 images, found 25"):
        BSDS500("test", photos)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"expected images \(.png, .* found none"):
        BSDS500("all", empty)
    with pytest.raises(FileNotFoundError, match="found no folder .*nowhere"):
        BSDS500("all", empty / "nowhere")
    path = next(photos.rglob("103.jpg"))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="could not decode .*103.jpg"):
        BSDS500("all", photos)
    for extra in list(photos.rglob("1*.jpg"))[5:]:
        extra.unlink()
    with pytest.raises(ValueError, match="'val' needs more than 20 images, found 5"):
        BSDS500("val", photos)


@needs_real
def test_real_backgrounds():
    folder = BSDS500("all", REAL / "BSDS500")
    assert len(folder) == 200 and {folder[0].shape, folder[2].shape} <= {
        (3, 321, 481),
        (3, 481, 321),
    }
