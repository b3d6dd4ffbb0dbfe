"""Sphinx extension: notebooks for Colab and for download, in Markdown that any reader understands.

Sources use directives and roles (``:::{prf:theorem}``, ``{cite:p}``, ``{prf:ref}``), which only the
book's builder knows. The copies that a page offers, ``_sources/notebooks/*.ipynb``, have them written
out: numbered statements in bold, citations as links with authors and year, references by number.
The workflow `book` publishes the same files as branch `colab`, from where Colab opens them.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from pybtex.database import parse_file
from pybtex.richtext import Text

STATEMENT = re.compile(r"^:::\{prf:(\w+)\} ?(.*)\n((?::\w+:.*\n)*)((?:.*\n)*?):::$", re.M)
CITATION = re.compile(r"\{cite:([pt])\}`([^`]+)`")
REFERENCE = re.compile(r"\{prf:ref\}`([^`]+)`")
ROLE = re.compile(r"\{[\w:]+\}`([^`<]+?)(?: *<[^`]*>)?`")


@dataclass(frozen=True)
class Facts:
    """What a notebook's text refers to: ``numbers[name]`` lists the name of each numbered statement
    of a notebook in order, ``labels`` says where each label is, ``works`` what each key stands for."""

    numbers: dict[str, list[str]]
    labels: dict[str, tuple[str, str]]
    works: dict[str, tuple[str, str, str]]


def texts(path):
    notebook = json.loads(Path(path).read_text(encoding="utf8"))
    return [
        "".join(cell["source"]) + "\n"
        for cell in notebook["cells"]
        if cell["cell_type"] == "markdown"
    ]


def authors(entry):
    people = entry.persons.get("author", [])
    names = [Text.from_latex(" ".join(person.last_names)).render_as("text") for person in people]
    return (
        names[0]
        if len(names) == 1
        else (f"{names[0]} and {names[1]}" if len(names) == 2 else f"{names[0]} et al.")
    )


def address(fields):
    if "url" in fields:
        return fields["url"]
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    return f"https://arxiv.org/abs/{fields['eprint']}" if "eprint" in fields else ""


def collect(paths, bibliography):
    """Number every statement as the book does: one count, through all chapters (see statements.py)."""
    count, numbers, labels = 0, {}, {}
    for path in paths:
        numbers[path.name] = []
        for text in texts(path):
            for kind, _, options, _ in STATEMENT.findall(text):
                if kind == "proof":
                    continue
                count += 1
                name = f"{kind.capitalize()} {count}"
                numbers[path.name].append(name)
                if label := re.search(r":label: *(\S+)", options):
                    labels[label[1]] = path.name, name
    entries = parse_file(str(bibliography)).entries
    works = {
        key: (authors(entry), entry.fields["year"], address(entry.fields))
        for key, entry in entries.items()
    }
    return Facts(numbers, labels, works)


def link(text, url):
    return f"[{text}]({url})" if url else text


def cited(match, works):
    found = [works[key.strip()] for key in match[2].split(",")]
    if match[1] == "t":
        return ", ".join(f"{names} ({link(year, url)})" for names, year, url in found)
    return "(" + "; ".join(link(f"{names}, {year}", url) for names, year, url in found) + ")"


def statement(match, numbers):
    kind, title, _, body = match.groups()
    if kind == "proof":
        head = "*Proof.*"
    else:
        head = f"**{next(numbers)}{f' ({title})' if title else ''}.**"
    body = body.strip()
    # A list or displayed maths is a paragraph of its own.
    gap = "\n\n" if re.match(r"\$\$|[*-] |\d+[.:] ", body) else " "
    return head + gap + body


def referred(match, name, labels):
    place, statement_name = labels[match[1]]
    return statement_name if place == name else link(statement_name, place)


def plain(text, name, facts, numbers):
    """One Markdown cell of the notebook ``name``; ``numbers`` runs through its statements."""
    text = STATEMENT.sub(lambda match: statement(match, numbers), text + "\n")
    text = CITATION.sub(lambda match: cited(match, facts.works), text)
    text = REFERENCE.sub(lambda match: referred(match, name, facts.labels), text)
    # Places within a notebook have no address in Colab.
    text = text.replace("[Further reading](#references)", "Further reading: at the end")
    return ROLE.sub(r"\1", text).rstrip("\n")


def convert(path, facts):
    """The notebook at ``path`` with plain text, as JSON."""
    notebook = json.loads(Path(path).read_text(encoding="utf8"))
    numbers = iter(facts.numbers[path.name])
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = plain("".join(cell["source"]), path.name, facts, numbers)
            cell["source"] = text.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def write_notebooks(app, error):
    if error or app.builder.format != "html":
        return
    root = Path(app.srcdir)
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    facts = collect(paths, root / "book" / "references.bib")
    for path in paths:
        if f"notebooks/{path.stem}" in app.env.found_docs:
            target = Path(app.outdir, "_sources", "notebooks", path.name)
            target.write_text(convert(path, facts), encoding="utf8")


def setup(app):
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
