"""Repairing the cases of a data set, and the table of the literature: five sizes, PSNR, SSIM and RMSE.

Taught in: notebooks/14
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...checks import one_line
from ...files import write_whole
from ...physics.ct import (
    Scanner,
    interpolate_trace,
    mar_psnr,
    mar_ssim,
    mu_to_hu,
    nmar_image,
    rmse_hu,
    size_group,
)
from ...physics.ct.evaluate import display
from .field import body_mask
from .layout import Case
from .manifest import cases, read_manifest
from .protocol import read_recipe
from .sheet import Tiles, grey, sheet

Restore = Callable[[Case], Tensor]
GROUPS = ("large", "2", "3", "4", "small")
MEASURES = ("psnr", "ssim", "rmse", "psnr_body", "ssim_body", "rmse_body")
BUILT_IN = ("input", "li", "nmar")
_REPAIRED, _MADE_BY, _PUBLISHED_SIZE = "repaired", "made_by.txt", 416
_SCORES, _TABLE, _PICTURES = "score.json", "score.md", "score.png"


def classical(root: str | Path, name: str) -> Restore:
    """Linear interpolation, "li", or "nmar", with the data set's own scanner.

    Raises:
        ValueError: another name, or a protocol that is not the data set's.
        FileNotFoundError: no finished data set, or it has no protocol.
    """
    if name not in ("li", "nmar"):
        raise ValueError(f"expected li or nmar, got {name!r}")
    path, want = Path(root) / "protocol.yaml", read_manifest(root).get("protocol_sha256")
    if not path.is_file():
        raise FileNotFoundError(f"expected the data set's protocol, found no {path}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != want:
        raise ValueError(f"{path}: expected the protocol that made the data set, found another one")

    @lru_cache(maxsize=1)
    def built() -> Scanner:
        return read_recipe(path).scanner()  # not before a case needs it

    def restore(case: Case) -> Tensor:
        scanner = built()
        if name == "li":
            return scanner.fbp(interpolate_trace(case.ma_sinogram, case.trace))
        project, fbp = scanner.projector.project, scanner.fbp
        return nmar_image(case.ma_sinogram, case.trace, project, fbp, case.mask)[0]

    return restore


def repair(
    root: str | Path,
    name: str,
    restore: Restore,
    split: str = "test",
    report: Callable[[int, int], None] = lambda done, of: None,
    *,
    made_by: str = "",
) -> int:
    """Restore every case of a split; what the same method did before is kept.

    Args:
        root: of the data set.
        name: of the method; its images go to ``repaired/<name>/``, (H, W) float32 in 1/cm as ``.npy``.
        restore: an image (H, W) in 1/cm of a case.
        split: "train" or "test".
        report: called with the number of cases done and of all.
        made_by: tells one method of this name from another, such as a hash of its weights. Images that another
            one left are made anew.

    Returns:
        How many cases there are.

    Raises:
        FileNotFoundError: no finished data set.
        ValueError: the split has no case, or the image has another size or is not finite.
        OSError: a file cannot be written.
    """
    root = Path(root)
    manifest = read_manifest(root)
    total = _count(root, manifest, split)
    _claim(root / _REPAIRED / name, f"{manifest.get('key')} {made_by}")
    for i, (record, case) in enumerate(cases(root, manifest, split), 1):
        path = _image_path(root, name, record)
        if not path.is_file():
            image = restore(case)
            if image.shape != case.gt.shape or not torch.isfinite(image).all():
                raise ValueError(
                    f"{name}: expected a finite image {tuple(case.gt.shape)} of {case.name}, got shape "
                    f"{tuple(image.shape)}"
                )
            buffer = io.BytesIO()
            np.save(buffer, image.detach().cpu().numpy().astype(np.float32))
            write_whole(path, buffer.getvalue())
        report(i, total)
    return total


def score(root: str | Path, split: str = "test") -> dict[str, Any]:
    """Judge the scan, LI, NMAR and every repaired method; writes ``score.json``, ``score.md`` and ``score.png``.

    PSNR and SSIM are those of the published protocol, on display images that are 0 in the metal; RMSE is in HU over
    the pixels outside it. With the body mask, PSNR and RMSE are over the patient's pixels, and for SSIM what is
    outside the patient is 0 in both images.

    Args:
        root: of the data set.
        split: "train" or "test".

    Returns:
        ``methods``: name -> measure -> mean; ``sizes``: name -> group -> measure -> mean; ``cases``: one record a case.

    Raises:
        FileNotFoundError, ValueError, OSError: as :func:`repair`; or a method lacks some cases.
    """
    root = Path(root)
    manifest = read_manifest(root)
    _count(root, manifest, split)
    repair(root, "nmar", classical(root, "nmar"), split, made_by="nmar")
    folder = root / _REPAIRED
    names = sorted(p.name for p in folder.iterdir() if (p / split).is_dir() and p.name != "li")
    names = ["nmar", *(n for n in names if n != "nmar")]
    found: list[dict[str, Any]] = []
    shown: dict[int, Tiles] = {}
    for record, case in cases(root, manifest, split):
        images = {"input": case.ma, "li": case.li} | {
            n: _repaired(root, n, record, case.gt) for n in names
        }
        body = body_mask(mu_to_hu(case.gt))
        size = case.gt.shape[-1]
        group = size_group(max(1, round(record["area"] * (_PUBLISHED_SIZE / size) ** 2)))
        for name, image in images.items():
            values = measure(image, case.gt, case.mask, body)
            found.append({"method": name, "case": case.name, "group": group, **values})
        if group not in shown:
            tiles = [grey(t, (-175.0, 275.0)) for t in (case.gt, *images.values())]
            shown[group] = Tiles(f"{GROUPS[group]}: {case.name}", tiles)
    methods = ["input", "li", *names]
    content = {
        "split": split,
        "methods": {m: _mean([r for r in found if r["method"] == m]) for m in methods},
        "sizes": {
            m: {
                GROUPS[g]: _mean([r for r in found if r["method"] == m and r["group"] == g])
                for g in sorted(shown)
            }
            for m in methods
        },
        "cases": found,
    }
    write_whole(root / _SCORES, (json.dumps(content, indent=1) + "\n").encode())
    write_whole(root / _TABLE, table(content).encode())
    pictures = [shown[g] for g in sorted(shown)]
    write_whole(root / _PICTURES, sheet(["without metal", *methods], pictures))
    return content


def measure(image: Tensor, truth: Tensor, metal: Tensor, body: Tensor) -> dict[str, float]:
    """``psnr``, ``ssim``, ``rmse`` of an image, and with the body mask ``psnr_body``, ...; see :func:`score`.

    Args:
        image, truth: (H, W) in 1/cm.
        metal, body: (H, W) bool.
    """
    outside = metal | ~body
    difference = (display(image, metal) - display(truth, metal)).double().square()
    values = {
        "psnr": mar_psnr(image, truth, metal),
        "ssim": mar_ssim(image, truth, metal),
        "rmse": rmse_hu(image, truth, metal),
        "psnr_body": 10 * torch.log10(255.0**2 / difference[body].mean()),
        "ssim_body": mar_ssim(image, truth, outside),
        "rmse_body": rmse_hu(image, truth, outside),
    }
    return {name: float(value) for name, value in values.items()}


def table(content: dict[str, Any]) -> str:
    """The scores as two Markdown tables, each cell ``PSNR / SSIM / RMSE``."""
    groups = list(next(iter(content["sizes"].values())))
    lines = []
    for title, ending in (("whole image", ""), ("inside the body", "_body")):
        lines += [
            f"PSNR dB / SSIM / RMSE HU, {title}, {content['split']}",
            "",
            "| method | " + " | ".join([*groups, "mean"]) + " |",
            "|---" * (len(groups) + 2) + "|",
        ]
        for method, mean in content["methods"].items():
            of = [content["sizes"][method][g] for g in groups] + [mean]
            cells = [
                f"{v['psnr' + ending]:.2f} / {v['ssim' + ending]:.4f} / {v['rmse' + ending]:.1f}"
                for v in of
            ]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _mean(records: list[dict[str, Any]]) -> dict[str, float]:
    return {m: sum(r[m] for r in records) / len(records) for m in MEASURES}


def _count(root: Path, manifest: dict[str, Any], split: str) -> int:
    total = sum(c["split"] == split for c in manifest["cases"])
    if not total:
        splits = sorted({c["split"] for c in manifest["cases"]})
        raise ValueError(
            f"{root}: expected cases of the split {split!r}, found {', '.join(splits)}"
        )
    return total


def _claim(folder: Path, made_by: str) -> None:
    """Keep the images of the same method and data set, and remove those of another."""
    mark = folder / _MADE_BY
    if not mark.is_file() and folder.exists():
        raise ValueError(
            f"{folder} holds something that `eqreg ct repair` did not make; rename it, or take another name"
        )
    if mark.is_file() and mark.read_bytes() != made_by.encode():
        for split in folder.iterdir():
            if split.is_dir():
                shutil.rmtree(split)
    write_whole(mark, made_by.encode())


def _image_path(root: Path, name: str, record: dict[str, Any]) -> Path:
    return root / _REPAIRED / name / record["split"] / record["slice"] / f"{record['number']}.npy"


def _repaired(root: Path, name: str, record: dict[str, Any], like: Tensor) -> Tensor:
    path = _image_path(root, name, record)
    if not path.is_file():
        raise ValueError(
            f"{path}: expected the image, found none; `eqreg ct repair {root} --with ...` goes on where it stopped"
        )
    try:
        with path.open("rb") as file:
            image = torch.from_numpy(np.load(file, allow_pickle=False))
    except Exception as error:  # decoders of damaged files raise what they like
        raise ValueError(f"{path}: could not be read: {one_line(error)}") from error
    if image.shape != like.shape or not image.is_floating_point() or image.isnan().any():
        raise ValueError(
            f"{path}: expected an image {tuple(like.shape)} in 1/cm without NaN, found {tuple(image.shape)} of "
            f"{image.dtype}"
        )
    return image
