"""Cases for metal artifact reduction: patients, implants and scans, simulated once and kept on disk."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.crops import fingerprint
from ..physics.ct import Scanner, hu_to_mu, mar_psnr, mar_ssim, nmar_image, rmse_hu
from ..physics.ct.cache import cache_folder
from ..physics.ct.evaluate import WINDOW
from ..training.checkpoint import CheckpointError, load_weights, save_weights

# Raised whenever the simulation changes, so that an older file is never taken for the present cases.
_VERSION = 1


class Cases(NamedTuple):
    """Scans of slices with metal, and what is known without a network.

    ``gt``, ``ma``, ``li``: (N, H, W) float32 in 1/cm: without metal, scanned, after linear interpolation.
    ``metal``: (N, H, W) bool. ``known``: numbers (N,) such as ``psnr_li`` and ``rmse_nmar``.
    """

    gt: Tensor
    ma: Tensor
    li: Tensor
    metal: Tensor
    known: dict[str, Tensor]

    def scaled(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``ma``, ``li``, ``metal``, ``gt`` as networks take them: (N, 1, H, W), 0.5/cm is 1."""
        ma, li, gt = (t.clamp(0, WINDOW)[:, None] / WINDOW for t in (self.ma, self.li, self.gt))
        return ma, li, self.metal[:, None].to(ma.dtype), gt

    def pick(self, indices: Sequence[int]) -> Cases:
        """Some of the cases."""
        at = torch.tensor(list(indices))
        known = {name: values[at] for name, values in self.known.items()}
        return Cases(self.gt[at], self.ma[at], self.li[at], self.metal[at], known)


def simulate(
    slices: Sequence[Tensor],
    masks: Sequence[Tensor],
    scanner: Scanner,
    *,
    seed: int,
    baselines: bool,
) -> Cases:
    """Scan every slice with its implants.

    Args:
        slices: (H, W) in HU.
        masks: for each of them, (M, H, W) bool.
        scanner: of the slices' size.
        seed: of the photons.
        baselines: judge input, LI and NMAR, too.
    """
    g = torch.Generator().manual_seed(seed)
    parts = []
    for hu, metal in zip(slices, masks, strict=True):
        mu = hu_to_mu(hu)
        scan = scanner(mu, metal, generator=g)
        gt = mu.expand_as(scan.ma)
        known = {}
        if baselines:
            project, reconstruct = scanner.projector.project, scanner.fbp
            nmar = nmar_image(scan.ma_sinogram, scan.trace, project, reconstruct, metal)[0]
            known = judge({"input": scan.ma, "li": scan.li, "nmar": nmar}, gt, metal)
        parts.append(Cases(gt, scan.ma, scan.li, metal, known))
    return together(parts)


def judge(images: dict[str, Tensor], gt: Tensor, metal: Tensor) -> dict[str, Tensor]:
    """``psnr_*``, ``ssim_*`` and ``rmse_*`` (HU) by the published protocol, one number a case."""
    measures = {"psnr": mar_psnr, "ssim": mar_ssim, "rmse": rmse_hu}
    return {
        f"{measure}_{name}": of(image, gt, metal).double()
        for name, image in images.items()
        for measure, of in measures.items()
    }


def together(parts: Sequence[Cases]) -> Cases:
    """Cases one after the other; numbers that some lack are dropped."""
    shared = set.intersection(*(set(p.known) for p in parts))
    known = {k: torch.cat([p.known[k] for p in parts]) for k in sorted(shared)}
    gt, ma, li, metal = (
        torch.cat(images)
        for images in zip(*((p.gt, p.ma, p.li, p.metal) for p in parts), strict=True)
    )
    return Cases(gt, ma, li, metal, known)


def kept(key: str, build: Callable[[], Cases]) -> Cases:
    """``build()``, from the cache folder if it is there and whole.

    A damaged file is replaced, with a warning; a folder that cannot be written costs a warning and the
    time of the next build.

    Args:
        key: all that decides the cases.
        build: makes them.
    """
    key = f"{key} {_VERSION}"
    path = cache_folder() / f"mar-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
    if path.is_file():
        try:
            return _read(path, key)
        except (CheckpointError, KeyError, ValueError) as error:
            warnings.warn(f"{path} is damaged and is built anew: {error}", stacklevel=2)
    cases = build()
    flat = {**cases._asdict(), **cases.known}
    del flat["known"]
    about = {"key": key, "checksum": fingerprint(*(flat[k] for k in sorted(flat)))}
    try:
        save_weights(path, flat, about)
    except CheckpointError as error:
        warnings.warn(f"could not keep the scans for later: {error}", stacklevel=2)
    return cases


def _read(path: Path, key: str) -> Cases:
    tensors, about = load_weights(path)
    if about["key"] != key:
        raise ValueError(f"expected the cases {key!r}, found {about['key']!r}")
    found = fingerprint(*(tensors[k] for k in sorted(tensors)))
    if about["checksum"] != found:
        raise ValueError(f"expected checksum {about['checksum']}, got {found}")
    gt, ma, li, metal = (tensors.pop(k) for k in ("gt", "ma", "li", "metal"))
    return Cases(gt, ma, li, metal, tensors)
