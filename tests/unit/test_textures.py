"""Patches of textures: disjoint parts, one brightness, any angle."""

import pytest
import torch

from eqreg import rotate
from eqreg.data import TEXTURES, photographs, textures
from eqreg.data.textures import strip


def test_the_parts_of_a_photograph_have_no_common_pixel():
    widths = {split: strip("brick", split).shape[-1] for split in ("train", "val", "test")}
    assert widths == {"train": 256, "val": 102, "test": 154} and sum(widths.values()) == 512
    joined = torch.cat([strip("brick", split) for split in widths], -1)
    assert torch.equal(joined, photographs("train")["brick"])


@pytest.mark.parametrize("turned", [True, False])
def test_patches_have_one_brightness_and_contrast(turned):
    g = torch.Generator().manual_seed(0)
    images, labels = textures("train", 40, size=20, turned=turned, generator=g)
    assert images.shape == (40, 1, 20, 20) and labels.tolist() == 10 * [0, 1, 2, 3]
    assert images.min() >= 0 and images.max() <= 1
    # Clipping touches the few patches that are flat but for a joint.
    assert (images.mean((1, 2, 3)) - 0.5).abs().max() < 0.03
    assert (images.std((1, 2, 3)) - 0.15).abs().median() < 1e-3


def test_turned_patches_are_turned_photographs(monkeypatch):
    # With equal angles for all patches: quarter turns of the upright ones.
    def quarter(n, generator=None):
        return torch.full((n,), 0.25)

    a, b = (torch.Generator().manual_seed(1) for _ in range(2))
    upright = textures("val", 8, turned=False, generator=a)
    monkeypatch.setattr(torch, "rand", quarter)
    turned = textures("val", 8, generator=b)
    assert torch.allclose(turned.images, rotate(upright.images, 1), atol=1e-3)


def test_textures_repeat_with_their_seed():
    a, b, c = (textures("test", 8, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)
    assert len(TEXTURES) == 4


def test_textures_say_what_they_expect():
    with pytest.raises(ValueError, match=r"one of \['test', 'train', 'val'\], got 'dev'"):
        textures("dev", 4)
    with pytest.raises(ValueError, match="must be positive, got n=0, size=16"):
        textures("val", 0)
    with pytest.raises(
        ValueError, match="side 80 needs 116 pixels, the strips of 'val' are 102 wide"
    ):
        textures("val", 4, size=80)
