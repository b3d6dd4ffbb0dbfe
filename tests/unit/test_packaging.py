"""The pins agree everywhere, and the wheel is the library and nothing but the library."""

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import eqreg

ROOT = Path(__file__).resolve().parents[2]
MADE_BY_MAKE = Path(sys.prefix) == ROOT / ".venv"

spec = importlib.util.spec_from_file_location("env", ROOT / "book/scripts/env.py")
env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(env)

EXTRAS = env.PYPROJECT["project"]["optional-dependencies"]


# --- pins ------------------------------------------------------------------------------------------


def test_lock_holds_the_direct_pins():
    lock, direct = env.locked(), env.direct_pins()
    assert {name: lock.get(name) for name in direct} == direct


def test_conda_environment_holds_the_direct_pins():
    text = env.CONDA.read_text(encoding="utf-8")
    listed = env.pins(re.findall(r"^ *- (\S+==\S+)$", text, re.MULTILINE))
    by_hand = env.pins(re.findall(r"--no-deps (\S+)", text))
    assert listed | by_hand == env.direct_pins()
    assert by_hand == env.pins(env.PYPROJECT["tool"]["eqreg"]["without-dependencies"])


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_lock_lies_in_the_range(extra):
    lines = EXTRAS[extra] if extra else env.PYPROJECT["project"]["dependencies"]
    requirements = [Requirement(line) for line in lines]
    for need in (need for need in requirements if need.name != "eqreg"):
        version = env.locked().get(env.normal(need.name))
        assert version and version in need.specifier, f"{need} is locked at {version}"


@pytest.mark.parametrize("extra", ["book", "dev"])
def test_what_runs_the_book_is_pinned(extra):
    """A range here would let two fresh machines differ."""
    loose = [line for line in EXTRAS[extra] if "==" not in line and not line.startswith("eqreg[")]
    assert not loose


def test_every_range_of_tasks_and_strict_is_pinned_in_the_book():
    """Else `make lock` could move a version that a chapter's numbers depend on."""
    names = {env.normal(Requirement(line).name) for line in EXTRAS["tasks"] + EXTRAS["strict"]}
    assert names <= env.direct_pins().keys()


def test_lock_is_light():
    lock = env.locked()
    assert "py3nj" not in lock, "Fortran source"
    assert not [name for name in lock if env.CUDA.match(name)]
    assert int(lock["numpy"].split(".")[0]) < 2, "lie_learn crashes on numpy 2"
    lines = env.LOCK.read_text(encoding="utf-8").splitlines()
    assert len(lock) == sum(not line.startswith("#") for line in lines), "a line that is no pin"


def test_versions_agree():
    version = env.PYPROJECT["project"]["version"]
    assert eqreg.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


made_by_make = pytest.mark.skipif(not MADE_BY_MAKE, reason="not in the .venv of `make setup`")


@made_by_make
def test_installed_is_the_lock():
    assert env.differences(env.locked(), env.installed()) == []


@made_by_make
def test_lock_is_complete():
    """Installed with --no-deps, so that only this tells whether something was forgotten."""
    pip = [sys.executable, "-m", "pip", "check"]
    lines = subprocess.run(pip, capture_output=True, text=True).stdout.splitlines()
    assert all("py3nj" in line or line == "No broken requirements found." for line in lines)


def test_differences_names_all_three_kinds():
    want, have = {"a": "1", "b": "1"}, {"b": "2", "c": "1"}
    assert env.differences(want, have) == [
        "a: wanted 1, found none",
        "b: wanted 1, found 2",
        "c: wanted none, found 1",
    ]


# --- wheel and sdist -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built):
    return next(built.glob("*.whl"))


def files_in(folder, prefix):
    paths = (path for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts)
    return {f"{prefix}/{path.relative_to(ROOT / folder)}" for path in paths if path.is_file()}


def test_wheel_is_the_library(wheel):
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    stored = files_in("artifacts", "eqreg/_artifacts")
    stored = {name for name in stored if not name.startswith("eqreg/_artifacts/runs/")}
    assert files == files_in("eqreg", "eqreg") | stored
    assert "eqreg/py.typed" in files


def test_wheel_describes_itself(wheel):
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    about = next(name for name in names if name.endswith(".dist-info/METADATA"))
    text = archive.read(about).decode()
    assert "\nLicense-Expression: MIT\n" in text
    assert "\nRequires-Python: >=3.11\n" in text
    needs = [line for line in text.splitlines() if line.startswith("Requires-Dist:")]
    core = [line for line in needs if "extra ==" not in line]
    assert sorted(re.findall(r": ([\w-]+)", "\n".join(core))) == ["numpy", "torch"]
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_sdist_holds_the_sources(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    folders = {name.split("/")[0] for name in files}
    wanted = "eqreg tests book notebooks pyproject.toml requirements.lock LICENSE Makefile"
    assert set(wanted.split()) <= folders
    assert not {".venv", "_build", ".git", "dist"} & folders
    assert "eqreg/py.typed" in files


def needs_of(*names):
    """Installed distributions that the named ones require, themselves included."""
    found, todo = {}, list(names)
    while todo:
        name = env.normal(todo.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # for another platform
            continue
        for need in map(Requirement, found[name].requires or ()):
            if not need.marker or need.marker.evaluate({"extra": ""}):
                todo.append(need.name)
    return found.values()


@pytest.fixture(scope="module")
def stranger(wheel, tmp_path_factory):
    """The python of an empty environment with the wheel, torch and numpy.

    torch and numpy are linked from here instead of installed again: 0.7 GB for the same files.
    """
    folder = tmp_path_factory.mktemp("stranger")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    (folder / "linked").mkdir()
    for distribution in needs_of("torch", "numpy"):
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            link = folder / "linked" / top
            if not link.exists():
                link.symlink_to(distribution.locate_file(top))
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    (packages / "linked.pth").write_text(str(folder / "linked"))
    return python


def run(python, code, folder):
    """Run code outside the repository, deaf to the environment's PYTHONPATH."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    call = [str(python), "-I", "-c", code]
    done = subprocess.run(call, cwd=folder, env=keep, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_readme_example_needs_torch_and_numpy_only(stranger, tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(.*?)```", readme, re.DOTALL)[1]
    assert "EquivarianceRegularizer(model, C4)" in example
    absent = "scipy matplotlib skimage sklearn torchmetrics torchvision escnn tqdm"
    first = (
        f"from importlib.util import find_spec\nassert not any(map(find_spec, {absent.split()}))\n"
    )
    last = "\nimport eqreg; print(eqreg.__file__)"
    assert "stranger" in run(stranger, first + example + last, tmp_path)


def test_missing_extra_is_named(stranger, tmp_path):
    code = """
import torch, eqreg
try:
    eqreg.ssim(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16))
except ImportError as error:
    print(error)
"""
    assert 'pip install "eqreg[tasks]"' in run(stranger, code, tmp_path)
