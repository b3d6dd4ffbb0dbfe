"""Imports inside the library point downwards only, and the core stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import eqreg

PACKAGE = Path(eqreg.__file__).parent
# The layers of CONTRIBUTING.md, bottom to top; modules of one line do not import each other.
LAYERS = [
    {"groups", "_extras", "_frontend", "schedules"},
    {"fields", "checkpoint", "_stamp"},
    {"actions", "tiling"},
    {"_plan", "_grid", "_parts", "_reynolds", "_wrappers", "_batch"},
    {"_pairs", "_weights"},
    {"metrics", "regularizer", "projection", "lie"},
    {"strict", "physics", "data", "strength"},
    {"models", "methods", "_step", "_resume", "_scale", "artifacts", "losses"},
    {"training"},
    {"tasks", "_silent"},
    {"runs"},
    {"pretrained", "comparison", "tuning", "campaign"},
    {"cli"},
    {"viz", "__main__"},
]
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}
# Group.field builds a FieldType when it is called, not when modules load.
ALLOWED = {("groups", "fields")}


def imported(path):
    """Modules of eqreg that a file imports, by their first name."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            yield from [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eqreg."):
            yield node.module.split(".")[1]


def test_every_module_has_a_layer():
    names = {p.relative_to(PACKAGE).parts[0].removesuffix(".py") for p in PACKAGE.rglob("*.py")}
    assert names - {"__init__"} == set(LEVEL)


def test_imports_point_downwards():
    upward = [
        (name, other)
        for path in PACKAGE.rglob("*.py")
        if (name := path.relative_to(PACKAGE).parts[0].removesuffix(".py")) in LEVEL
        for other in imported(path)
        if other in LEVEL and other != name and LEVEL[other] >= LEVEL[name]
    ]
    assert set(upward) <= ALLOWED


def test_import_brings_no_extra():
    code = (
        "import sys, numpy, torch; before = set(sys.modules); import eqreg;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "assert new <= {'eqreg', 'torch'} | sys.stdlib_module_names, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
