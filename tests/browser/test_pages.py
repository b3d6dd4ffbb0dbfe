"""Every page of the built book, in a browser that may talk to nobody but us."""

import json
import re
from pathlib import Path

import dark_checks
import page_checks as checks
import phone_checks
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
AXE = ROOT / "book" / "web" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if "_static" not in path.parts and path != HTML / "index.html"  # a redirect to the introduction
)
# Sphinx makes the listings of modules by one template, so that the shortest and the longest stand for all. The links
# to them are followed from the pages of the API.
LISTINGS = sorted(
    (page for page in PAGES if page.startswith("_modules/eqreg/")),
    key=lambda page: (HTML / page).stat().st_size,
)
PAGES = [page for page in PAGES if page not in LISTINGS[1:-1]]


@pytest.fixture(scope="module")
def site(serve, unavailable):
    if not PAGES:
        unavailable(f"no pages in {HTML.relative_to(ROOT)}; build them first: make book")
    return serve(HTML)


@pytest.fixture(scope="module", params=PAGES or ["not built"])
def seen(request, site, browser):
    visit = checks.visit(browser, site, request.param)
    yield visit
    visit.page.close()


def test_loads_without_errors_and_without_other_hosts(seen):
    assert not checks.network_faults(seen)


def test_is_light(seen):
    assert not checks.weight_faults(seen)


def test_maths_is_typeset(seen):
    assert not checks.maths_faults(seen)


def test_images_have_alt_text(seen):
    assert not checks.image_faults(seen)


# The list of a package's modules and their listings are Sphinx's own, alike, and not read on phones.
@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: `make npm` fetches it where npm is")
def test_no_serious_violation(seen):
    """axe-core: at a desk in light, on a phone in dark."""
    if seen.page.url.startswith(f"{seen.site}/_modules/"):
        return
    assert not checks.axe_faults(seen, AXE.read_text(encoding="utf8"))


def test_one_title(seen):
    assert not checks.heading_faults(seen)


def test_links_lead_somewhere(seen):
    assert not checks.link_faults(seen, HTML)


def test_code_fits_a_wide_window(seen):
    assert not checks.code_faults(seen)


def test_fits_a_phone(seen):
    assert not phone_checks.phone_faults(seen)


def test_is_read_on_a_phone(seen):
    if not seen.page.url.startswith(f"{seen.site}/_modules/"):
        assert not phone_checks.reading_faults(seen)


def test_solutions_and_hints_unfold(seen):
    assert not checks.folded_faults(seen)


def test_folds_have_names(seen):
    assert not checks.fold_name_faults(seen)


def test_chapters_begin_with_a_picture(seen):
    pages = ("/book/intro.html", "/book/ct_tool.html")
    if "/notebooks/" in seen.page.url or seen.page.url.endswith(pages):
        assert not checks.first_screen_faults(seen)


def test_sliders_move_the_picture(seen):
    assert not checks.slider_faults(seen)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(seen, scheme):
    seen.page.evaluate("mode => document.documentElement.dataset.theme = mode", scheme)
    assert not checks.contrast_faults(seen)
    assert scheme == "light" or not dark_checks.light_box_faults(seen)


def test_colab_buttons_lead_to_the_notebook(seen):
    """Twice, the badge and the theme's rocket; never while the repository has no address."""
    page = seen.page.url.removeprefix(seen.site + "/")
    buttons = seen.page.locator("a[href*='colab.research.google.com/github']")
    url = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
    if not page.startswith("notebooks/") or "/OWNER/" in url:  # no code cells, or nowhere to lead
        assert buttons.count() == 0
        assert "github.com/OWNER" not in seen.page.content()
        return
    notebook = page.replace(".html", ".ipynb")
    path = url.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{path}/blob/colab/{notebook}"
    assert (ROOT / notebook).is_file()
    assert seen.page.locator(f"a[href='{link}']").count() == 2


def test_downloaded_notebook_says_what_the_page_says(seen):
    """Theorems have the page's numbers, and nothing is left that only the book's builder knows."""
    page = seen.page.url.removeprefix(seen.site + "/")
    if not page.startswith("notebooks/"):
        return
    cells = json.loads((HTML / "_sources" / page.replace(".html", ".ipynb")).read_text())["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    shown = seen.page.locator(".caption-number").all_inner_texts()
    assert re.findall(r"^\*\*((?:Theorem|Lemma|Definition|Proposition) \d+)", text, re.M) == [
        number.strip() for number in shown
    ]
    assert not re.search(r"^:::|\{[a-z:]+\}`", text, re.M)


def test_front_page_leads_to_the_introduction(site, browser):
    page = browser.new_page()
    page.goto(f"{site}/index.html")
    page.wait_for_url(f"{site}/book/intro.html")
    page.close()


def test_search_finds_a_word_of_the_notation_page(site, browser):
    seen = checks.visit(browser, site, "search.html?q=equivariance")
    seen.page.wait_for_selector("#search-results li a")
    assert not checks.network_faults(seen)
    seen.page.close()
