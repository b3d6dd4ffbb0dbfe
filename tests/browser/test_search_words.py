"""What a search result shows of a formula."""

import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "scripts" / "ext" / "search.js"
STUB = "const Search = {htmlToText: html => new DOMParser().parseFromString(html, 'text/html').body.textContent};"


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    file = tmp_path_factory.mktemp("search") / "search.html"
    file.write_text(
        f"<!doctype html><script>{STUB}</script><script>{SCRIPT.read_text()}</script>"
        "<div id='search-results'></div>"
    )
    page = browser.new_page()
    page.goto(file.as_uri())
    yield page
    page.close()


@pytest.mark.parametrize(
    "tex, shown",
    [
        (r"\(\lambda\ne 0\)", "λ≠ 0"),
        (r"\[\lVert f(g\cdot x)\rVert^2\]", "‖ f(g· x)‖^2"),
        (r"\(\mathcal{Q}f\)", "Qf"),
        (r"\(\rho(g)\,e_h = e_{gh}\)", "ρ(g) e_h = e_gh"),
    ],
)
def test_formulas_have_no_source(page, tex, shown):
    html = f'<p>so <span class="math">{tex}</span>.</p>'
    assert page.evaluate(f"Search.htmlToText({json.dumps(html)})").strip() == f"so {shown}."


def test_titles_of_results_have_none(page):
    page.evaluate(
        "document.querySelector('#search-results').innerHTML = '<a>Why \\\\lambda is small</a><a>It\\'s</a>'"
    )
    page.wait_for_function(
        "!document.querySelector('#search-results').textContent.includes('\\\\')"
    )
    assert page.locator("a").all_inner_texts() == ["Why λ is small", "It's"]
