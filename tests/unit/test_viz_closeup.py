"""Restorations to look at closely: what is stored, where the frame stands, what is refused."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from test_viz import Page

from eqreg import viz

CLEAN = np.full((40, 48), 0.5)


def worse(row, column, by=0.3):
    image = CLEAN.copy()
    image[row : row + 6, column : column + 6] += by
    return image


def look(**options):
    given = {"alt": "by {name}", "names": ("rain", "restored", "truth")} | options
    return viz.closeup(CLEAN, worse(0, 0), {"plain": worse(30, 36), "strict": CLEAN}, **given)


def stored(html, name):
    """The pictures that a figure keeps under a name, in grey values from 0 to 1."""
    found = re.findall(rf"--{name}:url\(data:image/webp;base64,([^)]*)\)", html)
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(d))).convert("L")) / 255 for d in found
    ]


def test_every_picture_is_stored_once_and_named():
    picture = look(caption="a finding")
    page = Page(picture.html)
    named = [tags["aria-label"] for tag, tags in page.tags if tags.get("role") == "img"]
    assert named == ["by truth", "by plain", "by strict"]
    assert [len(stored(picture.html, n)) for n in ("before", "y", "e")] == [1, 3, 2]
    assert "26.02 dB" not in page.text and "inf dB" in page.text and "a finding" in page.text
    assert look().html == look().html


def test_the_psnr_is_that_of_the_picture():
    expected = -10 * np.log10(np.mean((worse(30, 36) - CLEAN) ** 2))
    assert f"plain {expected:.2f} dB" in Page(look().html).text
    assert "plain 7 HU" in Page(look(notes={"plain": "7 HU"}).html).text


def test_the_error_is_grey_where_right_and_white_where_too_bright():
    wrong, none = stored(look(error=0.4).html, "e")
    assert wrong[33, 39] == pytest.approx(0.5 + 0.3 / 0.8, abs=0.03)
    assert wrong[10, 10] == pytest.approx(0.5, abs=0.02)
    assert np.abs(none - 0.5).max() < 0.02


def test_the_frame_stands_where_methods_differ_or_where_it_is_told():
    x, y = map(float, re.search(r"--zx:([\d.]+)%;--zy:([\d.]+)%", look().html).groups())
    column, row = 36 * x / 100, 30 * y / 100  # of the frame's corner; it is 12 wide and 10 high
    assert column <= 36 and 42 <= column + 12.1 and row <= 30 and 36 <= row + 10.1
    assert "--zx:0.0%;--zy:0.0%" in look(box=(2, 3)).html
    assert "--zx:50.0%;--zy:50.0%" in look(box=(20, 24)).html


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alt": ""}, "alternative text"),
        ({"names": ("a", "b", "plain")}, "'plain' names the truth and a method"),
        ({"zoom": 1}, "expected zoom > 1 and error > 0, got 1 and 0.3"),
        ({"box": (40, 0)}, r"middle within \(40, 48\), got \(40, 0\)"),
    ],
)
def test_it_says_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        look(**change)


def test_images_of_another_shape_and_none_are_refused():
    with pytest.raises(ValueError, match=r"small of shape \(40, 48\), got \(4, 4\)"):
        viz.closeup(CLEAN, CLEAN, {"small": np.zeros((4, 4))}, alt="a")
    with pytest.raises(ValueError, match="at least one picture"):
        viz.closeup(CLEAN, CLEAN, {}, alt="a")
