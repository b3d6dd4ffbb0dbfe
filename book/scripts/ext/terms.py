"""Sphinx extension: the first use of a glossary term on a page leads to it, names of the library to the API.

Sources say the word alone, which reads well in Colab. A term is linked once a page, a name once a section
(readers come back to sections, not to pages). Headings, code, figures and what is a link already stay as they
are. Search hits on a term land on the term.
"""

import re
from collections.abc import Iterator

from chapters import ChapterLinks
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

# Whose words are no uses: what lists, cites or tells of other things than the book's subject.
NOT_LINKED = (
    "book/glossary",
    "book/bibliography",
    "book/notation",
    "book/changes",
    "genindex",
    "search",
)
# Phrases in which a term means something else.
OTHERWISE = re.compile(
    r"weight decay|(?:by|a|each|per|this|first|every) group of|receptive field|field of (?:view|\d)",
    re.I,
)
NAME = re.compile(r"(?:eqreg\.)?([A-Za-z_][\w.]*?)(?:\(.*\))?")
SHORTEST = 3  # letters of a name: C4 is everywhere


def terms(env) -> dict[str, tuple[str, str]]:
    """Lower-case term -> its page and place there."""
    found = env.domains["std"].objects
    return {name.lower(): place for (kind, name), place in found.items() if kind == "term"}


def pattern(names) -> re.Pattern:
    """Any of the terms as whole words, in the plural too; the longest that fits."""
    words = (
        re.escape(name).replace(r"\ ", r"\s+") for name in sorted(names, key=len, reverse=True)
    )
    return re.compile(rf"(?<![\w-])({'|'.join(words)})(s?)(?![\w-])", re.IGNORECASE)


def pieces(text: str, match_term: re.Pattern, seen: set[str]) -> Iterator[tuple[str, str | None]]:
    """Parts of a text, each with the term that it is the first use of, or None; ``seen`` grows."""
    start, otherwise = 0, [match.span() for match in OTHERWISE.finditer(text)]
    for match in match_term.finditer(text):
        term = " ".join(match[1].lower().split())
        if term in seen or any(a <= match.start() < b for a, b in otherwise):
            continue
        seen.add(term)
        if match.start() > start:
            yield text[start : match.start()], None
        yield match[0], term
        start = match.end()
    if start < len(text):
        yield text[start:], None


def names(env) -> dict[str, tuple[str, str]]:
    """How prose may call what the API page has -> page and place there.

    A name by itself stands for what `import eqreg` gives, or for a class if only one is called so; a
    dotted end such as ``viz.show`` for what alone ends so.
    """
    objects = {
        name: (entry.docname, entry.node_id)
        for name, entry in env.domains["py"].objects.items()
        if name.startswith("eqreg.") and not entry.aliased and entry.objtype != "module"
    }
    ends: dict[str, list[str]] = {}
    for name in objects:
        parts = name.split(".")[1:]
        for i in range(len(parts)):
            ends.setdefault(".".join(parts[i:]), []).append(name)
    found = {}
    for end, owners in ends.items():
        full = f"eqreg.{end}"
        clear = "." in end or end[0].isupper()
        if full in objects:
            found[end] = objects[full]
        elif clear and len(owners) == 1:
            found[end] = objects[owners[0]]
    return {end: place for end, place in found.items() if len(end) >= SHORTEST}


def in_references(node: nodes.Node) -> bool:
    """Whether it stands among titles of works, whose words are theirs."""
    while node is not None:
        if isinstance(node, nodes.section) and "references" in node["ids"]:
            return True
        node = node.parent
    return False


class TermLinks(SphinxPostTransform):
    default_priority = 196  # as chapters: after references are resolved, before cells are folded

    def run(self, **_):
        here = self.env.docname
        if here.startswith(NOT_LINKED):
            return
        if not here.startswith("book/api"):  # docstrings are read one by one, not as a page
            self.link_terms(here, terms(self.env))
        self.link_names(here, names(self.env))

    def link_terms(self, here, known):
        if not known:
            return
        match_term = pattern(known)
        seen = {
            name
            for name, (page, place) in known.items()
            for link in self.document.findall(nodes.reference)
            if link.get("refuri", "").endswith(f"#{place}")
        }
        for text in list(self.document.findall(nodes.Text)):
            if ChapterLinks.inside(text) or in_references(text):
                continue
            made = [
                self.reference(nodes.Text(piece), here, known[term], "glossary")
                if term
                else nodes.Text(piece)
                for piece, term in pieces(text, match_term, seen)
            ]
            if len(made) > 1 or any(isinstance(node, nodes.reference) for node in made):
                text.parent.replace(text, made)

    def link_names(self, here, known):
        seen = set()
        # What the page takes from elsewhere under the same name, as escnn's `nn.FieldType`, is not ours.
        others = set(
            re.findall(r"\b(?:nn|escnn|gspaces|torch|np)\.([A-Z]\w+)", self.document.astext())
        )
        for literal in list(self.document.findall(nodes.literal)):
            match = NAME.fullmatch(literal.astext())
            place = known.get(match[1]) if match else None
            if (
                place is None
                or place[0] == here
                or match[1] in others
                or ChapterLinks.inside(literal.parent)
            ):
                continue
            section = literal.parent
            while section is not None and not isinstance(section, nodes.section):
                section = section.parent
            if (id(section), match[1]) in seen:
                continue
            seen.add((id(section), match[1]))
            literal.parent.replace(literal, self.reference(literal.deepcopy(), here, place, "API"))

    def reference(self, content, here, place, what):
        page, anchor = place
        address = f"{self.app.builder.get_relative_uri(here, page)}#{anchor}"
        link = nodes.reference("", "", content, refuri=address, internal=True, classes=["quiet"])
        link["reftitle"] = f"{content.astext()} in the {what}"
        return link


def find_terms(app):
    """Sphinx leaves glossary terms out of the search index; with a priority they are in it, with their place."""
    app.env.domains["std"].object_types["term"].attrs["searchprio"] = 1


def setup(app):
    app.add_post_transform(TermLinks)
    app.connect("builder-inited", find_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
