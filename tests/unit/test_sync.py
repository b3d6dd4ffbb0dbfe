"""book/scripts/sync.py: derived addresses and normalised notebooks."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEW = "https://github.com/ada/eqreg-book"

sys.path.insert(0, str(ROOT / "book/scripts"))  # as for a script that is run
spec = importlib.util.spec_from_file_location("sync", ROOT / "book/scripts/sync.py")
sync = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sync)


def notebook(*cells):
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"colab": {}}, "cells": list(cells)}


def markdown(text):
    return {"cell_type": "markdown", "id": "a", "metadata": {"editable": True}, "source": text}


def code(text, **metadata):
    output = {"output_type": "stream", "name": "stdout", "text": "1\n"}
    return {
        "cell_type": "code",
        "id": "b",
        "metadata": metadata,
        "source": text,
        "outputs": [output],
        "execution_count": 7,
    }


BADGE = (
    "[![Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/someone/fork/blob/old/notebooks/wrong.ipynb)"
)
PIP = '%pip install "eqreg[tasks] @ git+https://github.com/someone/fork@old"'


@pytest.fixture
def project(tmp_path):
    """A small project with everything that is derived, written for a repository of the past."""
    files = {
        "_config.yml": "repository:\n  url: https://github.com/OWNER/eqreg  # here\n"
        "  branch: main\n",
        "pyproject.toml": '[project]\nversion = "0.2.0"\n[project.urls]\n'
        'Homepage = "https://github.com/OWNER/eqreg"\n',
        "CITATION.cff": "cff-version: 1.2.0\nversion: 0.1.0\n"
        "repository-code: https://github.com/OWNER/eqreg\n",
        "README.md": "git clone https://github.com/OWNER/eqreg.git, not "
        "https://github.com/OWNER/eqreg-data; read https://OWNER.github.io/eqreg/ or "
        "https://github.com/QUVA-Lab/escnn\n",
        "notebooks/01_x.ipynb": json.dumps(
            notebook(markdown(BADGE), code(PIP, tags=["setup"], collapsed=True))
        ),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def read_cells(project):
    return json.loads((project / "notebooks/01_x.ipynb").read_text())["cells"]


def test_the_project_itself_is_in_sync():
    stale = [str(path.relative_to(ROOT)) for path in sync.sync(check=True)]
    assert not stale, f"stale: {', '.join(stale)}; run `python book/scripts/sync.py`"


def test_badge_and_pip_line_follow_the_configuration(project):
    sync.sync(project)
    badge, setup = ("".join(cell["source"]) for cell in read_cells(project))
    assert "/github/OWNER/eqreg/blob/main/notebooks/01_x.ipynb)" in badge
    assert "![Colab](../book/images/colab.svg)" in badge
    assert setup == '%pip install "eqreg[tasks] @ git+https://github.com/OWNER/eqreg@main"'


def test_version_of_the_citation_is_that_of_the_package(project):
    sync.sync(project)
    text = (project / "CITATION.cff").read_text()
    assert "\nversion: 0.2.0\n" in text
    assert text.startswith("cff-version: 1.2.0\n")


def test_set_moves_our_links_and_no_others(project):
    sync.sync(project, new_url=NEW + ".git/")
    text = (project / "README.md").read_text()
    assert f"git clone {NEW}.git," in text
    assert "https://ada.github.io/eqreg-book/" in text
    assert "https://github.com/OWNER/eqreg-data" in text
    assert "https://github.com/QUVA-Lab/escnn" in text
    assert f'Homepage = "{NEW}"' in (project / "pyproject.toml").read_text()
    assert f"url: {NEW}  # here" in (project / "_config.yml").read_text()
    assert "/github/ada/eqreg-book/blob/main/" in "".join(read_cells(project)[0]["source"])


def test_set_and_back_is_where_we_started(project):
    sync.sync(project)
    before = {path: path.read_text() for path in project.rglob("*") if path.is_file()}
    sync.sync(project, new_url=NEW)
    sync.sync(project, new_url="https://github.com/OWNER/eqreg")
    assert before == {path: path.read_text() for path in before}


def test_second_run_changes_nothing(project):
    assert sync.sync(project)
    assert not sync.sync(project)


def test_check_reports_and_writes_nothing(project):
    before = {path: path.read_text() for path in project.rglob("*") if path.is_file()}
    stale = sync.sync(project, check=True)
    assert {path.name for path in stale} == {"CITATION.cff", "01_x.ipynb"}
    assert before == {path: path.read_text() for path in before}


def test_pages_take_their_numbers_from_artifacts_too(project):
    (project / "artifacts").mkdir()
    (project / "artifacts/f.json").write_text('{"seconds": 1.25}')
    (project / "book").mkdir()
    page = project / "book/page.md"
    page.write_text("in <!--n at f seconds-->9<!--/n--> s")
    assert page in sync.sync(project)
    assert page.read_text() == "in <!--n at f seconds-->1.25<!--/n--> s"
    page.write_text("in <!--n at f hours-->9<!--/n--> s")
    with pytest.raises(ValueError, match=r"page\.md: .*at f hours"):
        sync.sync(project)


def test_exit_codes(project, capsys):
    assert sync.main(["--check"], project) == 1
    assert "stale: CITATION.cff" in capsys.readouterr().out
    assert sync.main([], project) == 0
    assert sync.main(["--check"], project) == 0
    assert sync.main(["--set", "nowhere"], project) == 2
    assert "got 'nowhere'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["github.com/a/b", "https://github.com/a", "https://example.org/a/b"]
)
def test_bad_address_is_refused_before_anything_is_written(project, url):
    before = (project / "_config.yml").read_text()
    with pytest.raises(ValueError, match="must look like https://github.com/OWNER/NAME, got"):
        sync.sync(project, new_url=url)
    assert (project / "_config.yml").read_text() == before


def test_outputs_go_except_those_that_are_tests(project):
    path = project / "notebooks/01_x.ipynb"
    cells = code("1"), code("2", tags=["nbval-check-output"], scrolled=True)
    path.write_text(json.dumps(notebook(*cells)))
    sync.sync(project)
    plain, tested = read_cells(project)
    assert (plain["outputs"], plain["execution_count"]) == ([], None)
    assert tested["outputs"] and tested["execution_count"] == 7
    assert tested["metadata"] == {"tags": ["nbval-check-output"]}


def test_what_a_solution_cell_needs_is_kept(project):
    metadata = {
        "tags": ["solution", "hide-cell"],
        "cellView": "form",
        "jupyter": {"source_hidden": True},
    }
    path = project / "notebooks/01_x.ipynb"
    path.write_text(json.dumps(notebook(code("# @title Solution 1", **metadata))))
    sync.sync(project)
    assert read_cells(project)[0]["metadata"] == metadata


def test_runs_on_a_copy_of_the_project(tmp_path):
    """The real files survive a move to another address and back."""
    for name in ("_config.yml", "pyproject.toml", "book", "notebooks"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    (tmp_path / "artifacts").mkdir()
    for path in ROOT.glob("artifacts/*.json"):
        shutil.copy(path, tmp_path / "artifacts")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    url = sync.source((tmp_path / "_config.yml").read_text(), "url")
    sync.sync(tmp_path)
    synced = {path: path.read_bytes() for path in before}
    sync.sync(tmp_path, new_url=NEW)
    assert {path: path.read_bytes() for path in before} != before
    sync.sync(tmp_path, new_url=url)
    assert {path: path.read_bytes() for path in before} == synced
