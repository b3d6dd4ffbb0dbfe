"""What line integrals, their adjoint, FBP and a scan cost, beside the peers that are installed; memory of each.

    python benchmarks/ct_speed.py [--rounds 7] [--threads 1,2] [--out artifacts/ct_speed.json]
    python benchmarks/ct_speed.py --memory    # measures the memory alone, and stores it with a stamp of its own

For an idle machine; five minutes. Every round times each case once, in turns, so that a slow moment hits all of
them; a figure is the median of the rounds, with the least and the largest. Memory is the peak of a process of its own
that does the case once, import included. Peers are found where they are importable: ASTRA (`astra-toolbox`, on the
processor), RTK (`itk-rtk`), gecatsim (forward only) and deepinv. `PYTHONPATH=FOLDER` shows packages that are installed
beside the environment.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import ROOT, report, stamp

from eqreg.data import seeded
from eqreg.data.phantoms import phantom
from eqreg.extras import require
from eqreg.physics.ct import FBP, Projector, Scanner, hu_to_mu, implants, syndeeplesion

G = syndeeplesion()
Case = Callable[[], Any]
APART: dict[str, float] = {}


def ours() -> dict[str, Case]:
    scanner = Scanner.preset(cache=False)
    a, mu = scanner.projector, hu_to_mu(phantom("pelvis", G.size, generator=seeded(0)))
    masks = implants(10, G.size, generator=seeded(0))
    y = a.project(mu)
    a.backproject(y)  # the transpose is built once

    def set_up() -> Any:
        return Projector(G, cache=False)

    return {
        "eqreg: set-up": set_up,
        "eqreg: forward": lambda: a.project(mu),
        "eqreg: adjoint": lambda: a.backproject(y),
        "eqreg: FBP": lambda: scanner.fbp(y),
        "eqreg: a slice with ten masks": lambda: scanner(mu, masks, generator=seeded(0)),
    }


def only(name: str) -> Case:
    """One case with nothing else built, for its memory."""
    mu = hu_to_mu(phantom("pelvis", G.size, generator=seeded(0)))
    masks, y = implants(10, G.size, generator=seeded(0)), torch.zeros(G.views, G.bins)
    alone: dict[str, Case] = {
        "eqreg: set-up": lambda: Projector(G, cache=False),
        "eqreg: forward": lambda: Projector(G, cache=False).project(mu),
        "eqreg: adjoint": lambda: Projector(G, cache=False).backproject(y),
        "eqreg: FBP": lambda: FBP(G, "published")(y),
        "eqreg: a slice with ten masks": lambda: Scanner.preset(cache=False)(mu, masks),
    }
    peer = name.partition(":")[0]
    return alone[name] if name in alone else PEERS[peer][1]()[name]


def astra() -> dict[str, Case]:
    import astra as toolbox

    volume = toolbox.create_vol_geom(G.size, G.size)
    beam = toolbox.create_proj_geom("fanflat", G.pitch, G.bins, G.angles, G.source, G.detector)
    projector = toolbox.create_projector("line_fanflat", beam, volume)
    x = phantom("pelvis", G.size, generator=seeded(0)).numpy()
    _, y = toolbox.create_sino(x, projector)

    def forward() -> None:
        toolbox.data2d.delete(toolbox.create_sino(x, projector)[0])

    def adjoint() -> None:
        toolbox.data2d.delete(toolbox.create_backprojection(y, projector)[0])

    return {"astra: forward": forward, "astra: adjoint": adjoint}


def gecatsim() -> dict[str, Case]:
    import gecatsim  # noqa: F401
    from ct_judge import theirs_project

    x = phantom("pelvis", G.size, generator=seeded(0)).numpy()
    return {"gecatsim: forward": lambda: theirs_project(x, G)}


def rtk() -> dict[str, Case]:
    """RTK is 3-D: three equal slices and one row of cells, so that the middle one is our fan; its image is ours turned.

    Filters are marked as changed before each call, or they would do nothing. RTK's sums are in pixels, ours in cm.
    """
    import itk
    from itk import RTK as toolbox

    n, kind = G.size, itk.Image[itk.F, 3]
    geometry = toolbox.ThreeDCircularProjectionGeometry.New()
    for angle in np.rad2deg(G.angles):
        geometry.AddProjection(G.source, G.source + G.detector, float(angle))

    def image(values: np.ndarray[Any, Any], spacing: tuple[float, ...], deep: int) -> Any:
        made = itk.image_from_array(np.ascontiguousarray(values, dtype=np.float32))
        made.SetSpacing(spacing)
        sizes = values.shape[2], values.shape[1], deep
        made.SetOrigin([-(size - 1) / 2 * step for size, step in zip(sizes, spacing, strict=True)])
        return made

    x = hu_to_mu(phantom("pelvis", n, generator=seeded(0)))
    volume = image(np.repeat(torch.rot90(x).numpy()[:, None], 3, 1), (1.0, 1.0, 1.0), n)
    forward = toolbox.JosephForwardProjectionImageFilter[kind, kind].New()
    forward.SetGeometry(geometry)
    forward.SetInput(0, image(np.zeros((G.views, 1, G.bins)), (G.pitch, 1.0, 1.0), 1))
    forward.SetInput(1, volume)
    adjoint = toolbox.JosephBackProjectionImageFilter[kind, kind].New()
    adjoint.SetGeometry(geometry)

    forward.InPlaceOff()
    adjoint.InPlaceOff()

    def call(one: Any) -> None:
        itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(torch.get_num_threads())
        one.SetNumberOfWorkUnits(torch.get_num_threads())
        one.Modified()
        one.Update()

    call(forward)
    if "--only" not in sys.argv:  # our matrix is no part of its memory
        seen = torch.from_numpy(itk.array_from_image(forward.GetOutput())[:, 0].copy())
        APART["rtk"] = apart(seen, Projector(G, cache=False).project(x), "RTK")
    sinogram = forward.GetOutput()
    sinogram.DisconnectPipeline()
    adjoint.SetInput(0, volume)
    adjoint.SetInput(1, sinogram)
    return {"rtk: forward": lambda: call(forward), "rtk: adjoint": lambda: call(adjoint)}


def apart(theirs: torch.Tensor, ours: torch.Tensor, name: str) -> float:
    """RMS of the difference over RMS, up to a unit; a peer that projects something else is no peer."""
    theirs = theirs * ((ours * theirs).sum() / theirs.square().sum())
    found = float((ours - theirs).norm() / ours.norm())
    if found > 1e-4:
        raise RuntimeError(f"{name} projects something else: {found:.1e} RMS apart")
    return float(f"{found:.2g}")


def deepinv() -> dict[str, Case]:
    inverse = require("deepinv", extra="tasks")

    physics = inverse.physics.Tomography(
        angles=torch.from_numpy(np.rad2deg(G.angles)).float(), img_width=G.size, circle=False,
        parallel_computation=False, normalize=False, fan_beam=True, fan_parameters={
            "pixel_spacing": 1.0, "source_radius": G.source, "detector_radius": G.detector,
            "n_detector_pixels": G.bins, "detector_spacing": G.pitch,
        },
    )  # fmt: skip
    x = phantom("pelvis", G.size, generator=seeded(0))[None, None]
    return {"deepinv: forward": lambda: physics.A(x)}


PEERS: dict[str, tuple[str, Callable[[], dict[str, Case]]]] = {
    "astra": ("astra-toolbox", astra),
    "rtk": ("itk-rtk", rtk),
    "gecatsim": ("gecatsim", gecatsim),
    "deepinv": ("deepinv", deepinv),
}


def everything(wanted: str = "") -> dict[str, Case]:
    cases = ours()
    for name, (_, make) in PEERS.items():
        if wanted and name not in wanted.split(","):
            continue
        try:
            cases |= make()
        except Exception as error:  # peers fail as they like: no library, no driver
            report(f"{name} is not measured: {error}")
    return cases


def peak() -> int:
    """Most megabytes this process had; `ru_maxrss` would count what its parent had when it started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def memory(name: str) -> int:
    """Peak megabytes of a process that does the case once."""
    command = [sys.executable, __file__, "--only", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def _again(path: Path) -> None:
    """The memory of a stored result's cases, which needs no idle machine."""
    began = time.perf_counter()
    result = json.loads(path.read_text(encoding="utf-8"))
    result["peak memory, MB"] = {name: memory(name) for name in result["peak memory, MB"]}
    result["stamp of the memory"] = stamp([0], (time.perf_counter() - began) / 3600)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["peak memory, MB"], indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument(
        "--peers", default="", help="of astra,rtk,gecatsim,deepinv; all if not given"
    )
    parser.add_argument("--only", help="do this case once and print the peak memory")
    parser.add_argument("--memory", action="store_true", help="of the cases in the file, alone")
    parser.add_argument("--out", type=Path, default=ROOT / "artifacts" / "ct_speed.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only:
        only(args.only)()
        print(peak())
        return
    began = time.perf_counter()
    if args.memory:
        _again(args.out)
        return
    cases = everything(args.peers)
    seconds: dict[str, dict[str, Any]] = {}
    for threads in map(int, args.threads.split(",")):
        torch.set_num_threads(threads)
        found: dict[str, list[float]] = {name: [] for name in cases}
        for k in range(args.rounds + 1):  # the first round warms up
            for name, case in cases.items():
                start = time.perf_counter()
                case()
                if k:
                    found[name].append(time.perf_counter() - start)
        seconds[str(threads)] = {
            name: [round(v, 4) for v in (statistics.median(s), min(s), max(s))] for name, s in found.items()
        }  # fmt: skip
        for name, s in seconds[str(threads)].items():
            report(f"{threads} threads  {name:32} {s[0]:8.4f} s ({s[1]:.4f} to {s[2]:.4f})")
    result = {
        "seconds: median, least, largest": seconds,
        "peak memory, MB": {name: memory(name) for name in cases},
        "bytes of the matrix": 8 * Projector(G, cache=False).stored,
        "apart from ours, RMS": APART,
        "versions": {
            package: importlib.metadata.version(package)
            for name, (package, _) in PEERS.items()
            if any(case.startswith(name) for case in cases)
        },
        "rounds": args.rounds,
        "stamp": stamp([0], (time.perf_counter() - began) / 3600),
    }
    report(json.dumps(result["peak memory, MB"], indent=1))
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
