"""Sphinx extension: theorems, lemmas, propositions and definitions share one count, and have an index.

With one count, "Proposition 31" is found between 30 and 32, whatever these are. The directive
``{statement-index}`` lists all in the order of the book.
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

KINDS = ("theorem", "lemma", "proposition", "definition", "corollary")


class statement_index(nodes.General, nodes.Element):
    """Stands for the list until all pages are read and statements have numbers."""


class StatementIndex(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # it changes with every other page
        return [statement_index()]


def statements(env) -> list[tuple[int, str, str, str, nodes.title]]:
    """Number, kind, page, place on it and title of each, in order."""
    found = []
    for page in sorted({entry["docname"] for entry in getattr(env, "proof_list", {}).values()}):
        numbers = env.toc_fignumbers.get(page, {})
        for node in env.get_doctree(page).findall(
            lambda n: "countertype" in getattr(n, "attributes", {})
        ):
            place = node["ids"][0]
            number = numbers.get(node["countertype"], {}).get(place)
            if number:
                found.append((number[-1], node["realtype"], page, place, node[0]))
    return sorted(found, key=lambda entry: entry[0])


def without_brackets(title: nodes.title) -> list[nodes.Node]:
    """The words of a statement's title, which sphinx_proof puts in brackets behind the number."""
    words = [child.deepcopy() for child in title.children]
    for place, pattern in ((0, r"^\s*\("), (-1, r"\)\s*$")):
        if words and isinstance(words[place], nodes.Text):
            words[place] = nodes.Text(re.sub(pattern, "", words[place].astext()))
    return words


class FillIndex(SphinxPostTransform):
    default_priority = 8  # before references and formulas of the titles are resolved

    def run(self, **_):
        for placeholder in list(self.document.findall(statement_index)):
            body = nodes.tbody()
            for number, kind, page, place, title in statements(self.env):
                address = self.app.builder.get_relative_uri(self.env.docname, page)
                name = f"{kind.capitalize()}\u00a0{number}"
                link = nodes.reference("", name, refuri=f"{address}#{place}", internal=True)
                chapter = nodes.reference(
                    "", self.env.titles[page].astext(), refuri=address, internal=True
                )
                words = without_brackets(title)
                cells = [[link], words, [chapter]]
                body += nodes.row(
                    "", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells)
                )
            head = nodes.row(
                "",
                *(
                    nodes.entry("", nodes.paragraph(text=t))
                    for t in ("number", "what it says", "chapter")
                ),
            )
            group = nodes.tgroup(
                "",
                *(nodes.colspec(colwidth=1) for _ in range(3)),
                nodes.thead("", head),
                body,
                cols=3,
            )
            placeholder.replace_self(nodes.table("", group, classes=["colwidths-auto"]))


def one_count(app, config):
    config.prf_realtyp_to_countertyp = dict.fromkeys(KINDS, "theorem")


def setup(app):
    app.add_node(statement_index)
    app.add_directive("statement-index", StatementIndex)
    app.add_post_transform(FillIndex)
    app.connect("config-inited", one_count)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
