"""The way out of Jupyter Book 1: `myst.yml`, the contents for Jupyter Book 2, from `_toc.yml` and `_config.yml`.

Jupyter Book 1 is only maintained. `make sync` keeps this file equal to the contents, and `make book2` builds the
pages with Jupyter Book 2; CONTRIBUTING.md says what does not carry over.
"""

from __future__ import annotations

from pathlib import Path

import yaml

HEAD = "# Written by book/scripts/sync.py from _toc.yml and _config.yml, for `make book2`.\n"


def entry(page: dict, root: Path) -> dict:
    """One page with those below it; Jupyter Book 2 wants the ending of its file."""
    name = page["file"]
    ending = ".ipynb" if (root / f"{name}.ipynb").exists() else ".md"
    made = {"file": name + ending}
    if page.get("sections"):
        made["children"] = [entry(section, root) for section in page["sections"]]
    return made


def contents(root: Path) -> str:
    """The text of `myst.yml`."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf8"))
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf8"))
    parts = [
        {"title": part["caption"], "children": [entry(page, root) for page in part["chapters"]]}
        for part in toc["parts"]
    ]
    project = {
        "title": config["title"],
        "authors": [{"name": config["author"]}],
        "copyright": str(config["copyright"]),
        "bibliography": list(config["bibtex_bibfiles"]),
        "toc": [entry({"file": toc["root"]}, root), *parts],
    }
    if "/OWNER/" not in config["repository"]["url"]:
        project["github"] = config["repository"]["url"]
    made = {"version": 1, "project": project, "site": {"template": "book-theme"}}
    return HEAD + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=100)
