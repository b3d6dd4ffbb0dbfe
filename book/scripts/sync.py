"""Keep what is written twice equal to where it is written once.

    python book/scripts/sync.py             rewrite everything derived
    python book/scripts/sync.py --check     list what is stale and exit 1 if anything is
    python book/scripts/sync.py --set URL   change `repository.url` in _config.yml, then rewrite

Sources: `repository` in _config.yml (address, branch) and `version` in pyproject.toml. Derived:
Colab badges and the pip line of the notebooks' setup cells, our addresses in the files and pages
below, the version in CITATION.cff, the minutes that a chapter takes to read, the contents for Jupyter
Book 2 (myst.yml). Numbers in prose that are marked come from artifacts/ (stated.py
says how). Notebooks are also normalised (no outputs, no execution counts,
no metadata that editors leave behind), so that a diff shows what an author changed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import minutes
import myst
import stated

ROOT = Path(__file__).resolve().parents[2]
BADGE = "../book/images/colab.svg"  # ours: showing Google's would send every reader there
KEEP_OUTPUT = "nbval-check-output"  # tag of the few cells whose stored output is a test
CELL_METADATA = ("tags", "cellView", "jupyter")
TEXT_FILES = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "CITATION.cff",
    "pyproject.toml",
    "environment.yml",
    "book/*.md",
    ".github/workflows/*.yml",
)
URL = re.compile(r"https://github\.com/(?P<owner>[\w.-]+)/(?P<name>[\w-]+)")


def pages_url(url: str) -> str:
    """Address of the published book: GitHub Pages of the repository."""
    match = URL.fullmatch(url)
    if not match:
        raise ValueError(
            f"repository.url must look like https://github.com/OWNER/NAME, got {url!r}"
        )
    return f"https://{match['owner']}.github.io/{match['name']}"


def source(text: str, key: str) -> str:
    """The value of a line `key: value` (YAML) or `key = "value"` (TOML)."""
    match = re.search(rf"^\s*{key}\s*[:=]\s*[\"']?([^\s\"'#]+)", text, re.MULTILINE)
    if not match:
        raise ValueError(f"no line `{key}: ...` found")
    return match[1]


def rewrite_links(text: str, old: str, url: str, branch: str) -> str:
    """Point our links to `url`: those that show by their form that they are ours, and `old`."""
    colab = url.replace("https://github.com/", "https://colab.research.google.com/github/")
    text = re.sub(
        r"https://colab\.research\.google\.com/github/[^/\s]+/[^/\s]+/blob/[^/\s]+/",
        f"{colab}/blob/{branch}/",
        text,
    )
    text = re.sub(
        r"(eqreg(?:\[[\w,]*\])? @ git\+)https://[^\s\"'@\\]+(?:@[\w./-]+)?",
        rf"\g<1>{url}@{branch}",
        text,
    )
    text = text.replace(pages_url(old), pages_url(url))
    return re.sub(re.escape(old) + r"(?![\w-])", url, text)


def normalise(text: str, name: str, url: str, branch: str, old: str, root: Path = ROOT) -> str:
    """A notebook as we store it; `name` is its file name, which its own badge must carry."""
    notebook = json.loads(text)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook["metadata"] = {"kernelspec": kernel, "language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        metadata = cell.get("metadata", {})
        cell["metadata"] = {key: metadata[key] for key in CELL_METADATA if metadata.get(key)}
        if cell["cell_type"] == "code":
            keep = KEEP_OUTPUT in metadata.get("tags", ())
            cell["outputs"] = cell["outputs"] if keep else []
            cell["execution_count"] = cell["execution_count"] if keep else None
        lines = "".join(cell["source"])
        lines = rewrite_links(lines, old, url, branch)
        lines = lines.replace("https://colab.research.google.com/assets/colab-badge.svg", BADGE)
        lines = re.sub(
            rf"({re.escape(BADGE)}\)\]\(\S+/blob/[^/\s]+/)[^)\s]+", rf"\g<1>notebooks/{name}", lines
        )
        if cell["cell_type"] == "markdown":
            lines = _numbers(lines, Path(name), root)
        cell["source"] = lines.rstrip().splitlines(keepends=True)
    for head in notebook["cells"][:1]:
        text = minutes.rewrite("".join(head["source"]), notebook["cells"])
        head["source"] = text.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _numbers(text: str, path: Path, root: Path) -> str:
    if "<!--" not in text:
        return text
    try:
        return stated.rewrite(text, root)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def derive(root: Path) -> dict[Path, str]:
    """What every derived file should contain, by path."""
    config = (root / "_config.yml").read_text(encoding="utf8")
    url, branch = source(config, "url"), source(config, "branch")
    # pyproject.toml remembers the address written last; links to it are ours whatever their form.
    project = (root / "pyproject.toml").read_text(encoding="utf8")
    old = source(project, "Homepage")

    wanted = {}
    for pattern in TEXT_FILES:
        for path in sorted(root.glob(pattern)):
            text = rewrite_links(path.read_text(encoding="utf8"), old, url, branch)
            wanted[path] = _numbers(text, path, root) if path.suffix == ".md" else text
    for path in sorted(root.glob("notebooks/*.ipynb")):
        wanted[path] = normalise(path.read_text(encoding="utf8"), path.name, url, branch, old, root)
    if (root / "myst.yml").exists():
        wanted[root / "myst.yml"] = myst.contents(root)
    citation = root / "CITATION.cff"
    if citation in wanted:
        line = f"version: {source(project, 'version')}"
        wanted[citation] = re.sub(r"(?m)^version:.*$", line, wanted[citation])
    return wanted


def sync(root: Path = ROOT, check: bool = False, new_url: str | None = None) -> list[Path]:
    """Bring derived files up to date, or with `check` only find those that are not.

    Returns:
        The files that were (or, with `check`, are) stale.

    Raises:
        ValueError: if an address is not of the form https://github.com/OWNER/NAME, or a source
            has no value.
    """
    if new_url is not None:
        new_url = new_url.removesuffix("/").removesuffix(".git")
        pages_url(new_url)  # raises before anything is written
        config = root / "_config.yml"
        text = config.read_text(encoding="utf8")
        config.write_text(text.replace(source(text, "url"), new_url), encoding="utf8")
    wanted = derive(root)
    stale = {path: text for path, text in wanted.items() if path.read_text(encoding="utf8") != text}
    if not check:
        for path, text in stale.items():
            path.write_text(text, encoding="utf8")
    return list(stale)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, exit 1 if something is stale"
    )
    parser.add_argument("--set", metavar="URL", dest="url", help="the repository's new address")
    options = parser.parse_args(arguments)
    if options.check and options.url:
        parser.error("--check changes nothing, --set does: use one of them")
    try:
        stale = sync(root, check=options.check, new_url=options.url)
    except ValueError as error:
        print(f"sync.py: {error}", file=sys.stderr)
        return 2
    for path in stale:
        print(f"{'stale' if options.check else 'rewritten'}: {path.relative_to(root)}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
