"""A Chromium, a local server for a folder of pages, and one browser for all tests."""

import functools
import http.server
import re
import shutil
import threading
from pathlib import Path

import pytest

# Nothing may leave the machine: these flags silence Chromium's own traffic, the tests watch ours.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A page is loaded once, whatever is asked of it: a worker takes a whole page, or another file whole.

    Marks (``xdist_group``) would say this too, but pytest 9.2 takes no notice of what xdist 3.8 makes of them.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByPage(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid[: nodeid.index("::")] + "".join(re.findall(r"\[(.+\.html)", nodeid))

    return ByPage(config, log)


@pytest.fixture(scope="session")
def browser(unavailable):
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        unavailable('no playwright found; install it: pip install "eqreg[dev]"')
    with sync_playwright() as playwright:
        own = Path(playwright.chromium.executable_path)
        names = ("chromium", "chromium-browser", "google-chrome")
        found = next(filter(None, map(shutil.which, names)), own if own.exists() else None)
        if found is None:
            unavailable("no Chromium found; install it: apt-get install chromium")
        # launch() makes a fresh profile, so nothing cached can stand in for a missing file
        browser = playwright.chromium.launch(executable_path=str(found), args=FLAGS)
        yield browser
        browser.close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def serve():
    """`serve(folder)` gives the address under which the folder's pages are reachable."""
    servers = []

    def start(folder):
        handler = functools.partial(QuietHandler, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
