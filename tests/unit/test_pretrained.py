"""Weights by name: from a checkout, a wheel, the cache or a server; never from what was not meant."""

import hashlib
import http.server
import json
import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import eqreg
from eqreg.experiments import downloads, pretrained
from eqreg.experiments.downloads import download
from eqreg.experiments.pretrained import load_pretrained
from eqreg.experiments.runs import Run, train
from eqreg.tasks import Preset
from eqreg.tasks.rain import Rain
from eqreg.training.checkpoint import CheckpointError, load_weights, save_weights

TINY = Preset(
    steps=2, images=2, methods=("plain",), seeds=(0,), rates=(1e-3,), tuning_steps=1, expects="",
    sizes={"patches": 1, "patch": 20, "crop": 8, "size": 24, "spread": 20.0, "width": 4, "depth": 2},
)  # fmt: skip


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A trained file under its public name; nothing else is found."""
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})
    run = Run("rain", "tiny", "strict-C4", 0, 1e-3)
    train(run, tmp_path / "runs")
    path = tmp_path / "weights" / "rain" / "strict-C4.safetensors"
    path.parent.mkdir(parents=True)
    (run.folder(tmp_path / "runs") / "weights.safetensors").rename(path)
    monkeypatch.setattr(pretrained, "_PLACES", (tmp_path / "package", tmp_path / "weights"))
    monkeypatch.setenv("EQREG_CACHE", str(tmp_path / "cache"))
    return path


def test_one_line(weights):
    model = eqreg.load_pretrained("rain/strict-C4")
    assert not model.training
    assert model.about["run"]["method"] == "strict-C4" and model.about["metrics"]["psnr"] > 0
    assert {"device", "date", "version"} <= set(model.about["stamp"])
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = Rain().evaluate(model, TINY, "test", None)
    assert sum(found["psnr"]) / 6 == pytest.approx(model.about["metrics"]["psnr"], abs=1e-6)
    assert torch.allclose(model(eqreg.rotate(x, 1)), eqreg.rotate(model(x), 1), atol=1e-5)
    assert torch.equal(load_pretrained(weights)(x), model(x))


def test_unknown_names_list_what_there_is(weights):
    with pytest.raises(
        FileNotFoundError, match=r"found no rain/magic\.safetensors in .*; there are rain/strict-C4"
    ):
        load_pretrained("rain/magic")


def test_a_preset_may_change_after_its_weights_were_stored(weights, monkeypatch):
    before = load_pretrained(weights).state_dict()
    wider = Preset(**{**TINY.__dict__, "sizes": {**TINY.sizes, "width": 8}})
    monkeypatch.setattr(Rain, "presets", {"tiny": wider})
    after = load_pretrained(weights).state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_files_of_another_version_are_refused_with_the_reason(weights):
    tensors, about = load_weights(weights)
    about["run"]["sizes"]["width"] = 8
    save_weights(weights, {k: v[:1] for k, v in tensors.items()}, about)
    with pytest.raises(
        CheckpointError, match="was written by eqreg .* and does not fit the network"
    ):
        load_pretrained(weights)
    save_weights(weights, tensors, {**about, "run": {**about["run"], "method": "magic"}})
    with pytest.raises(CheckpointError, match="does not fit .*unknown method 'magic'"):
        load_pretrained(weights)
    save_weights(weights, tensors, {"run": {}})
    with pytest.raises(CheckpointError, match="was written by None and does not fit"):
        load_pretrained(weights)


class Server(http.server.SimpleHTTPRequestHandler):
    """Answers Range like a release host, and notes what was asked."""

    asked: list = []
    ranges = True
    breaks = ()  # after how many bytes each answer breaks off

    def do_GET(self):
        asked = self.headers.get("Range")
        self.asked.append((self.path, asked))
        content = Path(self.translate_path(self.path)).read_bytes()
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(content):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        left = self.breaks.pop(0) if self.breaks and self.path != "/index.json" else None
        self.wfile.write(content[start:][:left])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(weights, monkeypatch):
    folder = weights.parents[1]
    content = weights.read_bytes()
    index = {
        "rain/strict-C4.safetensors": {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
    }
    (folder / "index.json").write_text(json.dumps(index))
    monkeypatch.setattr(Server, "asked", [])
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Server, directory=folder)
    ) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


FILE = "rain/strict-C4.safetensors"


def test_a_download_is_checked_and_not_repeated(server, weights, tmp_path):
    model = load_pretrained("rain/strict-C4", url=server)
    cached = tmp_path / "cache" / FILE
    assert cached.read_bytes() == weights.read_bytes()
    assert [path for path, _ in Server.asked] == ["/index.json", f"/{FILE}"]
    load_pretrained("rain/strict-C4", url=server)
    assert [path for path, _ in Server.asked[2:]] == ["/index.json"]
    weights.unlink()
    assert load_pretrained("rain/strict-C4").about == model.about, (
        "the cache serves without a network"
    )


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("there", [1000, "all"])
def test_a_download_goes_on_where_it_broke_off(
    server, weights, tmp_path, monkeypatch, ranges, there
):
    monkeypatch.setattr(Server, "ranges", ranges)
    content = weights.read_bytes()
    part = tmp_path / "cache" / (FILE + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(content if there == "all" else content[:there])
    assert download(FILE, server, tmp_path / "cache").read_bytes() == content
    assert [asked for _, asked in Server.asked[1:]] == (
        [] if there == "all" else [f"bytes={there}-"]
    )
    assert not part.exists()


def test_a_download_that_breaks_off_goes_on(server, weights, tmp_path, monkeypatch):
    """``read(n)`` of http.client ends early without an error: what arrived has to be counted."""
    content = weights.read_bytes()
    monkeypatch.setattr(Server, "breaks", [100, 50])
    assert download(FILE, server, tmp_path / "cache").read_bytes() == content
    assert [asked for _, asked in Server.asked[1:]] == [None, "bytes=100-", "bytes=150-"]


def test_a_server_that_sends_nothing_more_is_told_of(server, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "breaks", [100, 0])
    with pytest.raises(ConnectionError, match=r"broke off after 100 of \d+ bytes; call again"):
        download(FILE, server, tmp_path / "cache")
    assert (tmp_path / "cache" / f"{FILE}.part").stat().st_size == 100
    assert download(FILE, server, tmp_path / "cache").read_bytes() == weights.read_bytes()


def test_a_part_that_is_longer_than_the_file_is_begun_anew(server, weights, tmp_path):
    part = tmp_path / "cache" / f"{FILE}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(weights.read_bytes()) + 1))
    assert download(FILE, server, tmp_path / "cache").read_bytes() == weights.read_bytes()


@pytest.mark.parametrize(
    "name", ["../../out/eqreg", "/tmp/out/eqreg", "rain/../../eqreg", "a/b/c", "x"]
)
def test_a_name_cannot_leave_the_cache(server, weights, tmp_path, name):
    index = weights.parents[1] / "index.json"
    entry = next(iter(json.loads(index.read_text()).values()))
    index.write_text(json.dumps({f"{name}.safetensors": entry}))
    with pytest.raises(CheckpointError, match="expected names like rain/eqreg.safetensors, got"):
        load_pretrained(name, url=server)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["null", "[]", "7", "{", " ", '{"rain/a.safetensors": null}', '{"rain/a.safetensors": {}}',
                '{"rain/a.safetensors": {"sha256": "a", "bytes": 0}}', "[" * 9999],
)  # fmt: skip
def test_what_is_no_index_is_named(server, weights, content):
    (weights.parents[1] / "index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index.json: expected an index of weights"):
        load_pretrained("rain/strict-C4", url=server)
    with pytest.raises(CheckpointError, match=r"index.json: expected an index of weights"):
        load_pretrained("rain/strict-C4")


def test_an_index_that_is_too_large_is_refused(server, weights, monkeypatch):
    monkeypatch.setattr(downloads, "LARGEST_INDEX", 20)
    with pytest.raises(CheckpointError, match="expected an index of at most 2e-05 MB, got more"):
        load_pretrained("rain/strict-C4", url=server)


def test_the_index_beside_a_file_is_asked(server, weights):
    """A sound file of ours in the place of another one: its own checksum cannot tell."""
    tensors, about = load_weights(weights)
    save_weights(weights, {k: v + 1 for k, v in tensors.items()}, about)
    for name in ("rain/strict-C4", weights):
        with pytest.raises(CheckpointError, match=r"index.json has the SHA-256 .*, the file has "):
            load_pretrained(name)


def test_loading_leaves_the_callers_random_numbers_alone(weights):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_pretrained(weights)
    assert torch.equal(torch.get_rng_state(), before) and torch.initial_seed() == 5


def test_other_content_than_the_index_says_is_never_used(server, weights, tmp_path):
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="expected the SHA-256 .*, got .*; not used"):
        load_pretrained("rain/strict-C4", url=server)
    assert not list((tmp_path / "cache").rglob("*strict*"))


def test_names_that_the_index_does_not_list(server):
    with pytest.raises(
        FileNotFoundError, match=r"index.json lists no rain/magic.safetensors, only rain/strict-C4"
    ):
        load_pretrained("rain/magic", url=server)


def test_no_server():
    with pytest.raises(ConnectionError, match=r"could not read http://127.0.0.1:1/index.json"):
        load_pretrained("rain/magic", url="http://127.0.0.1:1")


@pytest.mark.parametrize(
    "sizes", [{"width": 4000, "depth": 4}, {"depth": 10**5}, {"depth": 10**12}]
)
def test_sizes_in_a_header_are_bounded_by_what_the_file_holds(weights, sizes):
    """The first would draw 288 million numbers, the last would fill the memory with a list of layers."""
    tensors, about = load_weights(weights)
    about["run"]["method"] = "plain"
    about["run"]["sizes"] |= sizes
    path = weights.parents[2] / "large.safetensors"
    save_weights(path, tensors, about)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"large\.safetensors .*expected (the )?sizes"):
        load_pretrained(path)
    assert time.perf_counter() - start < 30


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("pipe.safetensors", "folder.safetensors"):
        with pytest.raises(CheckpointError, match=f"{name}: expected a file"):
            load_pretrained(tmp_path / name)


@pytest.mark.parametrize(
    "content", ['{"a/b.safetensors": {"sha256": "", "bytes": 1e999}}', " " * 2_000_000]
)
def test_an_index_beside_weights_is_bounded(weights, content):
    (weights.parents[1] / "index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json: expected an index"):
        load_pretrained(weights)
