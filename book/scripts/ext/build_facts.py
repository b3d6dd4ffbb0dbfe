"""Sphinx directive ``{build-facts}``: a table of what this copy of the book was built with.

Nothing on the status page is typed by hand, so nothing on it can be out of date.
"""

import os
import platform
from importlib import metadata
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PACKAGES = (
    "eqreg",
    "torch",
    "numpy",
    "scipy",
    "scikit-image",
    "torchmetrics",
    "matplotlib",
    "escnn",
    "jupyter-book",
)


def processor() -> str:
    """The processor's name; ``platform.processor()`` is empty on many Linux systems."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = (
        names[0] if names and names[0] != "unknown" else platform.processor() or platform.machine()
    )
    # In a container os.cpu_count() counts the host's cores, not ours.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores available"


def accelerator() -> str:
    import torch  # seconds to import, and only this page needs it

    if not torch.cuda.is_available():
        return "none: every page ran on the CPU"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def facts() -> list[tuple[str, str]]:
    """Rows of the table, as (what, value)."""
    return [
        ("system", f"{platform.system()} {platform.machine()}"),
        ("processor", processor()),
        ("GPU", accelerator()),
        ("EQREG_MODE", os.environ.get("EQREG_MODE", "quick (default)")),
        ("Python", platform.python_version()),
        *((package, version(package)) for package in PACKAGES),
    ]


class BuildFacts(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # the facts change without the page changing
        body = nodes.tbody()
        for cells in facts():
            body += nodes.row("", *(nodes.entry("", nodes.paragraph(text=cell)) for cell in cells))
        group = nodes.tgroup("", *(nodes.colspec(colwidth=1) for _ in range(2)), body, cols=2)
        return [nodes.table("", group, classes=["colwidths-auto"])]


def setup(app):
    app.add_directive("build-facts", BuildFacts)
    return {"parallel_read_safe": True}
