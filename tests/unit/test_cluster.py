"""Campaigns whose jobs submitit starts: on this machine, and the script that SLURM would get."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("submitit")
from eqreg.experiments import campaign, cli, cluster
from eqreg.experiments.campaign import Job

pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
def logs(tmp_path):
    return tmp_path / "jobs"


def ended(process, seconds=240):
    return process.wait(seconds)


def test_a_campaign_runs_its_command_lines_by_submitit(logs, tmp_path):
    """The same command line, whose status comes back; what needs a file that is not there is not started."""
    jobs = [
        Job("list", ("list",), tmp_path / "never"),
        Job("wrong", ("nonsense",), tmp_path / "never"),
        Job("waits", ("list",), tmp_path / "never", tmp_path / "missing"),
    ]
    lines = []
    left, failed = campaign.work(
        jobs, parallel=2, report=lines.append, start=cluster.starter("local", logs)
    )
    assert left == jobs and failed == {"wrong": 2}
    assert "list: done" in lines and not any(line.startswith("waits") for line in lines)
    assert any(
        "rain" in path.read_text() for path in logs.glob("*.out")
    )  # what the command printed


ASKED_TO_STOP = """
import os, signal, sys, time
from pathlib import Path
path = Path(sys.argv[1])
again = path.is_file()
def stop(*_):
    path.write_text("checkpoint")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
started = Path(sys.argv[1] + ".started")
started.with_suffix(".new").write_text(str(os.getppid()))
started.with_suffix(".new").rename(started)
if again:
    path.write_text(path.read_text() + ", went on")
else:
    time.sleep(200)
"""


def started(process, found):
    """Wait for the command; the number of the process that runs it."""
    end = time.monotonic() + 240
    said = found.with_name(found.name + ".started")
    while not said.exists() and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.1)
    return said.read_text()


def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(logs, tmp_path, monkeypatch):
    found = tmp_path / "found"
    line = [sys.executable, "-c", ASKED_TO_STOP, str(found)]
    monkeypatch.setattr(cluster, "command_line", lambda job: line)
    process = cluster.starter("local", logs)(Job("run", (), tmp_path / "never"))
    # As submitit's controller, or SLURM, does when the time is nearly up.
    os.kill(int(started(process, found)), signal.SIGUSR2)
    assert ended(process) == 0 and found.read_text() == "checkpoint, went on"


def test_a_cancelled_job_tells_its_command(logs, tmp_path, monkeypatch):
    found = tmp_path / "found"
    line = [sys.executable, "-c", ASKED_TO_STOP, str(found)]
    monkeypatch.setattr(cluster, "command_line", lambda job: line)
    process = cluster.starter("local", logs)(Job("run", (), tmp_path / "never"))
    started(process, found)
    end = time.monotonic() + 240
    process.terminate()
    assert ended(process) != 0
    while not found.exists() and time.monotonic() < end:
        time.sleep(0.1)
    assert found.read_text() == "checkpoint"


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands of SLURM that keep the script that they are given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    kept = tmp_path / "script"
    for name, text in (
        ("srun", "exit 0"),
        ("sbatch", f'cp "$1" "{kept}"; echo "Submitted batch job 12"'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return kept


def test_the_script_for_slurm(slurm, logs, tmp_path):
    start = cluster.starter("slurm", logs, ["partition=gpu", "time=240", "gpus_per_node=1"])
    start(Job("train eqreg 3", ("train", "rain"), tmp_path / "never"))
    script = slurm.read_text()
    for line in (
        "--job-name=train-eqreg-3", "--partition=gpu", "--time=240", "--gpus-per-node=1", "--requeue",
        "--signal=USR2@90", "--open-mode=append",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    assert f"srun --unbuffered --output {logs}" in script.replace("'", "").replace('"', "")
    assert "-m submitit.core._submit" in script
    assert subprocess.run(["sh", "-n", str(slurm)], check=False).returncode == 0


def test_settings_that_are_none_are_refused(logs, slurm):
    with pytest.raises(
        ValueError, match="--with: expected NAME=VALUE, such as time=240, got 'gpu'"
    ):
        cluster.starter("local", logs, ["gpu"])
    with pytest.raises(ValueError, match="colour"):
        cluster.starter("slurm", logs, ["colour=red"])


def test_without_slurm_a_campaign_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "/nowhere")
    assert (
        cli.main(["run", "rain", "--preset", "quick", "--out", str(tmp_path), "--on", "slurm"]) == 2
    )
    assert "eqreg: --on slurm: Could not detect" in capsys.readouterr().err
    assert cli.main(["run", "rain", "--out", str(tmp_path), "--with", "time=1"]) == 2
    assert "--with is for jobs of submitit" in capsys.readouterr().err
