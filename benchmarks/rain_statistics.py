"""What published rain looks like, and whether the fitted law of `eqreg.physics.rain` looks alike.

A calibration: it trains no network, and ``RAIN100H`` in `eqreg.physics.rain` was fitted with its numbers.
To be run again whenever that law or its drawing changes; a test and chapter 13b read what it stores.

For every pair of Rain100H (12 training pairs, to which ``RAIN100H`` was fitted), Rain100L (reported
only) and for the fitted law on the backgrounds of the former: direction, length, width and brightness
of R = rainy - clean. The channels of R are equal where nothing is cut off at white, so R is read from
the brightest difference, and pixels that are white in all channels are left out. The same is done
with drawn rain, so whatever clipping does to a number it does to both.

    python benchmarks/rain_statistics.py --data FOLDER    # artifacts/rain_statistics.json; 1 minute
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from common import ROOT, report, stamp
from scipy import ndimage

from eqreg.data import Rain100, seeded
from eqreg.physics.rain import RAIN100H, RainModel, add_rain

WHITE = 0.995
REACH = 80  # pixels over which the autocovariance is looked at
QUANTILES = (10, 30, 50, 70, 90)
WET, DRY = 0.1, 0.02  # brightness of pixels that count as rain, and as none


def layer(rainy: torch.Tensor, clean: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """R (H, W) and the pixels at which it is known."""
    return (rainy - clean).amax(0).double().numpy(), (rainy.amin(0) < WHITE).numpy()


def autocovariance(r: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(2 REACH + 1, 2 REACH + 1), the average over pairs of known pixels."""
    shape = [2 * n for n in r.shape]
    mean = r[known].mean()
    spectra = (np.fft.rfft2((r - mean) * known, shape), np.fft.rfft2(known.astype(float), shape))
    products, pairs = (np.fft.fftshift(np.fft.irfft2(abs(f) ** 2, shape)) for f in spectra)
    centre = tuple(slice(n - REACH, n + REACH + 1) for n in r.shape)
    return (products / pairs.clip(1))[centre]


def along(c: np.ndarray, angle: float, radii: np.ndarray) -> np.ndarray:
    """The autocovariance on a ray, degrees counter-clockwise from the vertical."""
    t = np.deg2rad(angle)
    return ndimage.map_coordinates(
        c, [REACH - radii * np.cos(t), REACH - radii * np.sin(t)], order=1
    )


def full_width(values: np.ndarray, step: float) -> float:
    """Twice the lag at which a profile has fallen to half; its whole reach if it never does."""
    v = values / values[0]
    below = np.flatnonzero(v < 0.5)
    if not len(below):
        return 2 * step * len(v)
    i = below[0]
    return float(2 * step * (i - 1 + (v[i - 1] - 0.5) / (v[i - 1] - v[i])))


def directions(r: np.ndarray, known: np.ndarray) -> tuple[float, float]:
    """Mean direction of the streaks, and the half-width of 68 % around it, degrees.

    Of the structure tensor; each pixel counts as much as its gradients agree.
    """
    smooth = ndimage.gaussian_filter(r * known, 0.7)
    dy, dx = (ndimage.sobel(smooth, axis) for axis in (0, 1))
    yy, xx, xy = (ndimage.gaussian_filter(p, 2.0) for p in (dy * dy, dx * dx, dx * dy))
    # Rows count downwards, and a streak is at a right angle to its gradient.
    tilt = -np.rad2deg(np.arctan2(2 * xy, xx - yy)) / 2
    weight = np.hypot(xx - yy, 2 * xy) * ndimage.binary_erosion(known, iterations=3)
    mean = np.rad2deg(np.angle((weight * np.exp(2j * np.deg2rad(tilt))).sum())) / 2
    off = abs((tilt - mean + 90) % 180 - 90).ravel()
    order = off.argsort()
    summed = weight.ravel()[order].cumsum()
    return float(mean), float(off[order][np.searchsorted(summed, 0.68 * summed[-1])])


def statistics(rainy: torch.Tensor, clean: torch.Tensor) -> dict[str, float]:
    r, known = layer(rainy, clean)
    c = autocovariance(r, known)
    angles = np.arange(-90.0, 90.0)
    near = np.arange(2, 25, 0.5)
    ridge = angles[np.argmax([along(c, a, near).mean() for a in angles])]
    step = 0.25
    radii = np.arange(0, REACH, step)
    mean, spread = directions(r, known)
    values = r[known]
    found = {
        "angle": mean,
        "spread": spread,
        "length": full_width(along(c, ridge, radii), step),
        "width": full_width(along(c, ridge + 90, radii), step),
        "mean": values.mean(),
        "sd": values.std(),
        "wet": (values > WET).mean(),
        "dry": (values < DRY).mean(),
    }
    found |= {f"q{q}": np.percentile(values, q) for q in (10, 50, 90, 99)}
    return {name: round(float(value), 4) for name, value in found.items()}


def summary(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Quantiles over images of every statistic."""
    return {
        name: [round(float(q), 4) for q in np.percentile([row[name] for row in rows], QUANTILES)]
        for name in rows[0]
    }


def distance(a: dict[str, list[float]], b: dict[str, list[float]]) -> dict[str, float]:
    """Mean difference of the quantiles, in units of b's range from the first to the last."""
    return {
        name: round(
            float(np.abs(np.subtract(a[name], b[name])).mean() / (b[name][-1] - b[name][0])), 3
        )
        for name in b
    }


def drawn(model: RainModel, backgrounds: list[torch.Tensor], rounds: int) -> Iterable[dict]:
    g = seeded(0)
    for clean in backgrounds * rounds:
        rainy, _ = add_rain(clean[None], model, generator=g)
        yield statistics(rainy[0], clean)


def milliseconds(model: RainModel) -> float:
    """The fastest of 20 draws of eight crops of 64 x 64, processor time."""
    b, g = torch.full((8, 3, 64, 64), 0.5), seeded(0)
    times = []
    for _ in range(20):
        began = time.process_time()
        add_rain(b, model, generator=g)
        times.append(time.process_time() - began)
    return round(1000 * min(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("EQREG_DATA"))
    parser.add_argument("--rounds", type=int, default=5, help="draws per background")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "rain_statistics.json")
    args = parser.parse_args()
    if args.data is None:
        parser.error("give --data, or set EQREG_DATA to the folder of the published sets")
    torch.set_num_threads(1)
    began = time.perf_counter()
    heavy = list(Rain100(args.data / "Rain100H_train_sample"))
    light = Rain100(args.data / "Rain100L")
    backgrounds = [pair.clean for pair in heavy]
    sets = {
        "Rain100H, 12 training pairs": [statistics(p.rainy, p.clean) for p in heavy],
        "RAIN100H, the fitted law": list(drawn(RAIN100H, backgrounds, args.rounds)),
        f"Rain100L, {len(light)} test pairs": [statistics(p.rainy, p.clean) for p in light],
        "RainModel(), the plain law": list(drawn(RainModel(), backgrounds, 1)),
    }
    quantiles = {name: summary(rows) for name, rows in sets.items()}
    real = quantiles["Rain100H, 12 training pairs"]
    result = {
        "law": repr(RAIN100H),
        "quantiles over images": list(QUANTILES),
        "images": {name: len(rows) for name, rows in sets.items()},
        "sets": quantiles,
        "distance to Rain100H": {
            n: distance(q, real) for n, q in quantiles.items() if q is not real
        },
        "ms for 8 crops of 64 x 64": milliseconds(RAIN100H),
        "stamp": stamp([0], (time.perf_counter() - began) / 3600),
    }
    for name, found in quantiles.items():
        report(name)
        for key, values in found.items():
            report(f"  {key:8s}" + "".join(f"{v:9.3f}" for v in values))
    report(json.dumps(result["distance to Rain100H"], indent=1))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
