"""Sphinx extension: what depends on the repository's address, `repository.url` of _config.yml.

Until it has one, pages show no button, link or pip line that would lead nowhere; where a sentence has
to say so, pages ask with the directive ``{only}``, tag ``published``. Once it has, Colab opens the
notebooks of the branch `colab`, whose text is plain (see plain_text.py).
"""

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

NOBODY = "github.com/OWNER/"
NO_BADGE = "colab.research.google.com/github/OWNER/"
NOT_YET = r"\1pass  # the library's address is not known yet: see \"How to run the book\""


def configure(app, config):
    options = config.html_theme_options
    if NOBODY in options.get("repository_url", ""):
        options.update(use_repository_button=False, use_issues_button=False, launch_buttons={})
    else:
        app.tags.add("published")
        options["repository_branch"] = "colab"  # only the Colab button reads it


def without_address(code):
    """A listing without the lines that name nobody's repository."""
    code = re.sub(rf"(?m)^( *)%pip .*{NOBODY}.*$", NOT_YET, code)
    return "\n".join(line for line in code.split("\n") if NOBODY not in line)


class Address(SphinxPostTransform):
    default_priority = 197

    def run(self, **_):
        if "published" in self.app.tags:
            for link in self.document.findall(nodes.reference):
                address = link.get("refuri", "")
                if "colab.research.google.com/github/" in address:
                    link["refuri"] = re.sub("/blob/[^/]+/", "/blob/colab/", address)
            return
        for link in list(self.document.findall(nodes.reference)):
            if NOBODY in link.get("refuri", "") or NO_BADGE in link.get("refuri", ""):
                self.remove(link)
        for listing in self.document.findall(nodes.literal_block):
            if NOBODY in listing.astext():
                code = without_address(listing.astext())
                listing.rawsource = code
                listing.children = [nodes.Text(code)]

    @staticmethod
    def remove(link):
        parent, place = link.parent, link.parent.index(link)
        after = parent.children[place + 1 :]
        kept = [] if any(link.findall(nodes.image)) else link.children
        parent.children[place : place + 1] = kept
        if not kept and after and isinstance(after[0], nodes.Text):  # "badge · CPU: 40 s"
            parent.replace(after[0], nodes.Text(after[0].lstrip(" ·")))


def setup(app):
    app.connect("config-inited", configure, priority=900)
    app.add_post_transform(Address)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
