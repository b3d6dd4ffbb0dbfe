"""Every chapter follows the template of CONTRIBUTING.md. Running the chapters is nbval's task."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = sorted((ROOT / "book").glob("*.md"))
SECTIONS = (
    "You will learn",
    "Setup",
    "See it",
    "The idea",
    "Build it",
    "Check it",
    "Experiment",
    "Read the result",
    "Where it fails",
    "Summary",
    "Exercises",
    "References",
)
LONGEST_CELL = 15  # lines; more does not fit beside an explanation
WIDEST_LINE = 100  # columns; more scrolls between the side bars of a screen 1400 pixels wide
FEWEST_EXERCISES = 4
MARKDOWN_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
UNFINISHED = re.compile(r"\b(TODO|FIXME|TBD|TO WRITE)\b")


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


def problems(notebook, name):
    """What departs from the template, one line each."""
    cells = notebook["cells"]
    texts = [source(cell) for cell in cells if cell["cell_type"] == "markdown"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    return [
        *head_problems(notebook, name),
        *section_problems(texts),
        *(line for text in texts for line in image_problems(text)),
        *(line for text in texts for line in maths_problems(text)),
        *(line for cell in code for line in cell_problems(cell)),
        *(line for cell in code for line in idiom_problems(source(cell))),
        *(line for cell in cells for line in colour_problems(source(cell))),
        *question_problems(cells),
        *exercise_problems(cells),
        *(
            f"unfinished: {source(cell)[:50]!r}"
            for cell in cells
            if UNFINISHED.search(source(cell))
        ),
    ]


def head_problems(notebook, name):
    if (notebook["nbformat"], notebook["nbformat_minor"]) < (4, 5):
        yield f"nbformat is {notebook['nbformat']}.{notebook['nbformat_minor']}, expected 4.5"
    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "kernelspec is not python3"
    ids = [cell.get("id") for cell in notebook["cells"]]
    if None in ids or len(set(ids)) != len(ids):
        yield "cell ids are missing or repeated"
    head = source(notebook["cells"][0])
    number = name.partition("_")[0].lstrip("0")  # 13b is the second page of chapter 13
    if not head.startswith(f"# {number}. "):
        yield f"the title must start with '# {number}. ', got {head[:20]!r}"
    if not re.search(r"^> .*\?", head, re.MULTILINE):
        yield "the first cell asks no question in a blockquote"
    if f"/notebooks/{name})" not in head or "colab.research.google.com" not in head:
        yield "the first cell has no Colab badge for this notebook"
    if not (re.search(r"\bCPU\b", head) and re.search(r"\bGPU\b", head)):
        yield "the first cell does not state the time on CPU and GPU"
    if not re.search(
        r"Reading: about \d+ min · Needs: .+ · \[Further reading\]\(#references\)$", head
    ):
        yield "the first cell does not end in reading time, prerequisites and further reading"


def section_problems(texts):
    found = [m[1].strip() for t in texts for m in re.finditer(r"^## (.+)$", t, re.MULTILINE)]
    if found != list(SECTIONS):
        yield f"sections are {found}, expected {list(SECTIONS)}"
    titles = sum(len(re.findall(r"^# ", text, re.MULTILINE)) for text in texts)
    if titles != 1:
        yield f"{titles} top-level titles, expected 1"


def image_problems(text):
    for match in MARKDOWN_IMAGE.finditer(text):
        if not match["alt"].strip():
            yield f"image without alt text: {text[match.start() : match.start() + 60]!r}"
    for tag in HTML_IMAGE.findall(text):
        if not re.search(r"\balt=\"[^\"]*\S[^\"]*\"", tag):
            yield f"image without alt text: {tag[:60]!r}"


def maths_problems(text):
    """Displayed maths is a paragraph of its own: after a line of text, the page shows its source."""
    before, inside = "", False
    for line in map(str.strip, text.splitlines()):
        # A directive's first line and its options are no text.
        after_text = before and not before.startswith(":")
        if not inside and "$$" in line and (after_text or not line.startswith("$$")):
            yield f"no blank line before displayed maths: {line[:50]!r}"
        inside ^= line.count("$$") % 2 == 1
        before = line


def colour_problems(text):
    """Lines that are black by day are white in a reader's dark mode: captions name their form."""
    for found in re.findall(r"(?i)\bblack(?::| (?:dash|dot|line|mark|curve|cross)\w*)", text):
        yield f"{found!r} is white in the dark; name its form"


def question_problems(cells):
    """A reader guesses, then drags, then opens the answer: a caption that tells it spoils the guess."""
    asked = False
    for cell in cells:
        asked |= "**Before you drag:**" in source(cell)
        if asked and "viz.explore(" in source(cell):
            if "answer=" not in source(cell):
                yield "the slider after 'Before you drag' folds no answer"
            asked = False
    if asked:
        yield "no slider after 'Before you drag'"


def cell_problems(cell):
    first = (source(cell).splitlines() or [""])[0][:50]
    if "nbval-check-output" not in tags(cell):
        if cell["outputs"]:
            yield f"stored output below {first!r}; run book/scripts/sync.py"
        if cell["execution_count"] is not None:
            yield f"stored execution count at {first!r}; run book/scripts/sync.py"
    for line in source(cell).splitlines():
        if (
            len(line) > WIDEST_LINE and "%pip" not in line
        ):  # the pip line is cut to a sentence on pages
            yield f"{len(line)} columns in {line.strip()[:50]!r}, expected at most {WIDEST_LINE}"
    # Setup is a list of imports: nobody reads it beside an explanation.
    if not {"hide-input", "solution", "setup"} & set(tags(cell)):
        lines = len(source(cell).splitlines())
        if lines > LONGEST_CELL:
            yield f"{lines} lines in the cell {first!r}, expected at most {LONGEST_CELL}"


def idiom_problems(code):
    """What a reader should not learn from us."""
    code = "\n".join("    pass" if "%pip" in line else line for line in code.splitlines())
    first, held = code.partition("\n")[0][:50], "with " in code or "finally:" in code
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Tuple | ast.ListComp):
            yield f"a comma or a comprehension for its effects in the cell {first!r}"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eqreg"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            if any(name.startswith("_") for name in names):
                yield f"a private import in the cell {first!r}"
        if isinstance(node, ast.Attribute) and node.attr.startswith("register_") and not held:
            if node.attr.endswith("hook"):
                yield f"hooks stay after an exception in the cell {first!r}: use `with` or `finally`"


def exercise_problems(cells):
    """Each `### Exercise n` has a folded hint and, before the next one, one tested solution."""
    exercises = []  # (number, everything until the next exercise)
    for cell in cells:
        text = source(cell)
        heading = re.search(r"^### Exercise (\d+)\b", text, re.MULTILINE)
        if cell["cell_type"] == "markdown" and heading:
            exercises.append((int(heading[1]), [cell]))
        elif exercises and not text.startswith("## "):
            exercises[-1][1].append(cell)
    numbers = [number for number, _ in exercises]
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < FEWEST_EXERCISES:
        yield f"exercises {numbers}, expected 1, 2, ... and at least {FEWEST_EXERCISES}"
    for number, group in exercises:
        if not any("<summary>Hint" in source(cell) for cell in group):
            yield f"exercise {number} has no folded hint"
        solutions = [cell for cell in group if "solution" in tags(cell)]
        if len(solutions) != 1:
            yield f"exercise {number} has {len(solutions)} solution cells, expected 1"
        for cell in solutions:
            yield from (f"solution {number} {line}" for line in solution_problems(cell, number))


def solution_problems(cell, number):
    metadata = cell["metadata"]
    if not source(cell).startswith(f"# @title Solution {number}"):
        yield f"must start with '# @title Solution {number}'"
    if "hide-cell" not in tags(cell):
        yield "is not tagged hide-cell, which folds it in the book"
    if metadata.get("cellView") != "form":
        yield "lacks metadata cellView: form, which folds it in Colab"
    if not metadata.get("jupyter", {}).get("source_hidden"):
        yield "lacks metadata jupyter.source_hidden, which folds it in JupyterLab"
    last = ast.parse(source(cell)).body[-1]
    while getattr(last, "body", None):  # the last statement of a loop or a `with` counts
        last = last.body[-1]
    if not isinstance(last, ast.Assert):
        yield "does not end in an assert"


def test_there_are_chapters():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_chapter_follows_the_template(path):
    found = problems(json.loads(path.read_text(encoding="utf8")), path.name)
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_maths_of_a_page_stands_alone(path):
    assert not list(maths_problems(path.read_text(encoding="utf8")))


def cell(kind, text, number, **metadata):
    extra = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "id": str(number), "metadata": metadata, "source": text, **extra}


def good_chapter():
    head = (
        "# 1. Title\n\n> Why?\n\n"
        "[![Open in Colab](b.svg)](https://colab.research.google.com/x/notebooks/01_x.ipynb)\n"
        "CPU 10 s · GPU 5 s · Reading: about 5 min · Needs: chapter 0 · [Further reading](#references)"
    )
    parts = [("markdown", head, {})]
    for section in SECTIONS:
        parts.append(("markdown", f"## {section}\n\nText.", {}))
        if section == "Exercises":
            folded = {
                "tags": ["solution", "hide-cell"],
                "cellView": "form",
                "jupyter": {"source_hidden": True},
            }
            for n in range(1, FEWEST_EXERCISES + 1):
                hint = "<details><summary>Hint</summary>x</details>"
                parts.append(("markdown", f"### Exercise {n}\n\n{hint}", {}))
                parts.append(("code", f"# @title Solution {n}\nassert True", folded))
    kernel = {"kernelspec": {"name": "python3"}}
    cells = [cell(kind, text, i, **data) for i, (kind, text, data) in enumerate(parts)]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": cells}


def drop_a_section(chapter):
    del chapter["cells"][5]


def swap_sections(chapter):
    chapter["cells"][3:5] = chapter["cells"][4:2:-1]


def repeat_an_id(chapter):
    chapter["cells"][1]["id"] = chapter["cells"][0]["id"]


def store_an_output(chapter):
    chapter["cells"][-2]["outputs"] = [{}]


def long_cell(chapter):
    chapter["cells"].append(cell("code", "x = 1\n" * (LONGEST_CELL + 1), "new"))


def wide_line(chapter):
    chapter["cells"].append(cell("code", "x = 1  # " + "wide " * 20, "new"))


def no_prerequisites(chapter):
    head = chapter["cells"][0]
    head["source"] = head["source"].replace("Needs: chapter 0 · ", "")


def image_without_alt(chapter):
    chapter["cells"][3]["source"] += "\n\n![](picture.png)"


def html_image_without_alt(chapter):
    chapter["cells"][3]["source"] += '\n\n<img src="picture.png" alt="">'


def solution_without_assert(chapter):
    chapter["cells"][-2]["source"] = "# @title Solution 4\nassert True\nprint(1)"


def solution_open_in_colab(chapter):
    chapter["cells"][-2]["metadata"].pop("cellView")


def no_hint(chapter):
    chapter["cells"][-3]["source"] = "### Exercise 4"


def maths_after_text(chapter):
    chapter["cells"][3]["source"] += "\n\n:::{prf:proof}\nHence\n$$x$$\n:::"


def unfinished(chapter):
    chapter["cells"][3]["source"] += "\n\nTO WRITE"


def comma_for_effects(chapter):
    chapter["cells"][-2]["source"] = "# @title Solution 4\nprint(1), print(2)\nassert True"


def comprehension_for_effects(chapter):
    chapter["cells"].append(cell("code", "[print(i) for i in range(3)]", "new"))


def private_import(chapter):
    chapter["cells"].append(cell("code", "from eqreg.viz._slider import explore", "new"))


def hook_that_stays(chapter):
    chapter["cells"].append(cell("code", "h = f.register_forward_hook(g)\nf(x)\nh.remove()", "new"))


def black_line(chapter):
    chapter["cells"].append(cell("code", "show(caption='The black line is the best.')", "new"))


def no_answer(chapter):
    chapter["cells"][3]["source"] += "\n\n**Before you drag:** where?"
    chapter["cells"].insert(4, cell("code", "viz.explore(draw, (1, 2), caption='There.')", "new"))


def no_slider(chapter):
    chapter["cells"][3]["source"] += "\n\n**Before you drag:** where?"


def badge_of_another(chapter):
    chapter["cells"][0]["source"] = chapter["cells"][0]["source"].replace("01_x", "02_y")


def test_a_good_chapter_passes():
    assert problems(good_chapter(), "01_x.ipynb") == []


@pytest.mark.parametrize(
    "spoil",
    [
        drop_a_section,
        swap_sections,
        repeat_an_id,
        store_an_output,
        long_cell,
        wide_line,
        no_prerequisites,
        image_without_alt,
        html_image_without_alt,
        solution_without_assert,
        solution_open_in_colab,
        no_hint,
        no_answer,
        no_slider,
        comma_for_effects,
        comprehension_for_effects,
        private_import,
        hook_that_stays,
        badge_of_another,
        black_line,
        maths_after_text,
        unfinished,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_the_check_finds_one_fault(spoil):
    chapter = good_chapter()
    spoil(chapter)
    assert len(problems(chapter, "01_x.ipynb")) == 1
