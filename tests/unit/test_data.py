"""Bundled photographs."""

from itertools import combinations

import pytest
import torch

from eqreg.data import PHOTOGRAPHS, images, patches, photographs


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
