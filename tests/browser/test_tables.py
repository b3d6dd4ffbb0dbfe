"""`viz.table` in a browser: it is sorted by a click, and scrolls inside its frame on a phone."""

import pytest

from eqreg.viz import table

ROWS = [
    {"method": f"m{i}", "PSNR in dB": (value, 0.1), **{f"column {j}": j for j in range(12)}}
    for i, value in enumerate([9.5, 10.2, None, 30.0, 1e-3, -4.0, 27.0, 28.0, 29.0])
    for value in [value if value is not None else float("nan")]
]


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page(viewport={"width": 375, "height": 812})
    page.set_content(
        f'<html lang="en"><meta name="viewport" content="width=device-width">{table(ROWS).html}'
    )
    yield page
    page.close()


def column(page, number):
    return [row.split("\t")[number] for row in page.locator("tbody tr").all_inner_texts()]


def test_a_click_sorts_by_number_and_another_turns_the_order(page):
    button = page.get_by_role("button", name="PSNR in dB")
    head = page.get_by_role("columnheader", name="PSNR in dB")
    button.click()
    assert column(page, 0) == ["m5", "m4", "m0", "m1", "m6", "m7", "m8", "m3", "m2"]
    assert head.get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert column(page, 0) == ["m3", "m8", "m7", "m6", "m1", "m0", "m4", "m5", "m2"]
    assert head.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="method").click()
    assert column(page, 0) == [f"m{i}" for i in range(9)]
    assert head.get_attribute("aria-sort") == "none"


def test_it_scrolls_inside_its_frame_and_rows_keep_their_names(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    frame = page.locator(".eqreg-table")
    assert frame.evaluate("f => f.scrollWidth > f.clientWidth")
    name = page.locator("tbody th").first
    before = name.bounding_box()["x"]
    frame.evaluate("f => f.scrollLeft = 200")
    assert name.bounding_box()["x"] == before
    frame.evaluate("f => f.scrollLeft = 0")
