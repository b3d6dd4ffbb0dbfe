"""book/scripts/ext: what becomes of a chapter on its page and in Colab."""

import json
import re
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from docutils import nodes
from docutils.utils import new_document

pytest.importorskip("sphinx_proof")
from sphinx.testing.util import SphinxTestApp

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = str(ROOT / "book" / "scripts" / "ext")
sys.path.insert(0, EXTENSIONS)
import chapters  # noqa: E402
import front  # noqa: E402
import light  # noqa: E402
import live  # noqa: E402
import plain_text  # noqa: E402
import sharing  # noqa: E402

from eqreg.experiments.artifacts import load_artifact  # noqa: E402
from eqreg.experiments.comparison import decided  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAD = """# 1. Title

> Why?

[![Open in Colab](b.svg)](https://colab.research.google.com/github/OWNER/eqreg/blob/main/notebooks/x.ipynb) · CPU: 1 s
"""
SET_UP = """import sys

if "google.colab" in sys.modules:
    %pip install --quiet "eqreg[tasks] @ git+https://github.com/OWNER/eqreg@main"
"""


def cell(kind, source, number, tags=(), output=None):
    made = {
        "cell_type": kind,
        "id": f"c{number}",
        "metadata": {"tags": list(tags)},
        "source": source,
    }
    if kind == "code":
        data = {"text/html": output, "text/plain": "x"}
        shown = {"output_type": "display_data", "data": data, "metadata": {}}
        made.update(outputs=[shown] if output else [], execution_count=1)
    return made


@pytest.fixture(params=["OWNER", "ada"])
def page(request, tmp_path):
    """The resolved page of a small chapter, and whether the repository has an address."""
    figure = "<figure class='eqreg'><img alt='a' src='data:,'></figure>"
    cells = [
        cell("markdown", HEAD.replace("OWNER", request.param), 0),
        cell("markdown", "## Setup", 1),
        cell("code", SET_UP.replace("OWNER", request.param), 2, ["setup"]),
        cell("markdown", "## See it\n\nLook. **Before you drag:** where is $x$?", 3),
        cell("code", "x = 1", 4),
        cell("code", "draw(x)", 5, output=figure),
        cell("markdown", "## Exercises", 6),
        cell("code", "# @title Solution 1\nassert True", 7, ["hide-cell", "solution"]),
        cell("code", "plot()", 8, ["hide-input"], output=figure),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}
    (tmp_path / "index.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "b.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (tmp_path / "conf.py").write_text(f"""
extensions = ["myst_nb", "address", "reading"]
nb_execution_mode = "off"
html_theme = "sphinx_book_theme"
html_theme_options = {{
    "repository_url": "https://github.com/{request.param}/eqreg",
    "use_repository_button": True,
    "launch_buttons": {{"colab_url": "https://colab.research.google.com"}},
}}
""")
    app = SphinxTestApp("html", srcdir=tmp_path)
    app.build()
    yield app.env.get_and_resolve_doctree("index", app.builder), request.param == "ada", app
    app.cleanup()


def test_a_chapter_shows_its_figure_first_and_names_its_folds(page):
    document, _, app = page
    html = (Path(app.outdir) / "index.html").read_text()
    marks = ("blockquote", 'p class="prediction"', "figure", "details", "p>Look.")
    places = [html.index(f"<{mark}") for mark in marks]
    assert places == sorted(places)
    assert html.count("Before you drag") == 1
    names = [part.partition("</summary>")[0] for part in html.split("<summary>")[1:]]
    assert names == [
        "Set-up, 4 lines",
        "Code, 1 line",
        "Code of this figure, 1 line",
        "Solution 1",
        "Code of this figure, 1 line",
    ]
    assert len(list(document.findall(nodes.block_quote))) == 1


def without_tags(html):
    return unescape(re.sub("<[^>]+>", "", html))


def test_nothing_leads_to_a_repository_that_has_no_address(page):
    _, published, app = page
    html = (Path(app.outdir) / "index.html").read_text()
    colab = "colab.research.google.com/github/ada/eqreg/blob/colab/"
    assert html.count(colab) == (2 if published else 0)
    assert ("git+https://github.com/ada/eqreg" in html) == published
    assert "OWNER" not in html
    assert "CPU: 1 s" in html
    assert ("pass  # the library's address" in without_tags(html)) != published


@pytest.fixture(scope="module")
def facts():
    return plain_text.collect(CHAPTERS, ROOT / "book" / "references.bib")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_colab_gets_text_that_it_can_show(path, facts):
    """Only markers change: what a directive or role held is still there, code is untouched."""
    before = json.loads(path.read_text(encoding="utf8"))["cells"]
    after = json.loads(plain_text.convert(path, facts))["cells"]
    for old, new in zip(before, after, strict=True):
        old_text, new_text = "".join(old["source"]), "".join(new["source"])
        if old["cell_type"] == "code" or ("{" not in old_text and ":::" not in old_text):
            link = "[Further reading](#references)"  # a place within a notebook: none in Colab
            assert new_text == old_text.replace(link, "Further reading: at the end")
        else:
            assert ":::" not in new_text
            bodies = [match[4].strip() for match in plain_text.STATEMENT.finditer(old_text + "\n")]
            assert all(body.split("{")[0][:40] in new_text for body in bodies)


def test_statements_citations_and_references_are_written_out():
    facts = plain_text.Facts(
        {"a.ipynb": ["Theorem 7"]},
        {"law": ("a.ipynb", "Theorem 7"), "far": ("b.ipynb", "Lemma 1")},
        {"bai": ("Bai et al.", "2025", "https://arxiv.org/abs/1"), "icru": ("ICRU", "1989", "")},
    )
    text = (
        ":::{prf:theorem} It turns\n:label: law\n\nAlways.\n:::\n\n:::{prf:proof}\n$$x$$\n:::\n"
        "See {prf:ref}`law`, {prf:ref}`far`, {cite:p}`bai,icru`, {cite:t}`bai`, {term}`fields <field>`."
    )
    assert plain_text.plain(text, "a.ipynb", facts, iter(facts.numbers["a.ipynb"])) == (
        "**Theorem 7 (It turns).** Always.\n\n*Proof.*\n\n$$x$$\n"
        "See Theorem 7, [Lemma 1](b.ipynb), ([Bai et al., 2025](https://arxiv.org/abs/1); "
        "ICRU, 1989), Bai et al. ([2025](https://arxiv.org/abs/1)), fields."
    )


@pytest.mark.parametrize(("damage", "limit"), [("rain", 50_000), ("inpainting", 350_000)])
def test_browsers_get_the_networks_that_were_trained(damage, limit):
    """Equal for every size of image, small, and without a word about who exported them; one graph serves all rows."""
    runtime = pytest.importorskip("onnxruntime")
    torch = pytest.importorskip("torch")
    from eqreg import load_pretrained

    rows = live.DAMAGES[damage].values()
    networks = [load_pretrained(f"{damage}/{row}") for row in rows]
    model = live.exported(networks[0])
    for network in networks:
        assert live.with_weights_of(network, model) is model
        file = model.SerializeToString()
        assert len(file) < limit
        assert b".py" not in file
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
        for size in ((256, 256), (33, 70) if damage == "rain" else (32, 72)):
            x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
            with torch.no_grad():
                expected = network(x)
            found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    other = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    assert live.with_weights_of(other, model) is None


@pytest.mark.parametrize(
    "text, linked",
    [
        ("chapter 9 says", [("chapter 9", "9")]),
        ("Chapters 7, 8 and 11b", [("Chapters 7", "7"), ("8", "8"), ("11b", "11b")]),
        ("in chapters 13 to 16.", [("chapters 13", "13"), ("16", "16")]),
        ("this chapter, 9 of 10", []),
        ("chapter 14b, 5 dB", [("chapter 14b", "14b")]),
        ("Chapters 3, 5 dB", [("Chapters 3", "3")]),
        ("chapter 9 and 3 dB", [("chapter 9", "9")]),
    ],
)
def test_mentions_of_chapters(text, linked):
    found = list(chapters.pieces(text))
    assert "".join(piece for piece, _ in found) == text
    assert [(piece, number) for piece, number in found if number] == linked


def test_a_page_says_what_it_is_where_it_is_shared():
    tree = new_document("x")
    question = nodes.block_quote(
        "", nodes.paragraph("", "What & why is a rotation of an image good for?")
    )
    tree.append(nodes.paragraph("", "CPU: 30 s, which is no description of anything at all"))
    tree.append(question)
    text = sharing.description(tree)
    assert text == "What & why is a rotation of an image good for?"
    bare = sharing.tags("Title", text, "", "")
    assert 'content="What &amp; why' in bare and "og:url" not in bare and "og:image" not in bare
    whole = sharing.tags("Title", text, "https://a.b/c.html", "https://a.b/card.png")
    assert 'property="og:image" content="https://a.b/card.png"' in whole
    tree.children = [nodes.paragraph("", "word " * 100)]
    assert len(sharing.description(tree)) <= sharing.LONGEST + 2


def test_a_description_leaves_out_sentences_with_formulas_whole():
    """Without the formulas alone it read "Image values lie in ."."""
    tree = new_document("x")
    words = nodes.paragraph(
        "", "Symbols on the left, their names in the code on the right. Values lie in "
    )
    words += [nodes.math("", "[0, 1]"), nodes.Text(". Row 0 is the top row.")]
    tree.append(words)
    want = "Symbols on the left, their names in the code on the right. Row 0 is the top row."
    assert sharing.description(tree) == want


def test_pictures_become_files_once_and_photographs_a_second_picture(tmp_path):
    from eqreg import viz

    figure, axes = viz.subplots(1, 2, size=(3.6, 2))
    axes[0].imshow([[0, 1]])
    html = viz.show(figure, alt="one of two").html
    body = light.files_for_data(html + html, tmp_path / "drawn", "../_static/drawn")
    (file,) = (tmp_path / "drawn").iterdir()
    assert file.read_bytes()[8:12] == b"WEBP"
    assert body.count(f'src="../_static/drawn/{file.name}"') == 2 and "base64" not in body
    body = light.photographs_twice(body)
    assert body.count('class="photos" aria-hidden="true" style="--wide:polygon(') == 2
    assert body.count(file.name) == 4
    plain = viz.show(viz.subplots(size=(3, 2))[0], alt="a plot").html
    assert light.photographs_twice(plain) == plain
    assert 'class="drawn photograph"' in light.photographs_twice(viz.show(np.eye(2), alt="a").html)


def test_pieces_of_mathjax_are_asked_for_at_once():
    script = '<script defer="defer" src="../_static/mathjax/startup.js?v=1"></script>'
    asked = light.ask_for_maths(f"<head>\n    {script}</head>")
    links = re.findall(r'<link rel="preload" as="script" href="([^"]*)">', asked)
    assert {f"../_static/mathjax/{piece}.js" for piece in light.MATHS} < set(links)
    assert asked.endswith(f"\n    {script}</head>")
    assert light.ask_for_maths("<head></head>") == "<head></head>"


def test_pages_get_the_icons_that_stand_on_them():
    theme = Path(pytest.importorskip("pydata_sphinx_theme").__file__).parent
    (place,) = theme.glob("theme/*/static/vendor/fontawesome/*")
    css = (place / "css" / "all.min.css").read_text(encoding="utf8")
    fonts = {f: (place / "webfonts" / f"{f}.ttf").read_bytes() for f in light.FONTS}
    cut = light.icons(css, {"fa-bars", "fa-github", "fa-no-icon"}, fonts)
    assert len(cut) < 40_000 < len(css)
    assert ".fa-bars:before" in cut and ".fa-github:before" in cut and "fa-xmark" not in cut
    assert cut.count("@font-face") == 2  # nothing of the regular ones is used
    title = light.drawn_by_styles('.admonition-title:before{content:"\\f05a"} --icon:"\uf071"')
    assert title == {0xF05A, 0xF071}
    assert len(light.icons(css, {"fa-bars"}, fonts, title)) > len(
        light.icons(css, {"fa-bars"}, fonts)
    )


def test_the_front_page_says_what_chapter_17_says():
    """Its answers on rain are those that the engine decides, by the same rows, seeds and margin."""
    found, stamp, seeds = front.answers("rain")
    assert [c.b for c in found] == ["pairs", "augmentation", "strict, equal size", "plain"]
    assert len(stamp["seeds"]) == seeds == 12
    engine = {(c.a, c.b): c for c in decided(load_artifact("rain-evidence"))}
    assert (
        found[0].mean == engine["eqreg", "pairs"].mean and found[0].p == engine["eqreg", "pairs"].p
    )
    html = front.result()
    assert all(title in html for title in front.TASKS)
    verdicts = [c.verdict for task in front.TASKS.values() for c in front.answers(task)[0]]
    assert (
        f"{verdicts.count('loss')} losses" in html
        and f"{verdicts.count('undecided')} undecided" in html
    )
