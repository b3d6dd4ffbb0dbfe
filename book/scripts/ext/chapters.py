"""Sphinx extension: "chapter 9" in running text leads to chapter 9.

Notebooks and pages say the number alone, which reads well in Colab and in the source; a page links it. Headings,
code, figures and what is a link already stay as they are, and a chapter does not link to itself.
"""

import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

NUMBER = r"\d+b?"
# "chapter 9", "Chapters 9 and 10", "chapters 7, 8 and 11b", "chapters 13 to 16", "chapters 13-16".
# A number after a comma is a chapter's only in a list that says "chapters" and ends in "and" or "to".
LIST = rf"[Cc]hapters {NUMBER}(?:, {NUMBER})*(?:,? (?:and|to) |[–-]){NUMBER}\b"
MENTION = re.compile(rf"\b(?:{LIST}|[Cc]hapters? {NUMBER}\b)")
TITLE = re.compile(rf"({NUMBER})\. ")
LEFT_ALONE = (
    nodes.reference,
    nodes.title,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.raw,
)


def numbered(env) -> dict[str, str]:
    """Number of a chapter -> its page, read off the titles."""
    found = ((TITLE.match(title.astext()), page) for page, title in env.titles.items())
    return {match[1]: page for match, page in found if match}


def pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """Parts of a text, each with the number of the chapter that it names, or None."""
    start = 0
    for mention in MENTION.finditer(text):
        numbers = list(re.finditer(rf"{NUMBER}", mention[0]))
        for i, number in enumerate(numbers):
            # The first link takes the word with it: "chapter 9".
            begin = mention.start() + (0 if i == 0 else number.start())
            if begin > start:
                yield text[start:begin], None
            start = mention.start() + number.end()
            yield text[begin:start], number[0]
    if start < len(text):
        yield text[start:], None


class ChapterLinks(SphinxPostTransform):
    default_priority = 196

    def run(self, **_):
        here, pages = self.env.docname, numbered(self.env)
        for text in list(self.document.findall(nodes.Text)):
            if "hapter" not in text or self.inside(text):
                continue
            made = [
                self.node(piece, pages.get(number or ""), here) for piece, number in pieces(text)
            ]
            if any(isinstance(node, nodes.reference) for node in made):
                text.parent.replace(text, made)

    def node(self, text: str, page: str | None, here: str) -> nodes.Node:
        if page is None or page == here:
            return nodes.Text(text)
        address = self.app.builder.get_relative_uri(here, page)
        title = self.env.titles[page].astext()
        return nodes.reference("", text, refuri=address, internal=True, reftitle=title)

    @staticmethod
    def inside(node: nodes.Node) -> bool:
        while node is not None:
            if isinstance(node, LEFT_ALONE):
                return True
            node = node.parent
        return False


def setup(app):
    app.add_post_transform(ChapterLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
