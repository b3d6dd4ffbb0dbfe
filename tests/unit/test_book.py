"""The book's pages name what there is, and nothing else."""

import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import eqreg

ROOT = Path(__file__).resolve().parents[2]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf8"))
LISTED = [
    listed["file"]
    for part in TOC["parts"]
    for page in part["chapters"]
    for listed in (page, *page.get("sections", ()))
]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def read(page):
    return (ROOT / "book" / page).read_text(encoding="utf8")


def test_contents_list_every_chapter_in_order():
    assert [page.removeprefix("notebooks/") for page in LISTED if "notebooks/" in page] == CHAPTERS


def test_contents_list_every_page():
    found = [*(ROOT / "book").glob("*.md"), *(ROOT / "book" / "api").glob("*.md")]
    pages = {path.relative_to(ROOT).with_suffix("").as_posix() for path in found}
    assert pages == {TOC["root"], *(page for page in LISTED if page.startswith("book/"))}


def test_introduction_links_to_every_chapter():
    assert sorted(re.findall(r"\(\.\./notebooks/(\w+)\.ipynb\)", read("intro.md"))) == CHAPTERS


def test_reference_has_every_public_name():
    pages = [path.read_text(encoding="utf8") for path in (ROOT / "book" / "api").glob("*.md")]
    named = {n for page in pages for n in re.findall(r"(?:::|^ +) *eqreg\.(\w+)", page, re.M)}
    assert set(eqreg.__all__) <= named


def test_every_public_name_has_an_example_that_runs():
    """`--doctest-modules` runs them; pages of the API show them."""
    public = {n: getattr(eqreg, n) for n in eqreg.__all__}
    assert not [n for n, thing in public.items() if ">>> " not in (thing.__doc__ or "")]


# Endings of files, and an argument that is called like a folder.
NO_NAMES = {"eqreg.svg", "eqreg.safetensors", "eqreg.strict.order"}


def exists(name):
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        # These need the frameworks of others.
        return name.startswith("eqreg.training.integrations.")
    return True


def test_every_name_of_the_library_exists():
    """In pages, docstrings and scripts; after a move, what still names the old place."""
    folders = "|".join(p.name for p in (ROOT / "eqreg").iterdir() if (p / "__init__.py").is_file())
    named = re.compile(rf"\beqreg((?:\.[a-zA-Z_]\w*)+)|`~?((?:{folders})(?:\.\w+)+)[(`]")
    places = (
        "*.md",
        "book/*.md",
        "book/api/*.md",
        "notebooks/*.ipynb",
        "eqreg/**/*.py",
        "benchmarks/*.py",
    )
    texts = {path: path.read_text(encoding="utf8") for place in places for path in ROOT.glob(place)}
    del texts[ROOT / "CHANGELOG.md"]  # tells of names that have gone
    found = {
        "eqreg" + (match[1] or "." + match[2]): path
        for path, text in texts.items()
        for match in named.finditer(text)
    }
    assert len(found) > 100
    missing = {n for n in set(found) - NO_NAMES if not exists(n)}
    assert {name: str(found[name]) for name in missing} == {}


@pytest.mark.parametrize(
    ("name", "there"),
    [("eqreg.losses", False), ("eqreg.soft.strengths", False), ("eqreg.C4.order", True)],
)
def test_a_name_that_does_not_exist_is_found(name, there):
    assert exists(name) == there


def entries():
    """Key -> (type, fields) of the bibliography."""
    found = {}
    for kind, key, body in re.findall(
        r"^@(\w+)\{(\w+),\n(.*?)^\}", read("references.bib"), re.M | re.S
    ):
        found[key] = kind, dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", body, re.M))
    return found


def citations():
    texts = [path.read_text(encoding="utf8") for path in (ROOT / "book").glob("*.md")]
    texts += [path.read_text(encoding="utf8") for path in (ROOT / "notebooks").glob("*.ipynb")]
    groups = [g for text in texts for g in re.findall(r"\{cite:\w+\}`([^`]+)`", text)]
    return {key.strip() for group in groups for key in group.split(",")}


def test_what_is_cited_is_what_is_listed():
    assert citations() == set(entries())


NEEDED = {
    "article": {"journal", "volume", "pages"},
    "inproceedings": {"booktitle"},
    "misc": set(),
    "book": {"publisher"},
    "techreport": {"institution", "number"},
}


def is_isbn(number):
    """The check digit of 10 or 13 digits."""
    digits = [10 if d == "X" else int(d) for d in number.replace("-", "")]
    if len(digits) == 10:
        return sum((10 - i) * d for i, d in enumerate(digits)) % 11 == 0
    return len(digits) == 13 and sum((1 + 2 * (i % 2)) * d for i, d in enumerate(digits)) % 10 == 0


def test_isbn():
    assert is_isbn("0-940600-14-5") and is_isbn("978-0-88385-757-1")
    assert not is_isbn("0-940600-14-6") and not is_isbn("978-0-88385-757-2") and not is_isbn("1")


def test_every_entry_is_complete_and_can_be_found():
    for key, (kind, fields) in entries().items():
        # The number of an article that no public page states is left out; its DOI finds it.
        needed = {"title", "author", "year"} | NEEDED[kind]
        missing = needed - ({"pages"} if "doi" in fields else set())
        assert missing <= set(fields), f"{key} lacks {sorted(missing - set(fields))}"
        assert " others" not in fields["author"], f"{key} does not name all its authors"
        assert re.fullmatch(r"\d{4}|n\.d\.", fields["year"]), f"{key}: year {fields['year']!r}"
        if "eprint" in fields:
            assert re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"]), f"{key}: {fields['eprint']!r}"
            assert fields.get("archiveprefix") == "arXiv", f"{key}: an eprint of which archive?"
        elif "doi" in fields:
            assert re.fullmatch(r"10\.\d{4,9}/\S+", fields["doi"]), f"{key}: {fields['doi']!r}"
        elif "isbn" in fields:
            assert kind == "book" and is_isbn(fields["isbn"]), f"{key}: {fields['isbn']!r}"
        else:
            # A page of its own; a report is found by institution and number.
            assert kind == "techreport" or fields.get("url", "").startswith("https://"), key


def test_our_extensions_are_loaded():
    """A folder for an extension says where it is; only the list says that it is wanted."""
    sphinx = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf8"))["sphinx"]
    assert set(sphinx["local_extensions"]) <= set(sphinx["config"]["extensions"])


def test_each_chapter_is_tried_with_the_extras_that_it_installs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "scripts"))
    import colab

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {path.stem: colab.extras(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {part for parts in asked.values() for part in parts.split(",")} <= set(known)
    assert asked["14_metal_artifacts"] == "ct"  # writes YAML
    (tmp_path / "x.ipynb").write_text("{}")
    with pytest.raises(ValueError, match="x.ipynb: expected one line"):
        colab.extras(tmp_path / "x.ipynb")
