"""book/scripts/pdf.py: the pages of the book as one document that prints whole."""

import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "book" / "scripts"))
import pdf

TOC = {
    "root": "book/intro",
    "parts": [{"caption": "Part I", "chapters": [{"file": "notebooks/01"}, {"file": "book/api"}]}],
}
GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
PAGE = """<!doctype html><html><head><link rel="stylesheet" href="../_static/a.css">
<script src="../_static/mathjax.js"></script><script src="../_static/other.js"></script></head><body>
<nav>menu</nav><article class="bd-article"><h1>{title}<a class="headerlink" href="#t">#</a></h1>{body}</article>"""
CHAPTER = f"""<p id="here"><a href="#here">self</a> <a href="../book/intro.html#t">intro</a>
<a href="../genindex.html">index</a> <a href="https://example.org">far</a></p>
<figure><img alt="a" src="{GIF}"><img alt="b" style="display:none" src="{GIF}"><label>Angle <input type="range">
</label></figure><figure><img alt="c" src="../_images/c.svg" loading="lazy"></figure>
<figure><div style="background: url('../_images/c.svg')"></div><style>.a {{background: url(../_images/c.svg)}}</style>
<picture><source srcset="../_images/narrow.svg" media="(max-width: 600px)">
<img alt="d" src="../_images/c.svg"></picture>
<span class="photos"><img alt="" src="../_images/dark.svg"></span></figure><div class="try-it"><canvas></canvas></div>
<details><summary>Set-up, 1 line</summary><div class="highlight" style="overflow:auto"><pre>{"long_name = " * 40}</pre>
</div></details><h2>Exercises</h2><details><summary>Solution 1</summary><pre>answer</pre></details>
<h2>References</h2>"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><rect width="20" height="20"/></svg>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    html = tmp_path_factory.mktemp("html")
    files = {
        "book/intro.html": PAGE.format(title="Start", body="<p id='t'>Hello</p>"),
        "book/api.html": PAGE.format(title="API", body="<p>fit</p>"),
        "notebooks/01.html": PAGE.format(title="1. One", body=CHAPTER),
        "_images/c.svg": SVG,
        "_static/a.css": "",
        "_static/mathjax.js": "",
    }
    for name, text in files.items():
        (html / name).parent.mkdir(exist_ok=True)
        (html / name).write_text(text)
    return html


@pytest.fixture(scope="module")
def tree(folder):
    return BeautifulSoup(pdf.book(folder, TOC, "Title"), "html.parser")


def test_links_stay_within_the_document(tree):
    links = {a.get_text(): a.get("href") for a in tree.select("#notebooks-01 p a")}
    assert links == {
        "self": "#notebooks-01--here",
        "intro": "#book-intro--t",
        "index": None,
        "far": "https://example.org",
    }
    places = {element["id"] for element in tree.find_all(id=True)}
    inner = [a["href"][1:] for a in tree.select("a[href^='#']")]
    assert set(inner) <= places and len(inner) == 5
    assert [a.get_text() for a in tree.select(".contents a")] == ["Start", "1. One", "API"]


def test_solutions_stand_at_the_end_and_everything_is_open(tree):
    chapter = tree.select_one("#notebooks-01")
    assert [h.get_text() for h in chapter.select("h2")] == ["Exercises", "References", "Solutions"]
    assert "Solution 1: at the end" in chapter.select_one("h2").find_next("p").get_text()
    assert all(details.has_attr("open") for details in chapter.select("details"))


def test_what_only_a_screen_has_is_gone(tree):
    assert not tree.select(".try-it, .headerlink, input, label, nav")
    assert [s["src"] for s in tree.select("script")] == ["_static/mathjax.js"]


def test_pictures_are_those_of_a_light_desk_and_found_from_the_document(tree):
    assert not tree.select("source, .photos")
    assert {img["src"] for img in tree.select("img")} == {GIF, "_images/c.svg"}
    assert tree.select_one("figure div")["style"] == "background: url(_images/c.svg)"
    assert tree.select_one("figure style").string == ".a {background: url(_images/c.svg)}"


def test_a_page_that_is_none_is_named(folder):
    with pytest.raises(ValueError, match="x: no article"):
        pdf.article("<p>", "x", set())


def test_nothing_is_clipped_in_print_and_no_frame_is_empty(folder, tree, browser):
    document = folder / "printed.html"
    document.write_text(str(tree))
    page = browser.new_page(viewport={"width": 680, "height": 900})
    page.emulate_media(media="print")
    page.goto(document.as_uri())
    wide = "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.locator("pre").count() == 2 and page.eval_on_selector_all("pre", wide) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 680
    empty = "all => all.filter(f => ![...f.querySelectorAll('img')].some(i => i.naturalWidth && i.checkVisibility()))"
    assert page.eval_on_selector_all("figure", f"({empty})") == []
    page.close()


def test_a_line_of_100_columns_fits_and_no_page_ends_within_a_formula_or_a_card(
    folder, tree, browser
):
    soup = BeautifulSoup(str(tree), "html.parser")
    added = (
        f"<pre>{'x' * 100}</pre><pre>x</pre><div class='math'>x</div><div class='sd-card'>x</div>"
    )
    soup.select_one("#notebooks-01").append(BeautifulSoup(added, "html.parser"))
    document = folder / "lines.html"
    document.write_text(str(soup))
    page = browser.new_page(
        viewport={"width": 673, "height": 900}
    )  # the text of A4 within the margins
    page.emulate_media(media="print")
    page.goto(document.as_uri())
    full, short = page.eval_on_selector_all("pre", "all => all.slice(-2).map(e => e.clientHeight)")
    assert full == short
    inside = "all => all.map(e => getComputedStyle(e).breakInside)"
    assert page.eval_on_selector_all(".math, .sd-card", inside) == ["avoid", "avoid"]
    page.close()


def test_pictures_of_styles_are_printed(tmp_path, browser):
    """Also those that the browser asks for when it lays the page out for print."""
    from PIL import Image

    frames = []
    for n in range(6):
        Image.new("RGB", (96, 96), (40 * n, 90, 30)).save(tmp_path / f"{n}.png")
        frame = '<div style="height:96px;width:96px;"></div>'
        frames.append(f'<p style="height:1500px"></p><div style="--y:url({n}.png)">{frame}</div>')
    late = "@media print { article > div > div { background: var(--y) 0/cover } }"
    text = f"<!doctype html><style>{pdf.STYLE}{late}</style><article class='printed'>{''.join(frames)}</article>"
    (tmp_path / "book.html").write_text(text)
    pdf.print_by(browser, tmp_path / "book.html", tmp_path / "book.pdf")
    assert (tmp_path / "book.pdf").read_bytes().count(b"/Subtype /Image") == 6


def test_three_restorations_stand_side_by_side_and_no_name_ends_a_page(tmp_path, browser):
    panes = "<div><div class='pane'></div></div>" * 6
    (tmp_path / "panes.html").write_text(
        f"<!doctype html><style>{pdf.STYLE}</style><article class='printed'><figure>"
        f"<div style='display:grid;grid-template-columns:1fr 1fr'>{panes}</div></figure><dl><dt>name</dt></dl>"
    )
    page = browser.new_page()
    page.goto((tmp_path / "panes.html").as_uri())
    tracks = "e => getComputedStyle(e).gridTemplateColumns.split(' ').length"
    assert page.locator("figure > div").evaluate(tracks) == 3
    assert page.locator("dt").evaluate("e => getComputedStyle(e).breakAfter") == "avoid"
    page.close()


def test_a_bookmark_keeps_the_space_at_the_end_of_a_line(tree, folder, browser):
    (folder / "long.html").write_text(str(tree))
    page = browser.new_page(viewport={"width": 673, "height": 900})
    page.goto((folder / "long.html").as_uri())
    spaces = "all => all.map(e => getComputedStyle(e).whiteSpace)"
    assert set(page.eval_on_selector_all("h1", spaces)) == {"break-spaces"}
    page.close()


def test_pages_that_are_not_built_are_asked_for(tmp_path, capsys):
    assert pdf.main(["--html", str(tmp_path / "none")]) == 2
    assert "make book" in capsys.readouterr().err
