"""What pages say about exercises, tests and letters is so."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMED_TEST = re.compile(r"`(test_\w+)`\s+in\s+`(tests/[\w/]+\.py)`")
# Names that several chapters give to a function of their own, and the one thing that each means.
ONE_MEANING = ("energy", "move", "disc", "orbit", "squared_norm")


def chapters():
    """Number of a chapter, such as "13b" -> its cells."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf8"))["cells"]
        yield (
            path.name.partition("_")[0].lstrip("0"),
            [(c["cell_type"], "".join(c["source"])) for c in cells],
        )


CHAPTERS = dict(chapters())


def exercises():
    """ "3.1" -> "half turns only", for every exercise of the book."""
    found = {}
    for number, cells in CHAPTERS.items():
        for _, text in cells:
            for match in re.finditer(r"^### Exercise (\d+)(?: \(open\))?: (.+)$", text, re.M):
                found[f"{number}.{match[1]}"] = match[2].replace(" (open)", "").strip()
    return found


def test_the_instructors_page_names_exercises_as_they_are():
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf8")
    rows = dict(re.findall(r"^\| (\d+b?\.\d+) (.+?) \|", page, re.M))
    known = exercises()
    assert rows and {n: known.get(n) for n in rows} == rows


def test_what_the_plan_asks_for_is_explained_in_the_table():
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf8")
    plan, _, table = page.partition("## What the exercises test")
    asked = re.findall(r"\b\d+b?\.\d\b", plan)
    assert asked and not [n for n in asked if f"| {n} " not in table]


def test_design_notes_name_tests_that_exist():
    page = (ROOT / "book" / "design_notes.md").read_text(encoding="utf8")
    named = NAMED_TEST.findall(page)
    assert len(named) >= 10
    for name, path in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf8"))
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in there, f"{path} has no {name}"


def functions(number):
    """Top-level functions of a chapter's cells: (name, number of arguments without a default)."""
    for kind, text in CHAPTERS[number]:
        if kind == "code":
            code = "\n".join("    pass" if "%pip" in line else line for line in text.splitlines())
            for node in ast.parse(code).body:
                if isinstance(node, ast.FunctionDef):
                    yield node.name, len(node.args.args) - len(node.args.defaults)


@pytest.mark.parametrize("name", ONE_MEANING)
def test_a_name_of_part_three_takes_the_same_arguments_wherever_it_is_defined(name):
    found = {
        n: args
        for n in ("8", "9", "10", "11", "11b", "12")
        for f, args in functions(n)
        if f == name
    }
    assert found and len(set(found.values())) == 1, found


def test_letters_are_used_where_the_notation_page_says():
    page = (ROOT / "book" / "notation.md").read_text(encoding="utf8")
    table = page.partition("## Letters with more than one meaning")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \$(.+?)\$ \| .+ \| ([\db, ]+) \|$", table, re.M)
    assert len(rows) > 10
    for letter, where in rows:
        symbol = re.compile(rf"(?<![A-Za-z\\]){re.escape(letter)}(?![A-Za-z])")
        for number in where.split(", "):
            maths = [
                m
                for kind, text in CHAPTERS[number]
                if kind == "markdown"
                for m in re.findall(r"\$+([^$]+)\$+", text)
            ]
            assert any(symbol.search(m) for m in maths), f"chapter {number} has no {letter}"


def test_kernels_are_k_by_k():
    for number, cells in CHAPTERS.items():
        assert not [t for kind, t in cells if kind == "markdown" and r"p\times p" in t], number


# What may stand in capitals in running text; anything else is a number that nobody filled in.
CAPITALS = set(
    """AAPM ASTM ASTRA CITATION CONTRIBUTING CUDA CVPR DICOM EPYC FISTA GELU ICRU IEEE JSON MNIST MONAI NMAR OWNER PSNR
    RATES RMSE SIGKILL SSIM SURE YAML""".split()
)


def test_no_page_waits_for_a_number():
    """A draft says HALVES where a number shall stand; none may be left."""
    pages = {p.name: p.read_text(encoding="utf8") for p in (ROOT / "book").glob("*.md")}
    for number, cells in CHAPTERS.items():
        pages[number] = "\n\n".join(text for kind, text in cells if kind == "markdown")
    for name, text in pages.items():
        for other in (r"```.*?```", r"`[^`]*`", r"\$[^$]*\$", r"<[^>]*>", r"\]\([^)]*\)"):
            text = re.sub(other, " ", text, flags=re.S)
        assert not set(re.findall(r"\b[A-Z]{4,}\b", text)) - CAPITALS, name
