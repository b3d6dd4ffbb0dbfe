"""Imports inside the library point down only, and the core stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eqreg
from eqreg import experiments

PACKAGE = Path(eqreg.__file__).parent
# The folders of CONTRIBUTING.md, bottom to top. A file may import from its own folder and from those
# before it, at the top of the file or inside a function.
ORDER = (
    "extras", "checks", "typed", "files", "signals", "symmetry", "layers", "soft", "strict", "measure", "physics",
    "data", "models", "viz", "training", "tasks", "experiments", "__init__", "__main__",
)  # fmt: skip


def module(path, package):
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def graph(package):
    """Each module with the modules it imports; names inside the package, lazy imports included."""
    files = {module(path, package): path for path in sorted(package.rglob("*.py"))}
    edges = {name: set() for name in files}
    for name, path in files.items():
        folder = path.relative_to(package).parent.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Import):
                absolute = [a.name.split(".") for a in node.names]
                targets = [(parts[1:], ()) for parts in absolute if parts[0] == package.name]
            elif isinstance(node, ast.ImportFrom):
                parts = node.module.split(".") if node.module else []
                if node.level:
                    parts = [*folder[: len(folder) - node.level + 1], *parts]
                elif parts[0] != package.name:
                    continue
                else:
                    parts = parts[1:]
                targets = [(parts, [a.name for a in node.names])]
            else:
                continue
            for parts, names in targets:
                base = ".".join(parts)
                inside = [f"{base}.{n}".lstrip(".") for n in names]
                found = [n for n in inside if n in files]
                if len(found) < len(inside) or not inside:
                    found.append(base or "__init__")
                edges[name] |= {n for n in found if n in files and n != name}
    return edges


def upward(edges, order=ORDER):
    level = {name: i for i, name in enumerate(order)}
    top = {name: name.split(".")[0] for name in edges}
    return [
        (name, other)
        for name, others in edges.items()
        for other in others
        if level[top[other]] > level[top[name]]
    ]


def circles(edges):
    """Modules that import themselves by way of others, found by taking away what imports nothing.

    A folder's own __init__ hands out its modules, so what it does is no part of a circle.
    """
    left = {
        n: {o for o in others if "." in o or not _has_parts(o, edges)}
        for n, others in edges.items()
    }
    while done := [n for n, others in left.items() if not others & set(left)]:
        for n in done:
            del left[n]
    return sorted(left)


def _has_parts(name, edges):
    return name == "__init__" or any(n.startswith(f"{name}.") for n in edges)


def test_every_folder_has_its_place():
    assert {name.split(".")[0] for name in graph(PACKAGE)} == set(ORDER)


def test_imports_point_down():
    assert upward(graph(PACKAGE)) == []


def test_no_circle():
    assert circles(graph(PACKAGE)) == []


def test_a_file_imports_no_name_of_its_own_folder_through_the_folder():
    """It would work or not by the order in which the folder's __init__ names its modules."""
    found = [
        (n, o) for n, others in graph(PACKAGE).items() for o in others if n.startswith(f"{o}.")
    ]
    assert found == []


def test_an_underscore_means_that_no_other_folder_imports_it():
    found = [
        (name, other)
        for name, others in graph(PACKAGE).items()
        for other in others
        if any(p.startswith("_") and p != "__init__" for p in other.split("."))
        and name.split(".")[0] != other.split(".")[0]
    ]
    assert found == []


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"a/x.py": "from ..b import y", "b/y.py": ""}, "upward"),
        ({"a/x.py": "def f():\n    from ..b.y import z", "b/y.py": ""}, "upward"),
        ({"a/x.py": "import lib.b.y", "b/y.py": ""}, "upward"),
        ({"a/x.py": "from .y import f", "a/y.py": "def f():\n    from .x import g"}, "circle"),
        ({"b/x.py": "from ..a import y", "a/y.py": ""}, None),
    ],
)
def test_the_checks_see_what_they_look_for(tmp_path, files, wrong):
    package = tmp_path / "lib"
    for name, text in {
        "__init__.py": "",
        "a/__init__.py": "",
        "b/__init__.py": "",
        **files,
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    edges = graph(package)
    assert bool(upward(edges, ("a", "b", "__init__"))) == (wrong == "upward")
    assert bool(circles(edges)) == (wrong == "circle")


def test_no_file_is_longer_than_300_lines():
    lengths = {
        p.name: len(p.read_text(encoding="utf8").splitlines()) for p in PACKAGE.rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > 300} == {}


def test_import_brings_no_extra():
    code = (
        "import sys, numpy, torch; before = set(sys.modules); import eqreg;"
        "new = {m.split('.')[0] for m in set(sys.modules) - before};"
        "assert new <= {'eqreg', 'torch'} | sys.stdlib_module_names, new"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_brings_no_task_and_no_training_loop():
    code = (
        "import sys, eqreg, eqreg.experiments;"
        "heavy = [m for m in sys.modules if m.startswith(('eqreg.tasks', 'eqreg.training', 'eqreg.experiments.'))];"
        "assert not heavy, heavy;"
        "eqreg.load_pretrained; assert 'eqreg.tasks' not in sys.modules and 'eqreg.training' in sys.modules;"
        "from eqreg.experiments import Run; assert Run is sys.modules['eqreg.experiments.runs'].Run"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_trace_does_not_wake_the_compiler():
    """``torch._dynamo`` takes longer to import than a network takes to trace, and nothing is compiled."""
    code = (
        "import sys, torch, eqreg; from eqreg.layers.trace import tie;"
        "net = torch.nn.Conv2d(3, 8, 3, padding=1); x = torch.rand(1, 3, 8, 8);"
        "alone = tie(net, x, eqreg.C4); assert 'torch._dynamo' not in sys.modules;"
        "import torch._dynamo; beside = tie(torch.nn.Sequential(net, torch.nn.ReLU()), x, eqreg.C4);"
        "assert torch.equal(alone.index('weight'), beside.index('0.weight'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_experiments_hand_out_what_they_list():
    for name in experiments.__all__:
        found = getattr(experiments, name)
        assert found.__name__ == name and found.__module__.startswith("eqreg.experiments.")
    assert set(experiments.__all__) <= set(dir(experiments))
    for module in (experiments, eqreg):
        with pytest.raises(AttributeError, match=f"'{module.__name__}' has no attribute 'trian'"):
            module.trian  # noqa: B018
