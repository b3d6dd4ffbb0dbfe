"""pytest plugin: what nbval executed becomes the book's pages, so that a notebook runs once.

``pytest -p tests.notebooks.pages --keep-pages _build/.jupyter_cache --nbval-lax notebooks``. A
notebook of which every cell passed goes into the execution cache in which Jupyter Book looks
before it executes anything; one that failed does not, and the book would execute it again. A cell that
prints columns which a page would break fails too: they are for `viz.table`.
"""

import copy
import re
from collections import defaultdict
from pathlib import Path

import pytest
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn

# Characters that fit between the side bars of a screen 1400 pixels wide. Sentences wrap there, columns must not.
WIDEST_PRINTED = 100
COLUMNS = re.compile(r"\S {2,}\S.* {2,}\S")


def pytest_addoption(parser):
    parser.addoption("--keep-pages", metavar="DIR", help="execution cache of the book")


def pytest_configure(config):
    if folder := config.getoption("keep_pages"):
        if not hasattr(
            config, "workerinput"
        ):  # one process makes it, before workers of xdist write
            get_cache(folder).list_cache_records()
        config.pluginmanager.register(Pages(Path(folder)))


class Pages:
    def __init__(self, folder):
        self.folder = folder
        self.outputs = defaultdict(dict)  # notebook -> number of the code cell -> outputs
        self.seconds = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if call.when == "call" and hasattr(item, "test_outputs"):
            self.seconds[item.parent] += call.duration
            if report.passed and (lines := too_wide(item.test_outputs)):
                report.outcome = "failed"
                report.longrepr = f"columns wider than {WIDEST_PRINTED} characters: {lines}"
            if report.passed:
                self.outputs[item.parent][item.cell_num] = item.test_outputs
        return report

    def pytest_runtest_teardown(self, item, nextitem):
        if hasattr(item, "test_outputs") and (
            nextitem is None or nextitem.parent is not item.parent
        ):
            self.keep(item.parent)

    def keep(self, file):
        executed = with_outputs(file.nb, self.outputs.pop(file, {}))
        if executed is not None:
            data = {"execution_seconds": self.seconds[file]}
            bundle = CacheBundleIn(executed, str(file.path), data=data)
            get_cache(str(self.folder)).cache_notebook_bundle(bundle, overwrite=True)


def too_wide(outputs):
    """Lines of plain text in columns, printed or shown, that a page would break."""
    texts = [
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in outputs
        if "text/html" not in output.get("data", {})
    ]
    lines = (line.strip() for text in texts for line in text.splitlines())
    return [line for line in lines if len(line) > WIDEST_PRINTED and COLUMNS.search(line)]


def with_outputs(notebook, outputs):
    """A copy with the outputs of each code cell, or None if one has not passed."""
    notebook = copy.deepcopy(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if set(outputs) != set(range(len(cells))):
        return None
    for number, cell in enumerate(cells):
        cell.outputs = copy.deepcopy(outputs[number])
        cell.execution_count = number + 1
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = cell.execution_count
    return notebook
