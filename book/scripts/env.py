"""The pinned environment: make the lock, check what is installed. Standard library only.

python book/scripts/env.py lock      resolve pyproject.toml anew and rewrite requirements.lock
python book/scripts/env.py check     compare this Python's packages with requirements.lock
python book/scripts/env.py conda     rewrite the pins of environment.yml from pyproject.toml
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
CONDA = ROOT / "environment.yml"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Never part of the set: the project itself, the tool that installs it, and the libraries of a CUDA
# build of torch, which are on a machine only if TORCH_INDEX asked for such a build.
OUTSIDE = re.compile(r"eqreg$|pip$")
CUDA = re.compile(r"nvidia-|cuda-|triton")

HEADER = """\
# Every package of the development environment, written by `make lock` from pyproject.toml.
# Installed with `pip install --no-deps -r requirements.lock`, so that nothing else comes along:
# neither CUDA libraries nor py3nj (Fortran source, asked for by escnn). Python 3.11 or 3.12.
"""


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    """The exact pins (`name==version`) among requirement lines; anything looser is left out."""
    matches = (re.match(r"([\w.-]+)==([\w.!+-]+)$", line.split("#")[0].strip()) for line in lines)
    return {normal(match[1]): match[2] for match in matches if match}


def direct_pins() -> dict[str, str]:
    """What pyproject.toml pins: the extras `book` and `dev`, and the packages without their needs."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    alone = PYPROJECT["tool"]["eqreg"]["without-dependencies"]
    return pins(extras["book"] + extras["dev"] + alone)


def locked() -> dict[str, str]:
    """What requirements.lock pins."""
    return pins(LOCK.read_text(encoding="utf-8").splitlines())


def installed() -> dict[str, str]:
    """What this interpreter has, without local labels: 2.13.0+cpu is a build of 2.13.0."""
    found = {normal(d.metadata["Name"]): d.version.split("+")[0] for d in metadata.distributions()}
    return {n: v for n, v in found.items() if not OUTSIDE.match(n) and not CUDA.match(n)}


def differences(want: dict[str, str], have: dict[str, str]) -> list[str]:
    """One line for every package that is missing, different or not wanted."""
    return [
        f"{name}: wanted {want.get(name, 'none')}, found {have.get(name, 'none')}"
        for name in sorted(want.keys() | have.keys())
        if want.get(name) != have.get(name)
    ]


def check() -> None:
    """Stop unless exactly the lock is installed and torch comes up."""
    if wrong := differences(locked(), installed()):
        sys.exit("the environment differs from requirements.lock:\n  " + "\n  ".join(wrong))
    try:
        import torch
    except (ImportError, OSError) as error:
        sys.exit(
            f"torch does not start: {error}\nPip's index probably gave its CUDA build, whose libraries "
            "are left out here. Give an index of CPU builds: make setup TORCH_INDEX=<address>"
        )
    print(f"{len(locked())} packages as in requirements.lock, torch {torch.__version__}")


def lock() -> None:
    """Resolve the pins of pyproject.toml in a scratch environment and write down what came."""
    alone = PYPROJECT["tool"]["eqreg"]["without-dependencies"]
    torch = [f"{name}=={direct_pins()[name]}" for name in ("torch", "torchvision")]
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        python = str(Path(scratch, "bin", "python"))
        install = [python, "-m", "pip", "install", "--quiet"]
        if index := os.environ.get("TORCH_INDEX"):  # its torch asks for no CUDA; else pip's own
            cpu = [*install, "--no-deps", "--retries=1", "--timeout=15", f"--index-url={index}"]
            subprocess.run([*cpu, *torch])
        subprocess.run([*install, *torch, f"{ROOT}[dev]"], check=True)
        subprocess.run([*install, "--no-deps", *alone], check=True)
        freeze = [python, "-m", "pip", "list", "--format=freeze"]
        listing = subprocess.run(freeze, check=True, capture_output=True, text=True).stdout
    lines = [re.sub(r"\+.*", "", line) for line in listing.splitlines()]
    lines = [line for line in lines if not OUTSIDE.match(line.split("==")[0])]
    if cuda := [line for line in lines if CUDA.match(line)]:
        sys.exit(f"not written: the resolver brought {', '.join(cuda)}; give TORCH_INDEX")
    LOCK.write_text(HEADER + "\n".join(sorted(lines, key=str.lower)) + "\n", encoding="utf-8")
    print(f"{LOCK.name}: {len(lines)} packages")


def conda() -> None:
    """Write the direct pins into the pip section of environment.yml."""
    alone = pins(PYPROJECT["tool"]["eqreg"]["without-dependencies"])
    chosen = {name: pin for name, pin in sorted(direct_pins().items()) if name not in alone}
    section = "".join(f"      - {name}=={version}\n" for name, version in chosen.items())
    text = CONDA.read_text(encoding="utf-8")
    text = re.sub(r"(      - [\w.-]+==\S+\n)+", section, text)
    CONDA.write_text(text, encoding="utf-8")
    print(f"{CONDA.name}: {len(chosen)} pins")


if __name__ == "__main__":
    commands = {"lock": lock, "check": check, "conda": conda}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    commands[sys.argv[1]]()
