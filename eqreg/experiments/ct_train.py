"""Training on a data set of ``eqreg ct simulate``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from ..data.metal.manifest import cases, read_manifest
from ..files import previous
from ..tasks.mar import Cases, MetalCrops
from ..training.checkpoint import save_weights
from ..training.fit import fit
from ..training.settings import Keeping
from .runs import Run, prepared
from .stamp import code_version, device_name, today
from .stopping import Stopped

_EVERY = 50  # steps between two checkpoints


def train_on(
    folder: str | Path,
    out: str | Path,
    *,
    preset: str = "cpu",
    steps: int = 200,
    lr: float = 1e-3,
    seed: int = 0,
    progress: bool | None = None,
    stop: Callable[[], bool] | None = None,
) -> float:
    """Train the DICDNet of the task ``mar``, plain, on the training split, and store its weights.

    Until it is done ``OUT.checkpoint`` lies beside the weights, from which the same call goes on.

    Args:
        folder: of the data set.
        out: weights file, which :func:`eqreg.experiments.pretrained.load_pretrained` reads.
        preset: whose sizes of network, crop and batch are taken.
        steps, lr: of the training.
        seed: of the untrained weights and of the crops; the caller's random numbers are left alone.
        progress: show a bar.
        stop: asked after each step.

    Returns:
        Seconds that the training took.

    Raises:
        FileNotFoundError, ValueError: no finished data set, or no training case in it.
        CheckpointError: a file cannot be written, or the checkpoint belongs to another run.
        Stopped: ``stop`` answered True; a checkpoint was written.
    """
    root, out = Path(folder), Path(out)
    found = [case for _, case in cases(root, read_manifest(root), "train")]
    if not found:
        raise ValueError(f"{root}: expected training cases, found none")
    run = Run("mar", preset, "plain", seed, lr, steps=steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # its state at the start of a process is drawn
        _, sizes, model, settings, _ = prepared(run)
    stacked = (torch.stack(images) for images in zip(*(c[:4] for c in found), strict=True))
    gt, ma, li, mask = stacked
    crop = min(sizes.sizes["crop"], gt.shape[-1])
    sampler = MetalCrops(Cases(gt, ma, li, mask, {}), crop=crop, batch=sizes.images)
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    configuration, fingerprint = run.configuration(), sampler.fingerprint()
    told = {**{k: v for k, v in configuration.items() if k != "hash"}, "data": fingerprint}
    history = fit(
        model, sampler, steps=steps, lr=lr, progress=progress, label="DICDNet",
        generator=torch.Generator().manual_seed(seed), keeping=Keeping(checkpoint, _EVERY, stop, told),
        **settings,
    )  # fmt: skip
    if not history.finished:
        raise Stopped(f"stopped after {len(history.loss)} of {steps} steps; call again to go on")
    stamp = {"device": device_name(), "date": today(), "version": code_version(), "seeds": [seed]}
    about = {"run": configuration, "stamp": stamp, "data": fingerprint}
    save_weights(out, model.state_dict(), about)
    for path in (previous(checkpoint), checkpoint):
        path.unlink(missing_ok=True)
    return history.seconds
