"""Figures of eqreg.viz as readers meet them: on a phone, in the dark, without JavaScript, one frame at a time."""

import io
import sys
from pathlib import Path

import numpy as np
import page_checks as checks
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "scripts" / "ext"))

import light  # noqa: E402

from eqreg import viz  # noqa: E402

GREY = 0.6


def frame(value):
    figure, axes = viz.subplots(1, 2, size=(7.0, 3.0))
    axes[0].imshow(np.full((8, 8), GREY), cmap="gray", vmin=0, vmax=1)
    axes[0].set_axis_off()
    axes[1].plot([0, 1], [0, value])
    return figure


def pictures():
    """A slider and a close look, as a page of the book has them."""
    clean, worse = np.full((40, 40), GREY), np.full((40, 40), 0.2)
    return (
        viz.explore(frame, range(9), label="Height", alt="a line up to {value}").html
        + viz.closeup(clean, worse, {"plain": clean}, alt="{name}").html
    )


def far():
    """Close looks that stand below pages of text: no two pictures are equal."""
    rows = np.linspace(0, 1, 40)[:, None] * np.ones((40, 60))
    turned = {"plain": [rows**2, rows**3]}
    return (
        viz.closeup(rows, rows**4, {"plain": rows**5}, alt="{name}").html
        + viz.wipe(
            [rows**6, rows**7], turned, alt="{name}", values=["0°", "90°"], label="Turn"
        ).html
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("figures")
    body = light.photographs_twice(light.files_for_data(pictures(), folder / "drawn", "drawn"))
    css = (ROOT / "book" / "static" / "eqreg.css").read_text(encoding="utf8")
    for mode in ("light", "dark"):
        (folder / f"{mode}.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{mode}"><title>t</title><link rel="icon" href="data:,">'
            f'<meta name="viewport" content="width=device-width"><style>{css} body{{margin:16px}}'
            f"html[data-theme=dark] body{{background:#121212;color:#ccc}}</style>"
            f'<main class="bd-content" style="max-width:780px">{body}</main>'
        )
    below = light.files_for_data(far(), folder / "drawn", "drawn")
    (folder / "far.html").write_text(
        f'<!doctype html><html lang="en"><title>t</title><link rel="icon" href="data:,"><style>{css}</style>'
        f'<main style="max-width:780px"><p style="height:9000px">text</p>{below}'
    )
    return serve(folder)


@pytest.fixture
def opened(site, browser):
    pages = []

    def start(name, width=1280, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        pages.append(page)
        page.goto(f"{site}/{name}.html")
        page.wait_for_load_state("networkidle")
        return page

    yield start
    for page in pages:
        page.close()


def test_of_a_slider_one_frame_is_loaded_until_it_moves(opened):
    page = opened("light")
    drawn = "performance.getEntriesByType('resource').filter(e => e.initiatorType === 'img').length"
    assert page.evaluate(drawn) == 1
    page.locator(".frame input, figure input").first.fill("4")
    page.wait_for_function(f"{drawn} === 2")
    assert page.locator(".frame:visible").get_attribute("data-value") == "4"


def test_on_a_phone_a_figure_keeps_its_size_and_two_close_pictures_stand_in_a_row(opened):
    page = opened("light", width=375)
    shown = page.locator(".frame:visible img:visible").first
    natural, width = shown.evaluate("e => [e.naturalWidth, e.getBoundingClientRect().width]")
    # Drawn at 105 dots to the inch, shown at 96: letters are as large as they were meant.
    assert width / (natural * 96 / 105) > 0.95
    boxes = [pane.bounding_box() for pane in page.locator(".pane").all()]
    assert boxes[0]["y"] == boxes[1]["y"] and boxes[0]["width"] > 150
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_at_a_desk_close_pictures_have_240_pixels(opened):
    for pane in opened("light").locator(".pane").all():
        assert pane.bounding_box()["width"] >= 240


def test_in_the_dark_the_paper_is_dark_and_photographs_stay(opened):
    from PIL import Image

    seen = {}
    for mode in ("light", "dark"):
        shot = opened(mode).locator(".frame:visible").screenshot()
        seen[mode] = np.asarray(Image.open(io.BytesIO(shot)).convert("L")) / 255
    high, wide = seen["light"].shape
    photo = (high // 2, wide // 4)
    assert seen["light"][photo] == pytest.approx(GREY, abs=0.02)
    assert seen["dark"][photo] == pytest.approx(GREY, abs=0.02)
    assert seen["light"][3, -3] > 0.98 and seen["dark"][3, -3] < 0.1


def test_a_click_moves_the_frame_in_all_pictures(opened):
    page = opened("light")
    pane = page.locator(".pane").first
    pane.click(position={"x": 5, "y": 5})
    style = page.locator("figure").last.get_attribute("style")
    assert "--zx: 0%" in style and "--zy: 0%" in style


def test_pictures_below_the_screen_wait_for_their_reader_in_boxes_of_the_right_shape(opened):
    page = opened("far")
    fetched = (
        "performance.getEntriesByType('resource').filter(e => e.name.includes('/drawn/')).length"
    )
    assert page.evaluate(fetched) == 0
    high = "document.documentElement.scrollHeight"
    before = page.evaluate(high)
    for pane in page.locator(".pane").all():
        box = pane.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(1.5, rel=0.01)
    page.locator("figure").last.scroll_into_view_if_needed()
    # Of the close look the truth, both states and the error; of two turns the one that is shown.
    page.wait_for_function(f"{fetched} === 6")
    page.wait_for_load_state("networkidle")
    assert page.evaluate(fetched) == 6 and page.evaluate(high) == before


def test_without_javascript_a_slider_says_so_and_shows_its_key_frames(opened):
    page = opened("light", java_script_enabled=False)
    slider, wipe = page.locator("noscript p").all()  # by text Playwright does not look there
    assert slider.is_visible() and "This slider needs JavaScript" in slider.text_content()
    assert wipe.is_visible() and "Without JavaScript the line does not move" in wipe.text_content()
    shown = page.locator(".frame:visible")
    assert [shown.nth(i).get_attribute("data-value") for i in range(shown.count())] == [
        "0",
        "4",
        "8",
    ]
    assert page.locator("input:visible").count() == 0


def test_the_checks_of_pages_pass(site, browser):
    seen = checks.visit(browser, site, "dark.html")
    faults = checks.network_faults(seen) + checks.image_faults(seen) + checks.slider_faults(seen)
    seen.page.close()
    assert not faults
