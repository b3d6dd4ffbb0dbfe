"""Processes of a campaign: they end with it, share the work, and are never two on one run."""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sound import TEXT

from eqreg.experiments import campaign
from eqreg.experiments.cli import main
from eqreg.experiments.locks import Busy, is_held, locked
from eqreg.experiments.runs import Run, train
from eqreg.experiments.stopping import PARENT, Stop
from eqreg.tasks import Preset
from eqreg.tasks.rain import Rain

pytestmark = pytest.mark.usefixtures("heard")

TINY = Preset(
    steps=4, images=2, methods=("plain",), seeds=(0,), rates=(1e-3,), tuning_steps=1, expects="",
    sizes={"patches": 1, "patch": 20, "crop": 8, "size": 24, "spread": 20.0, "width": 4, "depth": 2},
)  # fmt: skip
TRAIN = ["train", "rain", "--preset", "tiny", "--lr", "1e-3", "--device", "cpu"]
LONG = 120.0  # seconds; a shared machine may take that long to start Python


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(Rain, "presets", {**Rain.presets, "tiny": TINY})


def wait_until(answer, what):
    end = time.monotonic() + LONG
    while not answer():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


# ---- the lock


def test_two_processes_are_never_at_one_run(tiny, tmp_path, capsys):
    result = tmp_path / "rain" / "tiny" / "plain" / "seed-0" / "result.json"
    with locked(result):
        assert is_held(result)
        with pytest.raises(Busy, match="another process is at work on .*seed-0"):
            train(Run("rain", "tiny", "plain", 0, 1e-3), tmp_path)
        assert main([*TRAIN, "--out", str(tmp_path)]) == campaign.BUSY
    err = capsys.readouterr().err
    assert err.startswith("eqreg: another process") and err.count("\n") == 1
    assert not is_held(result)
    assert main([*TRAIN, "--out", str(tmp_path)]) == 0


def test_the_lock_of_a_dead_process_does_not_block(tmp_path):
    result = tmp_path / "result.json"
    script = (
        "import pathlib, sys, time; from eqreg.experiments.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(result)])
    wait_until(lambda: is_held(result), "the lock")
    holder.kill()
    holder.wait()
    assert not is_held(result)
    with locked(result):
        pass


def test_what_another_process_finished_meanwhile_is_not_done_again(tiny, tmp_path):
    """Between the look at the folder and the lock: the second look is under the lock."""
    run = Run("rain", "tiny", "plain", 0, 1e-3)
    first = train(run, tmp_path)
    result = run.folder(tmp_path) / "result.json"
    content = result.read_bytes()
    result.unlink()
    with locked(result):
        threading.Timer(0.3, lambda: result.write_bytes(content)).start()
        # train() finds nothing, waits for the lock for a second, and then reads the result
        thread = threading.Thread(target=lambda: found.append(train(run, tmp_path)))
        found = []
        thread.start()
        time.sleep(0.6)
    thread.join()
    assert found == [first]


# ---- a campaign and its children


def test_two_campaigns_on_one_folder_share_the_work(tmp_path, monkeypatch):
    script = (
        "import filelock, pathlib, sys, time; leaves = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        "    with filelock.FileLock(leaves.with_suffix('.lock')).acquire(timeout=1):\n"
        "        if leaves.exists(): sys.exit()\n"
        "        with open(leaves.with_suffix('.done'), 'a') as file: file.write('x')\n"
        "        time.sleep(0.3); leaves.write_text(sys.argv[2])\n"
        f"except filelock.Timeout: sys.exit({campaign.BUSY})"
    )
    jobs = [campaign.Job(str(i), (), tmp_path / f"{i}.json") for i in range(4)]
    jobs[3] = campaign.Job("3", (), tmp_path / "3.json", needs=tmp_path / "0.json")
    monkeypatch.setattr(
        campaign,
        "_start",
        lambda j: subprocess.Popen([sys.executable, "-c", script, str(j.leaves), TEXT]),
    )
    ends = []
    both = [
        threading.Thread(
            target=lambda: ends.append(campaign.work(jobs, parallel=2, report=lambda _: None))
        )
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert ends == [([], {}), ([], {})]
    assert [(tmp_path / f"{i}.done").read_text() for i in range(4)] == ["x"] * 4


def children(pid):
    asked = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in asked.stdout.split()]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead process that nobody has waited for is still listed.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_their_campaign(tmp_path, number):
    command = [
        sys.executable,
        "-m",
        "eqreg",
        "run",
        "rain",
        "--preset",
        "quick",
        "--methods",
        "plain",
    ]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--out", str(tmp_path)], stdout=subprocess.DEVNULL
    )
    wait_until(lambda: list(tmp_path.rglob("log.jsonl")), "the first look at validation images")
    (child,) = children(process.pid)
    process.send_signal(number)
    assert process.wait(LONG) == (campaign.STOPPED if number == signal.SIGTERM else -number)
    wait_until(lambda: not alive(child), "the child's end")
    # It wrote a checkpoint and gave its locks back.
    assert list(tmp_path.rglob("checkpoint.safetensors")) and not list(tmp_path.rglob("*.part-*"))
    assert not is_held(tmp_path / "rain" / "quick" / "plain" / "tuning.json")


def test_a_child_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    started = []

    def start(job):
        started.append(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE))
        started[0].stdout.readline()
        return started[0]

    monkeypatch.setattr(campaign, "_start", start)
    monkeypatch.setattr(campaign, "GRACE", 0.2)
    job = campaign.Job("deaf", (), tmp_path / "never")
    left, failed = campaign.work([job], report=lambda _: None, stop=lambda: bool(started))
    assert left == [job] and failed == {} and started[0].returncode == -signal.SIGKILL
    started[0].stdout.close()


def test_a_child_that_somebody_stopped_has_not_failed(tmp_path, monkeypatch):
    ends = {"stopped": campaign.STOPPED, "failed": 1, "killed": -signal.SIGKILL}
    script = (
        "import os, sys; n = int(sys.argv[1]); os.kill(os.getpid(), -n) if n < 0 else sys.exit(n)"
    )
    monkeypatch.setattr(
        campaign,
        "_start",
        lambda job: subprocess.Popen([sys.executable, "-c", script, str(ends[job.name])]),
    )
    jobs = [campaign.Job(name, (), tmp_path / name) for name in ends]
    told = []
    left, failed = campaign.work(jobs, report=told.append)
    assert left == jobs and failed == {"failed": 1, "killed": -signal.SIGKILL}
    assert "stopped: stopped" in told


def test_children_import_nothing_from_the_current_folder(tmp_path, monkeypatch, capfd):
    mark = tmp_path / "imported"
    for name in ("argparse", "tqdm", "torch"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert campaign._start(campaign.Job("", ("list",), tmp_path / "x")).wait(LONG) == 0
    assert "rain: rain removal" in capfd.readouterr().out and not mark.exists()


# ---- signals


def test_a_signal_in_the_last_evaluation_ends_it(tiny, tmp_path, capsys, monkeypatch):
    evaluate, calls = Rain.evaluate, []

    def interrupted(self, model, preset, split, root):
        if split == "test":
            calls.append(split)
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self, model, preset, split, root)

    with monkeypatch.context() as patched:
        patched.setattr(Rain, "presets", {"tiny": Preset(**{**TINY.__dict__, "watch": 1})})
        patched.setattr(Rain, "evaluate", interrupted)
        assert main([*TRAIN, "--out", str(tmp_path)]) == campaign.STOPPED
        assert calls == ["test"]
        assert "stopped in the last evaluation; call again to go on" in capsys.readouterr().err
        patched.setattr(Rain, "evaluate", evaluate)
        assert main([*TRAIN, "--out", str(tmp_path)]) == 0
    assert (tmp_path / "rain/tiny/plain/seed-0/result.json").is_file()


def test_ctrl_c_while_a_child_imports_is_kept_for_later(tmp_path, capfd):
    """A terminal sends it to all; Python would show a traceback for each child."""
    where = ("--out", str(tmp_path), "--device", "cpu", "--lr", "1e-3", "--steps", "50")
    child = campaign._start(campaign.Job("", ("train", "rain", *where), tmp_path / "x"))
    child.send_signal(signal.SIGINT)
    assert child.wait(LONG) == campaign.STOPPED
    assert "Traceback" not in capfd.readouterr().err
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_while_the_command_imports_is_one_line(monkeypatch, capsys):
    class Interrupted:
        def find_spec(self, name, *_):
            if name == "eqreg.experiments.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "eqreg.experiments.cli")
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit, match="130"):
        runpy.run_module("eqreg", run_name="__main__")
    assert capsys.readouterr().err == "eqreg: interrupted; call again to go on\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_ask_and_a_second_ctrl_c_insists(number):
    before = signal.getsignal(number)
    with Stop() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_is_a_status_of_its_own(tiny, tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Rain, "batches", interrupted)
    assert main([*TRAIN, "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "eqreg: interrupted; call again to go on\n"


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_whose_campaign_is_gone_stops(monkeypatch):
    monkeypatch.setenv(PARENT, str(os.getppid()))
    assert not Stop()()
    monkeypatch.setenv(PARENT, str(os.getppid() + 1))
    assert Stop()()
