"""Sphinx extension: ways through the book. A sentence at "previous" and "next", one address for a page, a page
for addresses that lead nowhere, and search results without the source of formulas.

The address is known once ``repository.url`` of _config.yml names somebody; until then pages claim none.
"""

import re
from html import escape
from pathlib import Path

from address import NOBODY
from sharing import GENERAL, description

REPOSITORY = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)/?")
LOST = """<h1>This page is not here</h1>
<p>It may have moved, or the address has a letter too many. The <a href="{start}">introduction</a> lists all
chapters, the <a href="{search}">search</a> knows every word.</p>"""


def set_address(app, config):
    """GitHub Pages of the repository, from where Sphinx makes canonical links."""
    url = config.html_theme_options.get("repository_url", "")
    found = REPOSITORY.fullmatch(url)
    if found and NOBODY not in url and not config.html_baseurl:
        config.html_baseurl = f"https://{found[1]}.github.io/{found[2]}/"


def sentence(app, page):
    """What a page is about, or nothing if it does not say so."""
    known = app.env.__dict__.setdefault("eqreg_sentences", {})
    if page not in known:
        known[page] = description(app.env.get_doctree(page))
    return "" if known[page] == GENERAL else known[page]


def forget(app, env, *_):
    """Sentences of this build: pages may have changed since the last."""
    env.__dict__.pop("eqreg_sentences", None)


def neighbours(app, page, template, context, tree):
    """The theme shows titles alone; a reader who chooses wants to know what comes."""
    _, before, after = app.builder.relations.get(page, (None, None, None))
    for key, other in (("prev", before), ("next", after)):
        if other and context.get(key) and (text := sentence(app, other)):
            title = f'{context[key]["title"]}<span class="prev-next-words">{escape(text)}</span>'
            context[key] = {**context[key], "title": title}


def lost(app):
    start = app.builder.get_relative_uri("404", "book/intro")
    search = app.builder.get_relative_uri("404", "search")
    yield "404", {"title": "Not here", "body": LOST.format(start=start, search=search)}, "page.html"


def from_anywhere(app, page, template, context, tree):
    """The host serves 404.html for addresses of any depth, from where relative links would lead astray."""
    base = app.config.html_baseurl
    if page == "404" and base:
        script = f"if(location.href.startsWith('{base}'))document.write('<base href=\"{base}\">')"
        context["metatags"] = f"<script>{script}</script>" + context.get("metatags", "")


def readable_search(app, page, template, context, tree):
    if page == "search":
        code = (Path(__file__).parent / "search.js").read_text(encoding="utf8")
        app.add_js_file(None, body=code)


def setup(app):
    app.connect("config-inited", set_address, priority=850)
    app.connect("env-updated", forget)
    app.connect("html-page-context", neighbours)
    app.connect("html-page-context", from_anywhere, priority=950)
    app.connect("html-page-context", readable_search)
    app.connect("html-collect-pages", lost)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
