"""book/scripts/ext: terms lead to the glossary, names to the reference, statements have one count."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx_proof")
from sphinx.testing.util import SphinxTestApp

EXTENSIONS = str(Path(__file__).resolve().parents[2] / "book" / "scripts" / "ext")
sys.path.insert(0, EXTENSIONS)
import terms  # noqa: E402

KNOWN = ["field", "regular field", "equivariance", "equivariance error", "decay", "EQ-Reg"]


@pytest.mark.parametrize(
    "text, linked",
    [
        ("A field, then a field.", ["field"]),
        ("Two regular fields and a field", ["regular fields", "field"]),
        ("Equivariance errors; equivariance", ["Equivariance errors", "equivariance"]),
        ("non-equivariance, battlefield, EQ-Regular", []),
        ("EQ-Reg’s weight decay and its decay", ["EQ-Reg", "decay"]),
        ("a field of 400 mm, a field of type 8r", ["field"]),
    ],
)
def test_the_first_use_of_a_term(text, linked):
    found = list(terms.pieces(text, terms.pattern(map(str.lower, KNOWN)), set()))
    assert "".join(piece for piece, _ in found) == text
    assert [piece for piece, term in found if term] == linked


CONF = """
extensions = ["myst_nb", "sphinx_proof", "terms", "statements"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
html_theme = "basic"
"""
PAGES = {
    "index": "# Start\n\n```{toctree}\none\ntwo\nbook/glossary\nbook/api\nlist\n```\n",
    "one": "# One\n\nA field. `eqreg.fit` and `Thing(x)`; again a field, `Thing`, `run`, `nn.Other`, `Other`.\n\n"
    "## Next\n\n`Thing`\n\n:::{prf:definition} Sum of $x$\n:label: sum\n\nA sum.\n:::\n\n"
    "## References\n\nOn the trivial field\n",
    "two": "# Two\n\n:::{prf:theorem} It holds\n:label: law\n\nAlways, by {prf:ref}`sum`.\n:::\n",
    "book/glossary": "# Glossary\n\n```{glossary}\nfield\n    Channels, not a trivial field.\n\n"
    "trivial field\n    One channel.\n```\n",
    "book/api": "# API\n\n```{eval-rst}\n.. py:function:: eqreg.fit(x)\n\n.. py:class:: eqreg.soft.Thing\n\n"
    ".. py:function:: eqreg.soft.run()\n\n.. py:class:: eqreg.soft.Other\n```\n",
    "list": "# List\n\n```{statement-index}\n```\n",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("links")
    (folder / "book").mkdir()
    for name, text in PAGES.items():
        (folder / f"{name}.md").write_text(text)
    (folder / "conf.py").write_text(CONF)
    app = SphinxTestApp("html", srcdir=folder)
    app.build()
    assert not app.warning.getvalue()
    yield lambda name: (Path(app.outdir) / name).read_text(encoding="utf8")
    app.cleanup()


def test_a_term_is_linked_once_a_page_and_never_in_the_title_of_a_work(built):
    assert built("one.html").count('href="book/glossary.html#') == 1
    assert 'href="book/glossary.html#term-field"' in built("one.html")
    assert "quiet" not in built("book/glossary.html")


def test_names_are_linked_once_a_section_and_only_if_they_are_ours(built):
    page = built("one.html")
    assert page.count('href="book/api.html#eqreg.soft.Thing"') == 2
    assert page.count('href="book/api.html#eqreg.fit"') == 1
    assert "#eqreg.soft.run" not in page  # a plain word might be anything
    assert "#eqreg.soft.Other" not in page  # the page has another library's


def test_statements_share_one_count_and_have_an_index(built):
    assert "Definition 1 " in built("one.html")
    assert "Theorem 2 " in built("two.html") and ">Definition 1<" in built("two.html")
    rows = built("list.html").split("<tr")[2:]
    assert len(rows) == 2
    assert 'href="one.html#sum"' in rows[0] and "Sum of" in rows[0] and "math" in rows[0]
    assert 'href="two.html#law"' in rows[1] and "Theorem\u00a02" in rows[1]
    assert ">It holds</p>" in rows[1].replace("<p>", ">").replace(">>", ">")


def test_search_finds_terms_where_they_are(built):
    index = built("searchindex.js")
    assert '"glossary term"' in index and "term-trivial-field" in index
