"""What nbval executed is what the book shows, and only if it passed."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_cache import get_cache
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", params=[[], ["-n2", "--dist=loadfile"]], ids=["one", "two"])
def kept(request, tmp_path_factory):
    """Two notebooks after nbval, one or two at a time, and the cache it left."""
    if request.param:
        pytest.importorskip("xdist")
    folder = tmp_path_factory.mktemp("pages")
    wide = "print('column  ' * 15)"
    for name, last in (("good", "print('word ' * 30)\n2 + 2"), ("bad", "1 / 0"), ("wide", wide)):
        cells = [new_code_cell("print('one')"), new_code_cell(last)]
        metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(new_notebook(cells=cells, metadata=metadata), folder / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "tests.notebooks.pages", "--nbval-lax", "-q"]
    done = subprocess.run(
        [*command, *request.param, "--keep-pages", folder / "cache", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "2 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    return folder, get_cache(str(folder / "cache"))


def test_a_notebook_that_passed_is_not_executed_again(kept):
    folder, cache = kept
    read = nbformat.read(folder / "good.ipynb", as_version=4)
    record, notebook = cache.merge_match_into_notebook(read)
    first, second = (cell.outputs[-1] for cell in notebook.cells)
    assert first.text == "one\n" and second.data["text/plain"] == "4"
    assert cache.get_cache_record(record).data["execution_seconds"] > 0


def test_a_notebook_that_failed_or_prints_too_wide_is(kept):
    folder, cache = kept
    for name in ("bad", "wide"):
        with pytest.raises(KeyError):
            cache.match_cache_notebook(nbformat.read(folder / f"{name}.ipynb", as_version=4))
    assert len(cache.list_cache_records()) == 1
