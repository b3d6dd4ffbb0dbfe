"""Our sinograms beside those of a second, independent simulator: XCIST (gecatsim, GE's CatSim in Python).

    pip install --target FOLDER --no-deps gecatsim     # 1.6.9; needs numpy, scipy, matplotlib, tqdm
    PYTHONPATH=FOLDER python benchmarks/ct_judge.py [--size 416] [--out artifacts/ct_judge.json]

Theirs are the projector (distance driven, where ours is Joseph's), its C code and its tables of attenuation (Geant4's
cross sections, where ours are xraydb's). Shared are the objects, the spectrum, and the formula that adds up energies.
Errors are the RMS of the difference over the RMS of theirs, all cells counted. A minute on one core; no data needed.

gecatsim's axes: the source starts on the positive y axis and turns clockwise, columns of the image are x. So its
image is the transpose of ours and its angles are ours with the sign turned; of 32 mirrored and turned ways to call
it, this one and three that are the same agree.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, report, stamp

from eqreg.data import seeded
from eqreg.data.phantoms import REGIONS, phantom
from eqreg.physics.ct import (
    Projector,
    decompose,
    hu_to_mu,
    implant,
    open_beam,
    polychromatic,
    small_fan,
)
from eqreg.physics.ct.geometry import FanBeam
from eqreg.physics.ct.materials import MATERIALS

METAL = "titanium"
# Names of their files, and of our materials.
TABLES = {"water": "water", "bone": "ICRU_skeleton_cortical_bone_adult", "titanium": "Ti"}


def theirs_project(image: np.ndarray[Any, Any], g: FanBeam) -> np.ndarray[Any, Any]:
    """Line integrals (views, bins) in units of the image times a pixel."""
    from gecatsim.pyfiles.C_DD3Proj_mm import DD3Proj_mm

    one, n = np.single(1), g.size
    volume = np.ascontiguousarray(image.T[:, :, None], dtype=np.single)
    return DD3Proj_mm(
        0, g.source, 0, g.bins, 1,
        g.cells.astype(np.single), np.full(g.bins, -g.detector, np.single), np.zeros(1, np.single),
        0, 0, 0, (-g.angles).astype(np.single), np.zeros(g.views, np.single), g.views,
        n, n, 1, volume, one, one, np.ones((2 * n, n), np.uint8),
    )[:, :, 0]  # fmt: skip


def theirs_relative(material: str, energies: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Attenuation relative to 70 keV."""
    from gecatsim.pyfiles.GetMu import GetMu

    mu = np.asarray(GetMu(TABLES[material], [*energies.tolist(), 70.0]), dtype=float)
    return mu[:-1] / mu[-1]


def error(ours: Any, theirs: Any) -> float:
    a, b = (np.asarray(v, dtype=np.float64) for v in (ours, theirs))
    return float(f"{np.sqrt(((a - b) ** 2).mean() / (b**2).mean()):.4g}")


def compare(region: str, g: FanBeam) -> dict[str, float]:
    beam, a = open_beam(), Projector(g, cache=False)
    mu = hu_to_mu(phantom(region, g.size, generator=seeded(0)))
    area = 890 if region != "head" else 118
    metal = implant("hip", area, g.size, center=(0.0, 0.3), generator=seeded(1))
    parts = {**decompose(mu), METAL: metal.float() * beam.mu(METAL)}
    ours = {m: a.project(x) for m, x in parts.items()}
    theirs = {m: theirs_project(x.numpy(), g) * g.pixel for m, x in parts.items()}
    seen = polychromatic(ours, beam)
    arriving = sum(
        w * np.exp(-sum(theirs_relative(m, beam.energies)[e] * p for m, p in theirs.items()))
        for e, w in enumerate(beam.weights)
    )
    found = {f"line integrals of {m}": error(ours[m], p) for m, p in theirs.items()}
    found["line integrals of all"] = error(sum(ours.values()), sum(theirs.values()))
    found["all energies, our tables"] = error(
        seen, polychromatic({m: torch.from_numpy(p) for m, p in theirs.items()}, beam)
    )
    found["all energies, their tables"] = error(seen, -np.log(arriving))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "ct_judge.json")
    args = parser.parse_args()
    began = time.perf_counter()
    g = small_fan(args.size, 640 if args.size == 416 else 2 * args.size)
    energies = open_beam().energies
    result: dict[str, Any] = {
        "judge": f"gecatsim {metadata.version('gecatsim')}",
        "geometry": repr(g),
        "errors": {region: compare(region, g) for region in REGIONS},
        "tables": {
            m: float(f"{np.abs(theirs_relative(m, energies) / open_beam().relative(m) - 1).max():.3g}")
            for m in TABLES
        },
        "densities": {m: MATERIALS[m][1] for m in TABLES},
        "stamp": stamp([0], (time.perf_counter() - began) / 3600),
    }  # fmt: skip
    report(json.dumps(result["errors"], indent=1))
    report(f"largest difference of the tables, relative: {result['tables']}")
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
