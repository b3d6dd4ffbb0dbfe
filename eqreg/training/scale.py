"""Several processes and half precision, by Lightning Fabric."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..extras import require


def make_fabric(device: torch.device, precision: str = "32") -> Any:
    """A started Fabric for this process, or None where one process in float32 needs none.

    ``torchrun`` tells each process how many there are; they exchange gradients by DDP.

    Fabric's own mixed precision rounds the *inputs* of a module to 16 bits, so that a residual network,
    which adds its input back, ends at 61 dB whatever it learns. Here inputs stay as they are, and autocast
    decides for each operation. With a Fabric of your own do the same: give it ``plugins=[...]`` with a
    ``MixedPrecision`` whose ``convert_input`` returns what it got, or call the model inside ``torch.autocast``.

    Raises:
        ValueError: unknown precision, or what ``torchrun`` told is no number of processes.
        ImportError: ``lightning-fabric`` is not installed; the message names the extra.
    """
    known = ("32", "bf16-mixed", "16-mixed")
    if precision not in known:
        raise ValueError(f"--precision: expected one of {', '.join(known)}, got {precision!r}")
    if device.type == "cpu" and precision == "16-mixed":  # Fabric would train in bfloat16 instead
        raise ValueError("--precision 16-mixed needs a GPU; on the CPU take bf16-mixed")
    processes = _told("WORLD_SIZE", 1)
    if processes == 1 and precision == "32":
        return None
    here = _told("LOCAL_WORLD_SIZE", processes)
    if processes % here:
        raise ValueError(
            f"expected LOCAL_WORLD_SIZE to divide WORLD_SIZE, got {here} and {processes}"
        )
    kind = "cpu" if device.type == "cpu" else "cuda"
    chosen = (
        {"plugins": [_mixed(precision, kind)]} if "mixed" in precision else {"precision": "32-true"}
    )
    fabric = require("lightning_fabric", extra="scale").Fabric(
        accelerator=kind,
        devices=here if processes > 1 or device.type == "cpu" else [device.index or 0],
        num_nodes=processes // here,
        strategy="ddp" if processes > 1 else "auto",
        **chosen,
    )
    fabric.launch()
    return fabric


def _mixed(precision: str, device: str) -> Any:
    """Fabric's mixed precision without its rounding of inputs."""
    base: Any = require("lightning_fabric.plugins", extra="scale").MixedPrecision

    class KeepsInputs(base):
        def convert_input(self, data: Any) -> Any:
            return data

    return KeepsInputs(precision, device)


def _told(name: str, otherwise: int) -> int:
    text = os.environ.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError(f"{name}: expected a number of processes, at least 1, got {text!r}")
    return int(text)
