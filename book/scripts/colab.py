"""Run notebooks as Colab would: newest packages, the library from its wheel, an empty folder.

    python book/scripts/colab.py                       every chapter
    python book/scripts/colab.py notebooks/06*.ipynb   some

`make colab-check` builds the wheel first. The pins of requirements.lock are ours; a reader in Colab
has whatever is newest. The environment stands in `_build/colab` and is made once; remove the folder to
have today's packages.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "_build" / "colab"
PYTHON = PLACE / "bin" / "python"
# In Colab from the start, whatever their version; the library asks for no more than it needs.
PRESENT = ("numpy", "scipy", "scikit-learn", "matplotlib", "ipykernel", "ipywidgets", "nbclient")
# Runs one notebook and prints the failing cell's own words, last.
RUN = """
import sys, nbformat, nbclient
book = nbformat.read(sys.argv[1], as_version=4)
try:
    nbclient.NotebookClient(book, timeout=3600, kernel_name="python3").execute()
except nbclient.exceptions.CellExecutionError as error:
    sys.exit(str(error))
"""


def wheel() -> Path:
    """The wheel that `make wheel` wrote last."""
    found = sorted((ROOT / "dist").glob("eqreg-*.whl"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError("expected dist/eqreg-*.whl, found none; run `make wheel` first")
    return found[-1]


def extras(path: Path) -> str:
    """Which parts of the library a notebook's set-up cell asks for, such as ``tasks``."""
    found = re.findall(r"\"eqreg\[([a-z,]+)\] @", path.read_text(encoding="utf8"))
    if len(found) != 1:
        raise ValueError(
            f"{path.name}: expected one line that installs eqreg[...], found {len(found)}"
        )
    return found[0]


def by_hand(notebooks: list[Path]) -> list[str]:
    """What set-up cells install beside the library, such as escnn: the arguments of each pip line."""
    lines = {
        match[1]
        for path in notebooks
        for cell in json.loads(path.read_text(encoding="utf8"))["cells"]
        for match in re.finditer(r"^ +%pip install --quiet (.+)$", "".join(cell["source"]), re.M)
    }
    return sorted(line for line in lines if "eqreg" not in line)


def install(*arguments: str) -> None:
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, *arguments], check=True)


def prepare(notebooks: list[Path]) -> None:
    """Make the environment if it is not there, and put the newest wheel of ours into it."""
    if not (PLACE / ".ready").exists():
        venv.create(PLACE, clear=True, with_pip=True)
        lock = (ROOT / "requirements.lock").read_text(encoding="utf8")
        torch = re.findall(r"^torch(?:vision)?==.+$", lock, re.M)  # PyPI's newest is the CUDA build
        index = os.environ.get("TORCH_INDEX")
        try:
            install(*torch, "--no-deps", "--retries=1", *(["--index-url", index] if index else []))
        except subprocess.CalledProcessError:
            print(f"torch: nothing from {index}, taking the build of pip's own index")
            install(*torch)
        install("--upgrade", *PRESENT)
        (PLACE / ".ready").touch()
    install(f"eqreg @ {wheel().as_uri()}")
    install("--force-reinstall", "--no-deps", str(wheel()))  # the same version with other contents
    for line in by_hand(notebooks):
        install(*line.replace('"', "").split())


def main(arguments: list[str]) -> int:
    notebooks = [Path(name).resolve() for name in arguments]
    notebooks = notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    prepare(notebooks)
    failed, there = [], set()
    # The library beside the notebook would be taken for the installed one.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # What most ask for comes first, so that none finds what only another one asked for.
    asked = {path: extras(path) for path in notebooks}
    common = max(asked.values(), key=list(asked.values()).count, default="")
    for path in sorted(notebooks, key=lambda path: (asked[path] != common, asked[path])):
        if asked[path] not in there:
            install(f"eqreg[{asked[path]}] @ {wheel().as_uri()}")
            there.add(asked[path])
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                [PYTHON, "-c", RUN, path],
                cwd=empty,
                env=environment,
                text=True,
                stderr=subprocess.PIPE,
            )
        print(
            f"{'FAILED' if done.returncode else 'ok':7}{time.monotonic() - start:5.0f} s  {path.name}"
        )
        if done.returncode:
            failed.append(path)
            print(done.stderr[-3000:])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
