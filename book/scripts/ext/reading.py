"""Sphinx extension: how a chapter looks to its reader.

The notebooks keep the order in which they run. A page shows its first figure before anything else,
and folds what is no lesson under a name ("Set-up, 30 lines", "Solution 2").
"""

import re
from collections.abc import Iterator
from html import escape

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform

FIRST_FIGURE = "first-figure"  # the id under which a page's own text finds it


def cells(tree: nodes.Node) -> Iterator[nodes.container]:
    """The code cells below a node."""
    return (node for node in tree.findall(nodes.container) if node.get("nb_element") == "cell_code")


def part(cell: nodes.container, name: str) -> nodes.container | None:
    """A cell's ``cell_code_source`` or ``cell_code_output``."""
    return next((node for node in cell.children if node.get("nb_element") == name), None)


def has_figure(output: nodes.container | None) -> bool:
    return output is not None and (
        any("<figure" in raw.astext() for raw in output.findall(nodes.raw))
        or any(output.findall(nodes.image))
    )


def section(document: nodes.document, name: str) -> nodes.section | None:
    return next((node for node in document.findall(nodes.section) if name in node["ids"]), None)


def fold_name(cell: nodes.container) -> str:
    """What the folded code of a cell is called."""
    source = part(cell, "cell_code_source")
    code = source.astext() if source is not None else ""
    if title := re.match(r"# @title (.+)", code):
        return title[1]
    output = part(cell, "cell_code_output")
    kind = "Set-up" if "tag_setup" in cell["classes"] else "Code"
    if output is not None:
        kind = "Code of this figure" if has_figure(output) else "Code of this result"
    lines = len(code.splitlines())
    return f"{kind}, {lines} line{'s' * (lines > 1)}"


def prediction(see_it: nodes.section) -> list[nodes.Node]:
    """The question that "Before you drag" asks, taken out of its paragraph."""
    for strong in see_it.findall(nodes.strong):
        if not strong.astext().startswith("Before you"):
            continue
        asked = strong.parent
        kept, moved = asked.children[: asked.index(strong)], asked.children[asked.index(strong) :]
        asked.children = kept
        if not kept:
            asked.parent.remove(asked)
        return [nodes.paragraph("", "", *moved, classes=["prediction"])]
    return []


def show_first_figure(document: nodes.document) -> None:
    """Move the first figure of "See it" below the title, and above it what to predict; fold the code."""
    see_it = section(document, "see-it")
    question = next(document.findall(nodes.block_quote), None)
    if see_it is None or question is None:
        return
    leading = []
    for cell in cells(see_it):
        leading.append(cell)
        output = part(cell, "cell_code_output")
        if has_figure(output):
            break
    else:
        return
    for each in leading:
        each.setdefault("hide_mode", "input")
        each["prompt_show"] = each["prompt_hide"] = fold_name(each)
    cell.remove(output)
    first = nodes.container("", output, ids=[FIRST_FIGURE], classes=["cell", "first-figure"])
    place = question.parent.index(question) + 1
    question.parent.insert(place, [*prediction(see_it), first])
    link = nodes.reference("", "the figure above", refid=FIRST_FIGURE, internal=True)
    cell["prompt_show"] = cell["prompt_hide"] = fold_name(cell).replace(
        "Code", "Code of this figure"
    )
    sentence = nodes.paragraph("", "It draws ", link, nodes.Text("."), classes=["figure-above"])
    cell.parent.insert(cell.parent.index(cell) + 1, sentence)


class Reading(SphinxPostTransform):
    default_priority = 198  # before myst_nb folds cells, after outputs have become HTML
    formats = ("html",)

    def run(self, **_: object) -> None:
        for cell in cells(self.document):
            if "tag_setup" in cell["classes"]:
                cell["hide_mode"] = "input"
            if "hide_mode" in cell:
                cell["prompt_show"] = cell["prompt_hide"] = fold_name(cell)
        show_first_figure(self.document)
        if (setup := section(self.document, "setup")) is not None:
            setup["classes"].append("quiet-head")


def visit_fold(translator, node):
    classes = " ".join(node["classes"])
    translator.body.append(
        f'<details class="fold {classes}">\n<summary>{escape(node["prompt_show"])}</summary>\n'
    )


def depart_fold(translator, node):
    translator.body.append("</details>\n")


def focusable_tables(app, pagename, templatename, context, doctree):
    """Tables that scroll within themselves on a phone can be reached and scrolled by keyboard."""
    if context.get("body"):
        box = '<div class="pst-scrollable-table-container"'
        context["body"] = context["body"].replace(f"{box}>", f'{box} tabindex="0">')


def without_numbers_of_fields(app, what, name, member, skip, options):
    """Fields of a named tuple, which its own text describes, are not listed as "Alias for field number 0"."""
    return True if (member.__doc__ or "").startswith("Alias for field number") else None


def setup(app):
    # myst_nb's own summary is read out as "Toggle hidden content", whatever it hides.
    app.add_node(HideCodeCellNode, html=(visit_fold, depart_fold), override=True)
    app.add_post_transform(Reading)
    app.connect("html-page-context", focusable_tables)
    app.setup_extension("sphinx.ext.autodoc")  # whose event this is
    app.connect("autodoc-skip-member", without_numbers_of_fields)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
