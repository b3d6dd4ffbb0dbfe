"""Execute the notebooks of the contents, several at a time, into the cache that jupyter-book reads.

    python book/scripts/execute.py [--jobs 2]

jupyter-book would execute them one after the other. What is in the cache already is not executed again.
A page that fails is left to jupyter-book, which tries it once more and says where it failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "_build" / ".jupyter_cache"
MOST = 4  # a kernel with torch takes about a gigabyte


def pages() -> list[Path]:
    """The notebooks of the contents, in order."""
    names = re.findall(r"file:\s*(notebooks/\S+)", (ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [ROOT / f"{name}.ipynb" for name in names]


def run(page: Path, timeout: int) -> tuple[Any, float, str]:
    """The executed notebook, seconds, and a traceback if it failed."""
    notebook = nbformat.read(page, 4)
    result = single_nb_execution(
        notebook, cwd=str(page.parent), timeout=timeout, allow_errors=False, meta_override=True
    )
    return notebook, result.time, result.exc_string or ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=min(MOST, os.cpu_count() or 1))
    jobs = parser.parse_args().jobs
    timeout = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["execute"][
        "timeout"
    ]
    cache = get_cache(str(CACHE))

    def known(page: Path) -> bool:
        try:
            cache.match_cache_notebook(nbformat.read(page, 4))
        except KeyError:
            return False
        return True

    waiting = [page for page in pages() if not known(page)]
    # Kernels are started from fresh processes: a forked one would share sockets with its siblings.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        started = [(page, pool.submit(run, page, timeout)) for page in waiting]
        for page, future in started:
            notebook, seconds, traceback = future.result()
            print(f"{page.stem}: {'failed' if traceback else f'{seconds:.0f} s'}", flush=True)
            if traceback:
                continue
            record = cache.add_nb_to_project(str(page))
            bundle = CacheBundleIn(notebook, record.uri, data={"execution_seconds": seconds})
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


if __name__ == "__main__":
    main()
