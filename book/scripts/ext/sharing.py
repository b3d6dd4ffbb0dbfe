"""Sphinx extension: what a link to a page looks like elsewhere: description, card, icon, one address.

Cards need whole addresses, which a page has only once the site is published: set ``html_baseurl`` (``make
repository`` does not know where the pages will be). Until then pages carry their description alone.
"""

import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import urljoin

import matplotlib.pyplot as plt
import numpy as np
from docutils import nodes

CARD = "card.png"
LONGEST = 200  # characters; more is cut off where descriptions are shown
BLUE = "#0072B2"
WIDTH, HEIGHT = 1200, 630  # pixels of a card
FORMULA = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for one while sentences are chosen
GENERAL = "A book and a PyTorch package on rotation symmetry in image restoration, strict and soft."


def description(tree: nodes.document | None) -> str:
    """The question of a chapter, or the first paragraph of a page: of it the sentences without formulas."""
    if tree is None:
        return GENERAL
    for kind in (nodes.block_quote, nodes.paragraph):
        for node in tree.findall(kind):
            words = node.deepcopy()
            for formula in list(words.findall(nodes.math)):
                formula.parent.replace(formula, nodes.Text(FORMULA))
            said = re.split(r"(?<=[.?!])\s+", " ".join(words.astext().split()))
            text = " ".join(sentence for sentence in said if FORMULA not in sentence)
            if len(text) > 40 and "CPU:" not in text:
                return text if len(text) <= LONGEST else re.sub(r"\s+\S*$", " …", text[:LONGEST])
    return GENERAL


def tags(title: str, text: str, address: str, card: str) -> str:
    """Elements of a page's head."""
    made = [
        ("name", "description", text),
        ("property", "og:title", title),
        ("property", "og:description", text),
    ]
    made += [("property", "og:type", "article"), ("name", "twitter:title", title)]
    made += [("name", "twitter:description", text)]
    if address:
        made += [
            ("property", "og:url", address),
            ("property", "og:image", card),
            ("name", "twitter:image", card),
        ]
        made += [
            ("property", "og:image:width", str(WIDTH)),
            ("property", "og:image:height", str(HEIGHT)),
        ]
    made.append(("name", "twitter:card", "summary_large_image" if address else "summary"))
    return "\n".join(
        f'<meta {kind}="{name}" content="{escape(value)}" />' for kind, name, value in made
    )


def add(app, page, template, context, tree):
    base = app.config.html_baseurl
    title = unescape(re.sub(r"<[^>]+>", "", context.get("title", ""))) or app.config.project
    address = urljoin(base, app.builder.get_target_uri(page)) if base else ""
    card = urljoin(base, f"_static/{CARD}") if base else ""
    # Sphinx and the theme write a viewport tag each; docutils' would be a third.
    others = re.sub(r'<meta name="viewport"[^>]*>', "", context.get("metatags", ""))
    context["metatags"] = others + "\n" + tags(title, description(tree), address, card)


def draw_card(file: Path) -> None:
    """Four turns of a letter, and of the channels above it: the rotate-and-shift law as a picture."""
    figure = plt.figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    figure.text(0.05, 0.78, "eqreg", fontsize=64, color=BLUE, weight="bold")
    figure.text(0.05, 0.66, "rotation symmetry in image restoration", fontsize=30)
    grid = np.zeros((16, 16))
    grid[3:13, 4:7] = 1
    grid[3:6, 4:12] = 1
    grid[7:9, 4:10] = 0.6
    for turn in range(4):
        ax = figure.add_axes((0.05 + 0.235 * turn, 0.1, 0.2, 0.38))
        ax.imshow(np.rot90(grid, turn), cmap="Blues", vmin=0, vmax=1.2)
        ax.set(xticks=[], yticks=[])
        for channel in range(4):
            side = figure.add_axes((0.05 + 0.235 * turn + 0.05 * channel, 0.5, 0.045, 0.06))
            side.imshow([[(channel - turn) % 4]], cmap="viridis", vmin=0, vmax=3)
            side.set(xticks=[], yticks=[])
    figure.savefig(file)
    plt.close(figure)


def finish(app, problem):
    if problem is None and app.builder.format == "html":
        draw_card(Path(app.outdir) / "_static" / CARD)


def setup(app):
    app.connect("html-page-context", add, priority=900)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
