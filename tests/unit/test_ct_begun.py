"""Data sets that were begun: what their files hold is checked, and workers that die or are left alone."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import eqreg
from eqreg.data.metal import make as making
from eqreg.data.metal import workers
from eqreg.data.metal.protocol import Metal, Recipe
from eqreg.data.metal.workers import shared
from eqreg.experiments import campaign
from eqreg.experiments.cli import main
from eqreg.physics.ct import small_fan

RECIPE = Recipe(small_fan(48, views=40), metal=Metal(("clips",)))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """All slices are scanned, and nothing of the rest is written."""
    root = tmp_path_factory.mktemp("begun") / "set"
    (root.parent / "protocol.yaml").write_text(RECIPE.to_yaml())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(making, "finish", lambda *arguments: {"cases": []})
        making.make(
            making.Plan(("phantoms:2",), test=0.5), root, RECIPE, report=str, progress=False
        )
    return root


@pytest.fixture
def again(begun, tmp_path):
    """A copy of it, and the command that goes on."""
    root = tmp_path / "set"
    shutil.copytree(begun, root)
    protocol = str(begun.parent / "protocol.yaml")
    command = ["ct", "simulate", "phantoms:2", "--split", "50/50", "--geometry", protocol]
    return root, [*command, "--out", str(root)]


def last_line(capsys):
    lines = [s for s in capsys.readouterr().err.splitlines() if s.startswith("eqreg: ")]
    return lines[-1]


def record_of(root):
    (path,) = sorted((root / ".work").glob("train-*.json"))
    return path


@pytest.mark.parametrize(
    "content", ["null", "[]", "{}", "{", "", "[" * 9999, '{"cases": []}', '{"refused": 3}']
)
def test_a_record_of_another_form_is_named(again, capsys, content):
    root, command = again
    record_of(root).write_text(content)
    assert main(command) == 2
    line = last_line(capsys)
    assert f"{record_of(root)}: expected the record of a slice" in line


@pytest.mark.parametrize(
    "key, value", [("masks", "x"), ("masks", "00"), ("source", None), ("cases", [{}])]
)
def test_a_record_with_a_part_of_another_form_is_named(again, capsys, key, value):
    root, command = again
    path = record_of(root)
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert main(command) == 2
    assert f"{path}: expected " in last_line(capsys)


def test_marks_that_are_no_text_are_somebody_elses(again, capsys):
    root, command = again
    (root / ".work" / "key").write_bytes(b"\xff\xfe")
    assert main(command) == 2
    assert f"{root} holds something else" in last_line(capsys)
    shutil.rmtree(root)
    assert main(command) == 0 and main(["ct", "repair", str(root), "--with", "nmar"]) == 0
    (root / "repaired" / "nmar" / "made_by.txt").write_bytes(b"\xff\xfe")
    assert (
        main(["ct", "repair", str(root), "--with", "nmar"]) == 0
    )  # images of unknown origin are made anew


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", np.zeros((4, 4)), np.array("x")])
def test_masks_of_another_form_are_named(again, capsys, content):
    root, command = again
    assert main(command) == 0
    path = root / "testmask.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    assert main(["ct", "repair", str(root), "--with", "nmar"]) == 2
    assert str(path) in last_line(capsys)


@pytest.mark.parametrize("name", ["record", "manifest"])
def test_a_case_without_its_clean_slice_is_named(again, capsys, name):
    root, command = again
    if name == "manifest":
        assert main(command) == 0
    path = record_of(root) if name == "record" else root / "manifest.json"
    content = json.loads(path.read_text())
    del content["cases"][0]["clean"]
    path.write_text(json.dumps(content))
    assert main(command if name == "record" else ["ct", "score", str(root)]) == 2
    assert f"{path}: expected clean (str) of case 0, found None" in last_line(capsys)


@pytest.mark.parametrize("content", ["[" * 9999, '{"format": "eqreg ct data set 1", "cases": []}'])
def test_a_manifest_without_its_key_or_too_deep(again, capsys, content):
    root, command = again
    (root / "manifest.json").write_text(content)
    assert main(command) == 2
    assert f"{root / 'manifest.json'}: " in last_line(capsys)


def test_a_worker_that_the_system_ends_is_one_line(tmp_path, capsys):
    """The system ends the largest process when memory is short, and says nothing to the others."""
    (tmp_path / "protocol.yaml").write_text(RECIPE.to_yaml())
    command = ["ct", "simulate", "phantoms:3", "--geometry", str(tmp_path / "protocol.yaml")]

    def end():
        deadline = time.monotonic() + 60
        while not (children := multiprocessing.active_children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(children[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=end)
    thread.start()
    status = main([*command, "--out", str(tmp_path / "set"), "--jobs", "2"])
    thread.join()
    line = last_line(capsys)
    assert status == 2 and "one of 2 processes ended within a slice" in line
    assert "give fewer --jobs; what was finished stays" in line


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.004, 2.0])
def test_a_worker_ends_at_any_moment(delay):
    """The pool of Python 3.11 then waited for ever, in one of eight tries and within 4 ms of a start."""

    def end():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.0001)
        time.sleep(delay)
        os.kill(children[0].pid, signal.SIGKILL)

    threading.Thread(target=end).start()
    with pytest.raises(ChildProcessError, match="one of 2 processes ended within a slice"):
        list(shared(time.sleep, [2.0] * 4, processes=2))
    assert not multiprocessing.active_children()


def test_workers_share_the_jobs_and_tell_their_errors():
    assert sorted(shared(pow, range(5), 2, processes=2)) == [(i, i * i) for i in range(5)]
    for _ in shared(time.sleep, [0.0] * 3, processes=2):
        break
    with pytest.raises(EOFError, match="Ran out of input"):  # the job's, not that of its pipe
        list(shared(pickle.loads, [b""], processes=9))
    assert not multiprocessing.active_children()


class _Unsent(Exception):
    """Neither its parts nor its arguments survive a pipe."""

    def __init__(self, said, *, held):
        super().__init__(said)
        self.held = held


def _raises(kind):
    raise _Unsent("the reason", held=(lambda: 0) if kind == "parts" else 0)


@pytest.mark.parametrize("kind", ["parts", "arguments"])
def test_an_error_that_no_pipe_carries_is_told(kind):
    """It passed for a lack of memory, or for an error of the process that asked."""
    with pytest.raises(RuntimeError, match="^_Unsent: the reason$"):
        _serve_one(_raises, kind)


def test_a_result_that_no_pipe_carries_is_told():
    with pytest.raises(TypeError, match="expected a result that can be sent"):
        _serve_one(_lambda, 0)


def _lambda(job):
    return lambda: job


def _serve_one(run, job):
    """What a worker sends for a job, without a process."""
    try:
        answer = workers._answer(run(job), None)
    except _Unsent as error:
        answer = workers._answer(None, error)
    result, error = pickle.loads(answer)
    if error is not None:
        raise error
    return result


@pytest.mark.usefixtures("heard")
def test_ctrl_c_to_all_is_one_line_even_while_workers_import(tmp_path):
    (tmp_path / "protocol.yaml").write_text(RECIPE.to_yaml())
    command = [
        sys.executable, "-m", "eqreg", "ct", "simulate", "phantoms:6", "--jobs", "2",
        "--geometry", str(tmp_path / "protocol.yaml"), "--out", str(tmp_path / "set"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "set" / "protocol.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.7)  # the workers import now
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == campaign.STOPPED and "Traceback" not in said
    assert said.splitlines()[-1] == "eqreg: stopped; the same command goes on"


_LEFT = """
import os, signal, time
from eqreg.data.metal.workers import shared

def run(job):
    if job == 1:
        time.sleep(600)

if __name__ == "__main__":
    for _ in shared(run, [0, 1, 1], processes=2):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_do_not_outlive_what_started_them(tmp_path):
    (tmp_path / "job.py").write_text(_LEFT)
    home = str(Path(eqreg.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    # A worker that stays holds the pipe open, and this would wait for it.
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job.py")], capture_output=True, timeout=120,
        env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
