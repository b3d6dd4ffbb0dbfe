"""The page whose networks run on a reader's photograph, with every other host cut off."""

import re

import page_checks as checks
import pytest
from playwright.sync_api import TimeoutError
from test_pages import HTML, site  # noqa: F401

SECONDS = 10  # four restorations of 256 x 256 take less than one on an idle core
PAGE = "book/try_it.html"


@pytest.fixture(scope="module")
def live(site, browser):  # noqa: F811
    if not (HTML / "_static" / "try").is_dir():
        pytest.skip(
            "the book was built without onnxruntime-web: `make npm` fetches it where npm is"
        )
    seen = checks.visit(browser, site, PAGE)
    assert not any("/_static/try" in name for name in loaded(seen))  # before the click
    seen.page.get_by_role("button", name="Start").click()
    ready(seen)
    yield seen
    seen.page.close()


def loaded(seen):
    return seen.page.evaluate("performance.getEntriesByType('resource').map(e => e.name)")


def ready(seen):
    """Wait until all is restored; if that does not happen, tell what the page and the browser said."""
    try:
        seen.page.wait_for_selector(".try-it[data-state=ready]", timeout=120_000)
    except TimeoutError:
        said = seen.page.locator(".try-it [role=status]").inner_text()
        pytest.fail(f"{said!r}, {seen.console}, {seen.failed}, {loaded(seen)[-5:]}")


def notes(seen):
    """Method -> (PSNR in dB, equivariance error)."""
    found = {}
    for pane in seen.page.locator(".try-it .panes > div").all():
        decibel, error = pane.locator("span").inner_text().split(" dB · error ")
        found[pane.locator("b").inner_text()] = float(decibel), float(error)
    return found


def change(seen, name, value):
    seen.page.locator(f".try-it input[name={name}]").fill(str(value))
    seen.page.wait_for_timeout(50)
    ready(seen)
    return notes(seen)


def damaged(seen):
    """PSNR of what the networks start from."""
    words = seen.page.locator(".try-it [role=status]").inner_text()
    return float(re.match(r"(?:In the rain|As measured) ([\d.]+) dB", words)[1])


def test_four_networks_restore_and_only_the_plain_one_minds_the_turn(live):
    upright = notes(live)
    assert list(upright) == ["plain", "augmentation", "strict", "EQ-Reg"]
    assert all(decibel > damaged(live) + 5 for decibel, _ in upright.values())
    turned = change(live, "turn", 90)
    assert turned["plain"][0] < upright["plain"][0] - 5
    assert turned["strict"][0] == pytest.approx(upright["strict"][0], abs=0.11)
    assert turned["strict"][1] < 1e-9 < turned["EQ-Reg"][1] < turned["plain"][1]
    change(live, "turn", 0)


def test_without_rain_the_photograph_is_what_it_was(live):
    change(live, "density", 0)
    assert "no rain" in live.page.locator(".try-it [role=status]").inner_text()
    change(live, "density", 1)


def test_takes_the_readers_own_picture_and_says_so_if_it_cannot(live, tmp_path):
    first = notes(live)
    old = live.page.locator(".try-it .panes span").first.inner_text()
    live.page.locator(".try-it input[type=file]").set_input_files(
        HTML / "_static" / "try" / "flower.webp"
    )
    live.page.wait_for_function(
        "old => document.querySelector('.try-it .panes span').innerText !== old",
        arg=old,
    )
    ready(live)
    assert notes(live) != first
    (tmp_path / "no.png").write_text("no picture")
    live.page.locator(".try-it input[type=file]").set_input_files(tmp_path / "no.png")
    live.page.wait_for_selector("text=no picture that the browser can read")


def test_dead_pixels_are_filled_whichever_way_the_picture_stands(live):
    """Chapter 15's networks: they come when they are asked for, and neither photons nor pixels know directions."""
    assert not any("inpainting" in name for name in loaded(live))
    live.page.locator(".try-it select[name=damage]").select_option("inpainting")
    live.page.wait_for_timeout(50)
    ready(live)
    assert sum("inpainting" in name for name in loaded(live)) == 4
    upright = notes(live)
    assert all(decibel > damaged(live) + 5 for decibel, _ in upright.values())
    assert upright["strict"][1] < 1e-9 < upright["EQ-Reg"][1] < upright["plain"][1]
    turned = change(live, "turn", 90)
    assert turned["strict"][0] == pytest.approx(upright["strict"][0], abs=0.11)
    fewer = change(live, "photons", 5)
    assert all(fewer[name][0] < turned[name][0] for name in fewer)
    live.page.locator(".try-it select[name=damage]").select_option("rain")
    live.page.wait_for_timeout(50)
    ready(live)
    assert damaged(live) < 25


def test_is_quick_sends_nothing_and_meets_no_error(live):
    change(live, "angle", 20)
    words = live.page.locator(".try-it [role=status]").inner_text()
    assert float(words.split(" in ")[1].split()[0]) < SECONDS
    assert not checks.network_faults(live)


def test_networks_that_do_not_come_are_told_and_asked_for_again(live, browser, site):  # noqa: F811
    seen = checks.visit(browser, site, PAGE)
    seen.page.route("**/try/networks.json", lambda route: route.abort())
    seen.page.get_by_role("button", name="Start").click()
    seen.page.wait_for_selector("text=The networks did not load")
    seen.page.close()

    seen = checks.visit(browser, site, PAGE)
    seen.page.get_by_role("button", name="Start").click()
    ready(seen)
    seen.page.route("**/try/inpainting*", lambda route: route.abort())
    seen.page.locator(".try-it select[name=damage]").select_option("inpainting")
    seen.page.wait_for_selector(".try-it [role=status]:has-text('The restorations failed')")
    seen.page.unroute("**/try/inpainting*")
    change(seen, "photons", 25)
    seen.page.wait_for_selector(".try-it [role=status]:has-text('As measured')")
    assert len(notes(seen)) == 4
    seen.page.close()
