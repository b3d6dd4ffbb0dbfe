"""book/scripts/ext/finding.py: neighbours with a sentence, one address, a page for lost readers."""

import re
from pathlib import Path

import pytest

pytest.importorskip("sphinx_book_theme")
from sphinx.testing.util import SphinxTestApp

EXTENSIONS = str(Path(__file__).resolve().parents[2] / "book" / "scripts" / "ext")
CONF = """
import sys
sys.path.insert(0, {path!r})
extensions = ["myst_nb", "address", "finding"]
html_theme = "sphinx_book_theme"
html_theme_options = {{"repository_url": "https://github.com/{owner}/eqreg"}}
"""
QUESTION = "What is left of <symmetry> when the degradation has a direction?"


@pytest.fixture(scope="module", params=["OWNER", "ada"])
def built(request, tmp_path_factory):
    """The pages of a book of three, and whether its repository has an address."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "book").mkdir()
    toctree = "```{toctree}\nbook/intro\none\ntwo\n```\n"
    (folder / "index.md").write_text(f"# Start\n\n{toctree}")
    (folder / "book" / "intro.md").write_text("# Introduction\n\nShort.\n")
    (folder / "one.md").write_text(f"# One\n\n> {QUESTION.replace('<', '&lt;')}\n")
    (folder / "two.md").write_text("# Two\n\nThe second page is about something else entirely.\n")
    (folder / "conf.py").write_text(CONF.format(path=EXTENSIONS, owner=request.param))
    app = SphinxTestApp("html", srcdir=folder)
    app.build()
    pages = {
        path.stem: path.read_text(encoding="utf8") for path in Path(app.outdir).rglob("*.html")
    }
    yield pages, request.param == "ada"
    app.cleanup()


def test_next_and_previous_say_what_comes(built):
    pages, _ = built
    words = re.compile(r'class="prev-next-words">(.*?)</span>')
    assert words.findall(pages["intro"]) == [QUESTION.replace("<", "&lt;").replace(">", "&gt;")]
    assert words.findall(pages["one"]) == ["The second page is about something else entirely."]


def test_a_page_has_one_address_once_the_repository_has(built):
    pages, published = built
    found = re.findall(r'<link rel="canonical" href="([^"]*)"', pages["two"])
    assert found == (["https://ada.github.io/eqreg/two.html"] if published else [])


def test_a_lost_reader_finds_the_way_from_any_depth(built):
    pages, published = built
    assert 'href="book/intro.html"' in pages["404"] and 'href="search.html"' in pages["404"]
    assert ('<base href="https://ada.github.io/eqreg/">' in pages["404"]) == published
    assert "<base" not in pages["two"]


def test_the_search_page_reads_formulas(built):
    pages, _ = built
    assert "function readable" in pages["search"] and "function readable" not in pages["two"]
