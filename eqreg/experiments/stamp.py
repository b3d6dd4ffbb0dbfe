"""Where a number comes from: device, date, version."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_CHECKOUT = Path(__file__).resolve().parents[2]


def device_name(device: torch.device | str = "cpu") -> str:
    """``"CPU, 1 thread, AMD EPYC ..."`` or the name of the GPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}, {processor()}"


def code_version() -> str:
    """``"eqreg 0.1.0 (commit abc1234), torch 2.13.0"``; the commit only in a checkout.

    ``with changes`` follows the commit if files of the library differ from it.
    """
    try:
        version = metadata.version("eqreg")
    except metadata.PackageNotFoundError:  # run from a folder of sources
        version = "unreleased"
    return f"eqreg {version}{_commit()}, torch {torch.__version__}"


def today() -> str:
    """The date in UTC, as YYYY-MM-DD."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def united(stamps: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Device and version of several stamps, all named if there are several, and the last date."""

    def parts(key: str) -> str:
        return " / ".join(sorted({part for s in stamps for part in str(s[key]).split(" / ")}))

    return {
        "device": parts("device"), "date": max(s["date"] for s in stamps), "version": parts("version")
    }  # fmt: skip


def _commit() -> str:
    if not (_CHECKOUT / ".git").exists():
        return ""
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=_CHECKOUT, capture_output=True, text=True)
            for words in (
                ("rev-parse", "--short", "HEAD"),
                ("status", "--porcelain", "--", "eqreg"),
            )
        )
    except OSError:  # no git
        return ""
    if commit.returncode:
        return ""
    return f" (commit {commit.stdout.strip()}{' with changes' if changes.stdout.strip() else ''})"


def processor() -> str:
    """The name of the CPU."""
    info = Path("/proc/cpuinfo")
    names = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":")[1].strip() for line in names if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
