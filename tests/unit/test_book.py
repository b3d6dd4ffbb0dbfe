"""The book's pages name what there is, and nothing else."""

import re
from pathlib import Path

import yaml

import eqreg

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
LISTED = [page["file"] for part in TOC["parts"] for page in part["chapters"]]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def read(page):
    return (ROOT / "book" / page).read_text(encoding="utf8")


def test_contents_list_every_chapter_in_order():
    assert [page.removeprefix("notebooks/") for page in LISTED if "notebooks/" in page] == CHAPTERS


def test_contents_list_every_page():
    pages = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")}
    assert pages == {TOC["root"], *(page for page in LISTED if page.startswith("book/"))}


def test_introduction_links_to_every_chapter():
    assert sorted(re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)", read("intro.md"))) == CHAPTERS


def test_reference_has_every_public_name():
    named = set(re.findall(r"\beqreg\.(\w+)", read("api.md")))
    assert set(eqreg.__all__) <= named


def test_every_citation_has_an_entry():
    keys = set(re.findall(r"^@\w+\{(\w+),", read("references.bib"), re.MULTILINE))
    texts = [path.read_text(encoding="utf8") for path in (ROOT / "book").glob("*.md")]
    texts += [path.read_text(encoding="utf8") for path in (ROOT / "notebooks").glob("*.ipynb")]
    cited = {
        key.strip()
        for text in texts
        for group in re.findall(r"\{cite:\w+\}`([^`]+)`", text)
        for key in group.split(",")
    }
    assert cited <= keys
