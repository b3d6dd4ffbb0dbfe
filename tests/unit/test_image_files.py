"""Image files of every kind: the right values in [0, 1], or a sentence."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from eqreg.data import BSDS500, PairFolder, Rain100, Urban100
from eqreg.data.images import read_image

RAMP = (np.arange(12, dtype=np.uint16) * 5461).reshape(3, 4)  # 0 to 60071


def png(path, bits, colour, values):
    """A PNG made by hand, so that Pillow's writer has no say; ``values`` (H, W) or (H, W, C)."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = values.shape[:2]
    if bits == 16:
        rows = [b"\0" + row.astype(">u2").tobytes() for row in values]
    else:
        planes = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = [b"\0" + np.packbits(row).tobytes() for row in planes]
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )
    return path


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_of_any_depth(tmp_path, bits):
    largest = 2**bits - 1
    values = np.random.default_rng(0).integers(0, largest + 1, (5, 7))
    values[0, :2] = 0, largest
    image = read_image(png(tmp_path / "grey.png", bits, 0, values))
    assert image.shape == (1, 5, 7) and image.dtype == torch.float32
    assert torch.allclose(image[0], torch.from_numpy(values / largest).float(), atol=1e-7)


def test_every_loader_reads_sixteen_bits(tmp_path):
    big = np.random.default_rng(0).integers(0, 65536, (16, 16)).astype(np.uint16)
    expected = torch.from_numpy(big / 65535).float().expand(3, -1, -1)
    for folder in ("rain/rainy", "urban/train", "bsds"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(big).save(tmp_path / "rain/norain-1.png")
    Image.fromarray(big).save(tmp_path / "rain/rainy/rain-1.png")
    Image.fromarray(big).save(tmp_path / "urban/train/1.png")
    Image.fromarray(big).save(tmp_path / "bsds/1.png")
    found = [
        *Rain100(tmp_path / "rain")[0][:2],
        PairFolder(tmp_path / "rain", rainy="rainy/*.png", clean="rainy/*.png")[0].clean,
        Urban100("all", tmp_path / "urban", size=16)[0],
        BSDS500("all", tmp_path / "bsds")[0],
    ]
    for image in found:
        assert torch.allclose(image, expected, atol=1e-7)


def test_urban_reduces_sixteen_bits_as_eight(tmp_path):
    row, column = np.mgrid[:520, :530]
    smooth = (np.sin(row / 30) * np.cos(column / 40) + 1) / 2
    for name, values in (
        ("8", (smooth * 255).round().astype(np.uint8)),
        ("16", (smooth * 65535).astype(np.uint16)),
    ):
        (tmp_path / name / "train").mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / name / "train/a.png")
    eight, sixteen = (Urban100("all", tmp_path / name, size=64)[0] for name in ("8", "16"))
    assert (eight - sixteen).abs().max() < 1.5 / 255


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """Pixels as stored, and as the tag says they are shown."""
    stored = np.random.default_rng(0).integers(0, 256, (4, 6)).astype(np.uint8)
    shown = {
        1: stored, 2: stored[:, ::-1], 3: np.rot90(stored, 2), 4: stored[::-1],
        5: stored.T, 6: np.rot90(stored, -1), 7: np.rot90(stored, 2).T, 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    picture = Image.fromarray(stored)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a_rain.png", exif=exif)
    assert torch.equal(
        read_image(tmp_path / "a_rain.png")[0] * 255, torch.from_numpy(shown.copy()).float()
    )
    Image.fromarray(shown.copy()).save(tmp_path / "a_clean.png")  # pairs compare sizes as shown
    pair = PairFolder(tmp_path, rainy="*_rain.png", clean="*_clean.png")[0]
    assert torch.equal(pair.rainy, pair.clean)


def test_palettes_and_opaque_alpha(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    exact = torch.from_numpy(rgb).permute(2, 0, 1) / 255
    opaque = np.full((3, 4, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([rgb, opaque], 2)).save(tmp_path / "rgba.png")
    assert torch.equal(read_image(tmp_path / "rgba.png"), exact)
    Image.fromarray(np.concatenate([rgb[..., :1], opaque], 2)).save(tmp_path / "la.png")
    assert torch.equal(read_image(tmp_path / "la.png"), exact[:1])
    picture = Image.fromarray(rgb).quantize(12)  # 12 pixels, 12 colours
    picture.save(tmp_path / "palette.png")
    colours = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "palette.png"), colours / 255)


GREY = Image.fromarray(np.full((4, 4), 9, np.uint8))


def transparent(path):
    rgba = np.full((4, 4, 4), 255, np.uint8)
    rgba[0, 0, 3] = 254
    Image.fromarray(rgba).save(path)


def see_through_palette(path):
    GREY.convert("P").save(path, transparency=9)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.png", transparent, "transparent pixels"),
        ("a.png", see_through_palette, "transparent pixels"),
        ("a.jpg", lambda p: GREY.convert("CMYK").save(p), "mode CMYK; convert it to RGB"),
        ("a.tif", lambda p: GREY.convert("F").save(p), "mode F"),
        ("a.tif", lambda p: GREY.convert("I").save(p), "mode I;"),
        (
            "a.gif",
            lambda p: GREY.save(p, save_all=True, append_images=[GREY.point(lambda v: v + 9)]),
            "2 frames",
        ),
        ("a.png", lambda p: png(p, 16, 2, np.ones((2, 2, 3))), "8 bits a colour in .*, got 16"),
        ("a.png", lambda p: png(p, 16, 4, np.ones((2, 2, 2))), "8 bits a colour in .*, got 16"),
        ("a.png", lambda p: p.write_text("text"), "could not decode"),
        ("a.png", lambda p: p.mkdir(), "found no file"),
    ],
)
def test_files_without_one_meaning(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read_image(path)
    assert str(path) in str(error.value)
