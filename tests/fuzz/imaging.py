"""Metrics, degradations, computed tomography and files: oracles in numpy and scikit-image."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import eqreg
from eqreg import data
from eqreg.data.ct import resize_ct
from eqreg.data.images import read_image
from eqreg.physics import ct, inpainting, rain, tiling

from .symmetry import Target
from .values import SEEDS, close, finite, images, tensor

GEOMETRY = ct.ParallelBeam(8, 8, 13)
eqreg.ssim(
    torch.rand(1, 1, 11, 11), torch.rand(1, 1, 11, 11)
)  # the first call imports for many seconds
PROJECTOR, FBP = ct.Projector(GEOMETRY, cache=False), ct.FBP(GEOMETRY)


def _n(t: Any) -> np.ndarray:
    return t.detach().double().numpy()


def _pair(draw: st.DrawFn) -> dict[str, Any]:
    y = draw(images(3, square=False))
    noise = 0.1 * tensor(draw(SEEDS), *y.shape)
    return {"x": y + noise, "y": y, "data_range": draw(st.sampled_from([1.0, 2, 255]))}


def _psnr_right(r: Any, x: Any, y: Any, data_range: Any = 1.0, mask: Any = None) -> bool:
    with np.errstate(divide="ignore"):
        mse = ((_n(x) - _n(y)) ** 2).mean((1, 2, 3))
        return close(r, 10 * np.log10(float(data_range) ** 2 / mse), 1e-3)


def _ssim(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(images(1, least=11))
    return {"x": x, "y": (x + 0.2 * tensor(draw(SEEDS), *x.shape)).clamp(0, 1), "data_range": 1.0}


def _ssim_right(r: Any, x: Any, y: Any, data_range: Any = 1.0) -> bool:
    from skimage.metrics import structural_similarity

    expected = [
        structural_similarity(
            a,
            b,
            channel_axis=0,
            data_range=float(data_range),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(_n(x), _n(y), strict=True)
    ]
    return close(r, expected, 2e-2 if data_range < 1e-2 or not finite(x) else 2e-3)


def _luma_right(r: Any, x: Any) -> bool:
    a = _n(x)
    y = (65.481 * a[..., 0, :, :] + 128.553 * a[..., 1, :, :] + 24.966 * a[..., 2, :, :] + 16) / 255
    return close(r[..., 0, :, :], y, 0.01 if x.dtype.itemsize == 2 else 1e-4)


def _mask(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "shape": draw(st.tuples(*[st.integers(1, 9)] * 3)),
        "keep": draw(st.sampled_from([0.2, 0.7, 1])),
        "hole": draw(st.integers(1, 3)),
    }


def _mask_right(r: Any, shape: Any, keep: Any = 0.7, hole: Any = 1) -> bool:
    return (
        tuple(r.shape) == (shape[0], 1, *shape[1:])
        and bool(((r == 0) | (r == 1)).all())
        and (keep < 1 or bool(r.all()))
    )


def _measured(draw: st.DrawFn) -> dict[str, Any]:
    y = draw(images(2, square=False))
    return {
        "y": y,
        "mask": torch.ones(y.shape[-2:]),
        "gamma": draw(st.sampled_from([1e-9, 0.05, 1.0])),
        "saturation": draw(st.sampled_from([None, 1.0, 100])),
    }


def _measured_right(r: Any, y: Any, mask: Any, gamma: Any, saturation: Any = None) -> bool:
    top = math.inf if saturation is None else float(saturation)
    far = 12 * (float(gamma) * _n(y)) ** 0.5 + 12 * float(gamma) + 0.02 * _n(y) + 1e-3
    shown = np.broadcast_to(_n(mask), y.shape) * np.minimum(_n(y), 1e30)
    return (
        r.shape == y.shape
        and bool((_n(r) >= 0).all() and (_n(r) <= top + 1e-3).all())
        and (top < np.inf or bool((np.abs(_n(r) - shown) <= far).all()))
    )


def _rain(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "angle": draw(st.floats(-90, 90)),
        "length": draw(st.floats(0, 20)),
        "width": draw(st.floats(0.5, 3)),
        "density": draw(st.floats(0, 0.1)),
        "intensity": draw(st.floats(0, 1)),
        "shape": draw(st.tuples(*[st.integers(1, 9)] * 3)),
    }


def _rained(shape: Any, **law: Any) -> Any:
    return rain.rain_streaks(shape, rain.RainModel(**law))


def _kernel_right(r: Any, angle: Any, length: Any, width: Any, size: Any) -> bool:
    return (
        tuple(r.shape[-2:]) == (size, size)
        and bool((r >= 0).all() and (r <= 1).all())
        and close(r, r.flip(-1, -2), 1e-3)
    )


def _tiled(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "model": nn.AvgPool2d(3, 1, 1),
        "x": draw(images(2, square=False, least=5)),
        "tile": draw(st.integers(4, 9)),
        "overlap": draw(st.integers(2, 3)),
        "batch": draw(st.integers(1, 3)),
    }


def _tiled_right(r: Any, model: Any, x: Any, tile: Any, overlap: Any, batch: Any = 1) -> bool:
    return (isinstance(model, nn.Module) and overlap < 2 and min(x.shape[-2:]) > tile) or close(
        r, model(x)
    )


def _sino(draw: st.DrawFn) -> dict[str, Any]:
    y = tensor(draw(SEEDS), draw(st.integers(1, 3)), 5, 9)
    trace = tensor(draw(SEEDS), *y.shape) > 0.6
    trace[..., 4] = False
    return {"y": y, "trace": trace}


def _sino_right(r: Any, y: Any, trace: Any) -> bool:
    full = np.broadcast_to(trace.numpy(), y.shape)
    out = _n(y).copy()
    for i in np.ndindex(*y.shape[:-1]):
        keep = np.flatnonzero(~full[i])
        out[i] = np.where(full[i], np.interp(np.arange(y.shape[-1]), keep, out[i][keep]), out[i])
    return close(r, out, 1e-2 if y.dtype.itemsize == 2 else 1e-4)


def _metal(draw: st.DrawFn) -> dict[str, Any]:
    truth = tensor(draw(SEEDS), 2, 6, 6) / 2
    metal = tensor(draw(SEEDS), 2, 6, 6) > 0.8
    metal[:, 0, 0] = False
    return {"mu": truth + 0.02 * tensor(draw(SEEDS), 2, 6, 6), "truth": truth, "metal": metal}


def _rmse_right(r: Any, mu: Any, truth: Any, metal: Any) -> bool:
    out = ~np.broadcast_to(metal.numpy(), mu.shape)
    d = (_n(mu) - np.broadcast_to(_n(truth), mu.shape)) * 1000 / 0.192
    return close(r, np.sqrt(np.where(out, d**2, 0).sum((-2, -1)) / out.sum((-2, -1))), 1e-2)


def _mar_psnr_right(r: Any, mu: Any, truth: Any, metal: Any) -> bool:
    def shown(t: Any) -> np.ndarray:
        t = np.broadcast_to(t.detach().float().numpy(), mu.shape)
        return np.where(metal.numpy(), 0, np.round(np.clip(t, 0, 0.5) / np.float32(0.5) * 255))

    with np.errstate(divide="ignore"):
        return close(
            r, 10 * np.log10(255**2 / ((shown(mu) - shown(truth)) ** 2).mean((-2, -1))), 0.05
        )


def _hu(draw: st.DrawFn) -> dict[str, Any]:
    return {"hu": 3000 * tensor(draw(SEEDS), 3, 3) - 1000}


def _counts_right(r: Any, p: Any, photons: Any, scatter: Any = 0.0) -> bool:
    expected = float(photons) * np.exp(-_n(p)) + float(scatter)
    low, high = (
        np.maximum(expected - 12 * expected**0.5 - 12, 1),
        np.maximum(expected + 12 * expected**0.5 + 12, 1),
    )
    slack = 1e-2 * (1 + np.abs(_n(r)))
    return bool(
        (_n(r) <= -np.log(low / float(photons)) + slack).all()
        and (_n(r) >= -np.log(high / float(photons)) - slack).all()
    )


def _project_right(r: Any, x: Any) -> bool:
    mass = _n(x).sum(
        (-2, -1)
    )  # parallel rays: every view holds the whole image's mass, but for the disc's corners
    views = _n(r).sum(-1)
    return r.shape == (*x.shape[:-2], 8, 13) and bool(
        (
            np.abs(views - mass[..., None]) <= 0.1 * np.abs(_n(x)).sum((-2, -1))[..., None] + 1e-3
        ).all()
    )


def _written(values: Any, mode: Any, ending: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{ending}"
        picture = Image.fromarray(values)
        if mode == "I;16":
            picture = Image.fromarray(values.astype(np.uint16) * 257)
        picture.convert(mode).save(path)
        return read_image(path)


_WRITABLE = {
    ".png": ["L", "RGB", "I;16", "1", "P", "LA", "RGBA"],
    ".tif": ["L", "RGB", "CMYK", "RGBA", "F"],
    ".bmp": ["L", "RGB", "1", "P"],
}


def _file(draw: st.DrawFn) -> dict[str, Any]:
    ending = draw(st.sampled_from(sorted(_WRITABLE)))
    rng = np.random.default_rng(draw(SEEDS))
    return {
        "values": rng.integers(0, 256, (draw(st.integers(1, 9)), draw(st.integers(1, 9)))).astype(
            np.uint8
        ),
        "mode": draw(st.sampled_from(_WRITABLE[ending])),
        "ending": ending,
    }


def _file_right(r: Any, values: Any, mode: Any, ending: Any) -> bool:
    grey = values / 255
    if mode == "1":  # dithered: a matter of the writer
        return bool(((r == 0) | (r == 1)).all())
    return close(r, np.broadcast_to(grey, r.shape).copy(), 1e-6) and r.shape[1:] == values.shape


def _crops(degraded: Any, clean: Any, crop: Any, batch: Any) -> Any:
    return data.RandomCrops(degraded, clean, crop=crop, batch=batch)(
        torch.Generator().manual_seed(0)
    )


def _crops_right(r: Any, degraded: Any, clean: Any, crop: Any, batch: Any) -> bool:
    return all(t.shape == (batch, clean.shape[1], crop, crop) for t in r) and close(r[0], r[1] + 1)


def _resize_right(r: Any, hu: Any, size: Any) -> bool:
    return r.shape == (size, size) and bool(
        r.min() >= min(-1000.0, float(hu.min())) and r.max() <= max(-1000.0, float(hu.max()))
    )


def _draw_crops(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(images(1, least=5))
    return {
        "degraded": x + 1,
        "clean": x,
        "crop": draw(st.integers(1, 5)),
        "batch": draw(st.integers(1, 4)),
    }


def _decomposed(r: Any, mu: Any) -> bool:
    return close(r["water"] + r["bone"], mu, 1e-2 if mu.dtype.itemsize == 2 else 1e-4)


def _turned(r: Any, y: Any, g: Any, group: Any) -> bool:
    x = tensor(0, 8, 8)
    turned = PROJECTOR.project(eqreg.rotate(x, g, group)) if group in (eqreg.C2, eqreg.C4) else None
    return r.shape == y.shape and (
        turned is None or close(turned, ct.turn_sinogram(PROJECTOR.project(x), g, group))
    )


IMAGING: dict[str, Target] = {
    "psnr": (eqreg.psnr, _pair, _psnr_right),
    "ssim": (eqreg.ssim, _ssim, _ssim_right),
    "luma": (eqreg.luma, lambda draw: {"x": draw(images(3, square=False))}, _luma_right),
    "random_mask": (inpainting.random_mask, _mask, _mask_right),
    "inpainting.measure": (inpainting.measure, _measured, _measured_right),
    "rain_streaks": (
        _rained,
        _rain,
        lambda r, shape, **law: (
            tuple(r.shape) == (shape[0], 1, *shape[1:]) and finite(r) and bool((r >= 0).all())
        ),
    ),
    "add_rain": (
        rain.add_rain,
        lambda draw: {"b": draw(images(3, square=False)), "clip": draw(st.booleans())},
        lambda r, b, clip=True: (
            close(r[0], b + r[1], 0.02)
            and bool((r[1] >= 0).all())
            and (not clip or not r[0].numel() or float(r[0].max()) <= 1.001)
        ),
    ),
    "streak_kernel": (
        rain.streak_kernel,
        lambda draw: {
            "angle": tensor(draw(SEEDS), 3),
            "length": 5 * tensor(draw(SEEDS), 3),
            "width": draw(st.floats(0.5, 3)),
            "size": draw(st.integers(1, 9)),
        },
        _kernel_right,
    ),
    "tiled": (tiling.tiled, _tiled, _tiled_right),
    "interpolate_trace": (ct.interpolate_trace, _sino, _sino_right),
    "nmar": (
        ct.nmar,
        lambda draw: {**_sino(draw), "prior": tensor(draw(SEEDS), 5, 9)},
        lambda r, y, trace, prior: (
            close(torch.where(trace, 0, r), torch.where(trace, 0, y))
            and (finite(r) or not finite(y))
        ),
    ),
    "rmse_hu": (ct.rmse_hu, _metal, _rmse_right),
    "mar_psnr": (ct.mar_psnr, _metal, _mar_psnr_right),
    "hu_to_mu": (ct.hu_to_mu, _hu, lambda r, hu: close(r, (_n(hu) / 1000 + 1) * 0.192)),
    "mu_to_hu": (
        ct.mu_to_hu,
        lambda draw: {"mu": tensor(draw(SEEDS), 3, 3)},
        lambda r, mu: close(r, (_n(mu) / 0.192 - 1) * 1000, 1e-3),
    ),
    "decompose": (ct.decompose, lambda draw: {"mu": tensor(draw(SEEDS), 3, 3)}, _decomposed),
    "ct.measure": (
        ct.measure,
        lambda draw: {
            "p": 5 * tensor(draw(SEEDS), 3, 3),
            "photons": draw(st.sampled_from([1, 1e3, 2e7])),
            "scatter": draw(st.sampled_from([0, 20.0])),
        },
        _counts_right,
    ),
    "size_group": (
        ct.size_group,
        lambda draw: {"area": draw(st.integers(1, 3000))},
        lambda r, area: r == sum(area < s for s in (886, 353, 121, 83)),
    ),
    "Projector": (
        PROJECTOR.project,
        lambda draw: {"x": tensor(draw(SEEDS), 2, 8, 8)},
        lambda r, x: _project_right(r, x) if finite(x) else True,
    ),
    "FBP": (
        FBP.__call__,
        lambda draw: {"y": tensor(draw(SEEDS), 2, 8, 13)},
        lambda r, y: r.shape == (*y.shape[:-2], 8, 8),
    ),
    "turn_sinogram": (
        ct.turn_sinogram,
        lambda draw: {
            "y": tensor(draw(SEEDS), 8, 13),
            "g": draw(st.integers(0, 4)),
            "group": draw(st.sampled_from([eqreg.C2, eqreg.C4, eqreg.C8])),
        },
        _turned,
    ),
    "ParallelBeam": (
        ct.ParallelBeam,
        lambda draw: {
            "size": draw(st.integers(1, 99)),
            "views": draw(st.integers(1, 9)),
            "bins": draw(st.integers(1, 99)),
            "pixel": 1.0,
            "pitch": 1.0,
        },
        lambda r, **a: len(r.angles) == a["views"] and r.pixel > 0,
    ),
    "prior_image": (
        ct.prior_image,
        lambda draw: {"mu": tensor(draw(SEEDS), 6, 6)},
        lambda r, mu: r.shape == mu.shape,
    ),
    "read_image": (_written, _file, _file_right),
    "RandomCrops": (_crops, _draw_crops, _crops_right),
    "resize_ct": (
        resize_ct,
        lambda draw: {
            "hu": 1000 * tensor(draw(SEEDS), draw(st.integers(1, 9)), draw(st.integers(1, 9))),
            "size": draw(st.integers(1, 12)),
        },
        _resize_right,
    ),
}
