"""Servers that break off, ignore what is asked, lie or hold up: the right file, or one line and all that arrived."""

import gc
import hashlib
import http.server
import json
import random
import threading
import time

import pytest

from eqreg.experiments import downloads
from eqreg.experiments.downloads import download
from eqreg.training.checkpoint import CheckpointError

FILE = "rain/eqreg.safetensors"
BODY = random.Random(0).randbytes(200_000)
HALF = 70_000
INDEX = json.dumps({FILE: {"sha256": hashlib.sha256(BODY).hexdigest(), "bytes": len(BODY)}})
PAGE = b"<html>Please log in</html>" * 9


class Server(http.server.BaseHTTPRequestHandler):
    """Answers by the next of ``script``, functions of this and of the asked offset; then as it should."""

    def do_GET(self):
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        is_index = self.path.endswith("index.json")
        self.server.asked.append("index" if is_index else asked)
        script = self.server.index if is_index else self.server.script
        body = INDEX.encode() if is_index else BODY
        try:
            (script.pop(0) if script else good)(self, start, body)
        except OSError:  # whoever asked has heard enough
            pass

    def send(self, status, content, start=0, length=None, kind="application/octet-stream"):
        self.send_response(status)
        if length != "none":
            self.send_header("Content-Length", str(len(content) if length is None else length))
        if status == 206:
            end = start + len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(BODY)}")
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def good(server, start, body):
    server.send(206 if start else 200, body[start:], start)


def breaks(at):
    return lambda server, start, body: server.send(
        206 if start else 200, body[start:][:at], start, len(body) - start
    )


def ignores_range(at=None):
    return lambda server, start, body: server.send(200, body[:at], length=len(body))


def another_offset(at):
    return lambda server, start, body: server.send(206, body[at:], at)


def lies(server, start, body):
    server.send(206, body[: len(body) - start], start)


def status(number):
    return lambda server, start, body: server.send(number, b"" if number == 204 else PAGE)


def page(server, start, body):
    server.send(200, PAGE, length="none", kind="text/html; charset=utf-8")


def other_length(server, start, body):
    server.send(200, body[:500])


def endless(server, start, body):
    server.send(200, bytes(2 * len(body)), length="none")


def flipped(server, start, body):
    server.send(200, bytes([body[0] ^ 1]) + body[1:])


def sends_on(where):
    def answer(server, start, body):
        server.send_response(302)
        server.send_header("Location", where)
        server.end_headers()

    return answer


def trickle(server, start, body):
    server.send(206 if start else 200, b"", start, len(body) - start)
    for i in range(start, len(body)):
        server.wfile.write(body[i : i + 1])
        time.sleep(0.05)


def stalls(server, start, body):
    server.send(206 if start else 200, body[start : start + 300], start, len(body) - start)
    time.sleep(4)


def no_http(server, start, body):
    server.wfile.write(b"HELLO\r\n\r\n")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "_PATIENCE", 1.5)  # longer than a busy machine pauses
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as httpd:
        httpd.script, httpd.index, httpd.asked = [], [], []
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def part(tmp_path):
    """What an earlier call left."""
    path = tmp_path / f"{FILE}.part"
    path.parent.mkdir()
    path.write_bytes(BODY[:HALF])
    return path


def fetched(server, tmp_path):
    return download(FILE, server.url, tmp_path).read_bytes() == BODY


@pytest.mark.parametrize(
    "script, asked",
    [
        ([ignores_range()], 1),
        ([ignores_range(HALF + 9)], 2),
        ([another_offset(0)], 2),
        ([another_offset(HALF + 1)], 2),
        ([lies], 2),
        ([status(416)], 2),
        ([breaks(3), breaks(4), ignores_range(HALF + 9)], 4),
        ([endless], 2),
        ([stalls], 2),
    ],
)
def test_a_part_goes_on_in_the_same_call(server, part, tmp_path, script, asked):
    server.script[:] = script
    assert fetched(server, tmp_path) and not part.exists()
    assert len(server.asked) == 1 + asked


def test_a_part_of_another_file_is_fetched_anew(server, part, tmp_path):
    part.write_bytes(bytes(HALF))
    assert fetched(server, tmp_path)
    assert server.asked == ["index", f"bytes={HALF}-", None]


@pytest.mark.parametrize(
    "answer, says",
    [
        (ignores_range(HALF - 9), "it broke off"),
        (status(204), "it answers with the status 204"),
        (status(205), "it answers with the status 205"),
        (status(503), "HTTP Error 503"),
        (page, "it sends a web page"),
        (other_length, "it offers 500 bytes"),
        (sends_on("file:///etc/hostname"), "is not allowed"),
        (sends_on(f"/{FILE}"), "infinite loop"),
        (no_http, "HELLO"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # urllib leaves a socket
def test_what_arrived_stays_whatever_is_sent_then(server, part, tmp_path, answer, says):
    server.script[:] = [answer] * 11  # urllib follows ten times
    with pytest.raises(ConnectionError) as caught:
        fetched(server, tmp_path)
    text = str(caught.value)
    assert says in text and f"after {HALF} of {len(BODY)} bytes" in text and "\n" not in text
    assert part.read_bytes() == BODY[:HALF] and not (tmp_path / FILE).exists()
    server.script.clear()
    assert fetched(server, tmp_path) and server.asked[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize("begun", [True, False])
def test_a_trickle_is_told_of_and_kept(server, part, tmp_path, begun):
    if not begun:
        part.unlink()
    server.script[:] = [trickle]
    with pytest.raises(ConnectionError, match="it sends fewer than 1000 bytes a second after"):
        fetched(server, tmp_path)
    assert part.stat().st_size > HALF * begun and BODY.startswith(part.read_bytes())
    assert fetched(server, tmp_path)


def test_other_content_is_refused_after_one_try(server, tmp_path):
    server.script[:] = [flipped]
    with pytest.raises(CheckpointError, match="expected the SHA-256 .*; not used"):
        fetched(server, tmp_path)
    assert server.asked == ["index", None] and not list((tmp_path / "rain").glob("*eqreg*"))


@pytest.mark.parametrize(
    "answer, says",
    [
        (breaks(30), "it broke off after 30 bytes"),
        (page, "it sends a web page"),
        (trickle, "it sends fewer than 1000 bytes a second"),
        (no_http, "HELLO$"),
        (status(503), "HTTP Error 503"),
    ],
)
def test_an_index_that_does_not_come(server, tmp_path, answer, says):
    server.index[:] = [answer]
    with pytest.raises(ConnectionError, match=rf"could not read http://.*/index.json: .*{says}"):
        fetched(server, tmp_path)
    assert fetched(server, tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_being_sent_to_what_is_no_address(server, part, tmp_path):
    for script in (server.script, server.index):
        script[:] = [sends_on("http://[::bad/")]
        with pytest.raises(ConnectionError, match="could not read http://.*: Invalid IPv6 URL"):
            fetched(server, tmp_path)
        gc.collect()  # urllib leaves a socket, of which a later test would be told
    assert part.read_bytes() == BODY[:HALF]


def test_those_who_fetch_at_once_wait_for_each_other(server, tmp_path):
    """As the processes of one training do; appending to one part they would mix their bytes."""

    def slowly(server, start, body):
        server.send(200, body[:9], length=len(body))
        for i in range(9, len(body), 20_000):
            server.wfile.write(body[i : i + 20_000])
            time.sleep(0.02)

    server.script[:] = [slowly] * 3
    ends = []
    threads = [
        threading.Thread(target=lambda: ends.append(fetched(server, tmp_path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [True] * 3 and server.asked.count(None) == 1


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "rain").write_text("a file")
    with pytest.raises(OSError, match=r"rain: expected a folder to write in"):
        fetched(server, tmp_path)
    (tmp_path / "rain").unlink()
    (tmp_path / f"{FILE}.part").mkdir(parents=True)
    with pytest.raises(OSError, match=r"could not write .*\.part: .*; call again to go on"):
        fetched(server, tmp_path)


def test_what_is_there_needs_no_cache_that_can_be_written(server, tmp_path, monkeypatch):
    path = download(FILE, server.url, tmp_path)

    def refused(*_, **__):
        raise OSError("read-only")

    monkeypatch.setattr(downloads, "locked", refused)
    assert download(FILE, server.url, tmp_path) == path
    path.write_bytes(b"other")
    with pytest.raises(OSError, match="read-only"):
        download(FILE, server.url, tmp_path)
