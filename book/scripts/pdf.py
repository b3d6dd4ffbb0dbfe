"""The whole book as one PDF, by the browser's print engine: ``make pdf`` after ``make book``.

    python book/scripts/pdf.py                      _build/eqreg.pdf
    python book/scripts/pdf.py --pages notebooks/03 notebooks/09    some pages, to look at

The pages that `_toc.yml` lists become one document: links between pages become links within it, code wraps, what
is folded is open, and the solutions of a chapter are printed at its end. A slider shows the frame it starts with.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from bs4 import BeautifulSoup, Tag

ROOT = Path(__file__).resolve().parents[2]
# What only a screen has.
SCREEN = (
    ".headerlink, .copybtn, .prev-next-area, .try-it, .btn, script, noscript, figure label, "
    "picture > source, .photos"  # the forms of a picture for phones and for dark mode
)
# Pictures that stand in styles, under a line to drag or in a frame.
STYLE_URL = re.compile(r"url\([\"']?(?!data:|https?:|#)([^)\"']+)[\"']?\)")
STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { font-size: 10.5pt; }
body, main.bd-main, article.printed { display: block !important; background: #fff; }
article.printed { max-width: none !important; width: auto; padding: 0 !important; margin: 0; }
.printed > section { break-before: page; }
.printed h1, .printed h2, .printed h3 { white-space: break-spaces; }  /* bookmarks keep the space at a line's end */
.printed h1, .printed h2, .printed h3, .printed summary, .printed .admonition-title, .printed dt { break-after: avoid; }
.printed figure, .printed figure > * > *, .printed tr, .printed .admonition-title, .printed .math, .printed .sd-card {
  break-inside: avoid; }
.printed figure { margin-left: auto; margin-right: auto; }
.printed figure > div:has(> div > .pane) { grid-template-columns: repeat(3, 1fr) !important; }
.printed img, .printed svg { max-width: 100%; height: auto; }
.printed pre { white-space: pre-wrap; overflow-wrap: anywhere; overflow: visible; font-size: 6.9pt;
  max-height: none; }
.printed div, .printed table { overflow: visible !important; max-height: none !important; }
.printed th { position: static !important; }
.printed table { font-size: 8.5pt; }
.printed td, .printed th { overflow-wrap: break-word; white-space: normal !important; min-width: 0 !important; }
.printed a { color: #0b57c0; }
.printed a.quiet { color: inherit; text-decoration: none; }
.printed mjx-container { font-size: 100% !important; }
.printed mjx-container[display="true"] { overflow: visible; }
.title-page { padding-top: 60mm; }
.contents li { list-style: none; margin: 0.2em 0; }
.contents .part { font-weight: 600; margin-top: 0.8em; }
"""
# The browser asks for a style's picture when it lays the page out for print, and prints without it.
PICTURES = """async () => {
  const styles = [...document.querySelectorAll('[style*="url("]')].map(e => e.getAttribute('style'));
  const sheets = [...document.querySelectorAll('.printed style')].map(e => e.textContent);
  const found = [...styles, ...sheets].join().matchAll(/url\\(["']?([^)"']+)["']?\\)/g);
  window.kept = [...new Set([...found].map(m => m[1]))].map(src => Object.assign(new Image(), {src}));
  await Promise.all([...document.images, ...window.kept].map(i => i.decode().catch(() => null)));
  await document.fonts.ready;
  await new Promise(next => requestAnimationFrame(() => requestAnimationFrame(next)));
}"""
FOOTER = (
    '<div style="width:100%;font-size:8px;text-align:center;color:#555">'
    '<span class="pageNumber"></span></div>'
)


def listed(toc: dict) -> list[tuple[str, list[str]]]:
    """Caption of each part and its pages, in order; the first part is the root page."""
    parts = [("", [toc["root"]])]
    for part in toc["parts"]:
        pages = [
            entry["file"]
            for chapter in part["chapters"]
            for entry in (chapter, *chapter.get("sections", ()))
        ]
        parts.append((part["caption"], pages))
    return parts


def slug(page: str) -> str:
    return re.sub(r"\W+", "-", page)


def article(html: str, page: str, pages: set[str]) -> Tag:
    """A page's text as a section of the book: its ids and links carry its name."""
    found = BeautifulSoup(html, "html.parser").select_one("article.bd-article")
    if found is None:
        raise ValueError(f"{page}: no article in its HTML; is this a page of the book?")
    found.name, found.attrs = "section", {"id": slug(page)}
    for element in found.select(SCREEN):
        element.decompose()
    for element in found.find_all(id=True):
        if element is not found:
            element["id"] = f"{slug(page)}--{element['id']}"
    here = posixpath.dirname(page)
    for link in found.find_all(href=True):
        link["href"] = inner(link["href"], page, here, pages)
        if not link["href"]:
            del link["href"]
    for picture in found.find_all(src=True):
        if not re.match(r"data:|https?:", picture["src"]):
            picture["src"] = posixpath.normpath(posixpath.join(here, picture["src"]))
        picture.attrs.pop("loading", None)  # print does not scroll
    for styled in found.find_all(style=True):
        styled["style"] = STYLE_URL.sub(lambda m: moved(m, here), styled["style"])
    for sheet in found.find_all("style"):
        sheet.string = STYLE_URL.sub(lambda m: moved(m, here), sheet.string or "")
    solutions_last(found)
    for details in found.find_all("details"):
        details["open"] = ""
    return found


def moved(match: re.Match, here: str) -> str:
    """An address in a style, as seen from the folder of the whole document."""
    return f"url({posixpath.normpath(posixpath.join(here, match[1]))})"


def inner(href: str, page: str, here: str, pages: set[str]) -> str:
    """Where a link leads in the printed book; nowhere if its page is not printed."""
    if re.match(r"[a-z]+:", href):
        return href
    path, fragment = urldefrag(href)
    target = posixpath.normpath(posixpath.join(here, path)).removesuffix(".html") if path else page
    if target not in pages:
        return ""
    return f"#{slug(target)}--{fragment}" if fragment else f"#{slug(target)}"


def solutions_last(chapter: Tag) -> None:
    """Move folded solutions behind the chapter's end, so that a reader may think first."""
    folds = [
        fold
        for fold in chapter.find_all("details")
        if fold.summary and fold.summary.get_text().strip().startswith("Solution")
    ]
    if not folds:
        return
    last = BeautifulSoup("<section><h2>Solutions</h2></section>", "html.parser").section
    for fold in folds:
        name = fold.summary.get_text().strip()
        fold.replace_with(
            BeautifulSoup(f"<p><em>{name}: at the end of the chapter.</em></p>", "html.parser")
        )
        last.append(fold)
    chapter.append(last)


def book(html: Path, toc: dict, title: str, only: list[str] | None = None) -> str:
    """One document of all pages, with the style sheets and the maths of the first."""
    parts = listed(toc)
    wanted = [page for _, pages in parts for page in pages]
    if only:
        wanted = [page for page in wanted if page.startswith(tuple(only))]
    texts = {page: (html / f"{page}.html").read_text(encoding="utf8") for page in wanted}
    first = BeautifulSoup(texts[wanted[0]], "html.parser")
    depth = posixpath.dirname(wanted[0])
    head = []
    for element in first.head.select("link[rel=stylesheet], script"):
        for key in ("href", "src"):
            if key in element.attrs and not re.match(r"https?:", element[key]):
                element[key] = posixpath.normpath(posixpath.join(depth, element[key]))
        text = element.get("href", "") + element.get("src", "") + (element.string or "")
        if element.name == "link" or "athjax" in text or "MathJax" in text:
            head.append(str(element))
    sections = {page: article(text, page, set(wanted)) for page, text in texts.items()}
    lines = []
    for caption, pages in parts:
        entries = [
            f'<li><a href="#{slug(page)}">{sections[page].h1.get_text()}</a></li>'
            for page in pages
            if page in sections
        ]
        if entries:
            lines += [f'<li class="part">{caption}</li>'] * bool(caption) + entries
    return (
        f'<!doctype html><html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>{title}</title>{"".join(head)}<style>{STYLE}</style></head>'
        f'<body><main class="bd-main"><article class="bd-article printed">'
        f'<div class="title-page"><h1>{title}</h1></div>'
        f'<section class="contents"><h1>Contents</h1><ul>{"".join(lines)}</ul></section>'
        f"{''.join(map(str, sections.values()))}</article></main></body></html>"
    )


def write(document: Path, target: Path) -> None:
    """Print an HTML file."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        print_by(browser, document, target)
        browser.close()


def print_by(browser, document: Path, target: Path) -> None:
    page = browser.new_page()
    page.set_default_timeout(0)  # a thousand formulas take their time
    page.goto(document.as_uri())
    page.evaluate("window.MathJax?.startup?.promise.then(() => null)")
    page.emulate_media(media="print")
    page.evaluate(PICTURES)
    page.pdf(
        path=str(target),
        prefer_css_page_size=True,
        print_background=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOTER,
        outline=True,
        tagged=True,
    )
    page.close()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The book as one PDF.")
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html", help="built pages")
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "eqreg.pdf")
    parser.add_argument("--pages", nargs="+", help="only pages whose path begins so")
    options = parser.parse_args(arguments)
    if not options.html.is_dir():
        print(f"pdf.py: no pages in {options.html}; build them first: make book", file=sys.stderr)
        return 2
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
    title = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["title"]
    document = options.html / "printed.html"  # beside the pages, whose style and pictures it uses
    try:
        document.write_text(book(options.html, toc, title, options.pages), encoding="utf8")
        write(document, options.out)
    finally:
        document.unlink(missing_ok=True)
    print(f"The book is at {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
