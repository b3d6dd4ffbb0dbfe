"""Training on a data set of ``eqreg ct simulate``."""

from __future__ import annotations

from pathlib import Path

import torch

from ..data.metal.manifest import cases, read_manifest
from ..tasks.mar import Cases, MetalCrops
from ..training.checkpoint import save_weights
from ..training.fit import fit
from .runs import Run, prepared
from .stamp import code_version, device_name, today


def train_on(
    folder: str | Path,
    out: str | Path,
    *,
    preset: str = "cpu",
    steps: int = 200,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool | None = None,
) -> float:
    """Train the DICDNet of the task ``mar``, plain, on the training split, and store its weights.

    Args:
        folder: of the data set.
        out: weights file, which :func:`eqreg.experiments.pretrained.load_pretrained` reads.
        preset: whose sizes of network, crop and batch are taken.
        steps, lr, seed: of the training.
        progress: show a bar.

    Returns:
        Seconds that the training took.

    Raises:
        FileNotFoundError, ValueError: no finished data set, or no training case in it.
        CheckpointError: the file cannot be written.
    """
    root = Path(folder)
    found = [case for _, case in cases(root, read_manifest(root), "train")]
    if not found:
        raise ValueError(f"{root}: expected training cases, found none")
    run = Run("mar", preset, "plain", seed, lr, steps=steps)
    _, sizes, model, settings, _ = prepared(run)
    stacked = (torch.stack(images) for images in zip(*(c[:4] for c in found), strict=True))
    gt, ma, li, mask = stacked
    crop = min(sizes.sizes["crop"], gt.shape[-1])
    sampler = MetalCrops(Cases(gt, ma, li, mask, {}), crop=crop, batch=sizes.images)
    history = fit(
        model, sampler, steps=steps, lr=lr, progress=progress, label="DICDNet",
        generator=torch.Generator().manual_seed(seed), **settings,
    )  # fmt: skip
    stamp = {"device": device_name(), "date": today(), "version": code_version(), "seeds": [seed]}
    about = {"run": run.configuration(), "stamp": stamp, "data": sampler.fingerprint()}
    save_weights(Path(out), model.state_dict(), about)
    return history.seconds
