"""The README that lies in a data set's folder."""

from __future__ import annotations

from typing import Any

from .protocol import Recipe

_PUBLISHED = """\
The layout is that of the published SynDeepLesion data:

    {splits}/{splits}_640geo/<patient>/<slice>/gt.h5   image, poly_CT, poly_sinogram
    {splits}/{splits}_640geo/<patient>/<slice>/K.h5    ma_CT, LI_CT, ma_sinogram, LI_sinogram, metal_trace
    {splits}/{splits}_640geo_dir.txt                   the slices, a line each
    {splits}mask.npy                                 (H, W, masks), uint8; mask K belongs to K.h5

{numbers}
`eqreg.data.syndeeplesion.SynDeepLesion(folder, "train")` reads it (416 pixels, 640 views, 641 cells).
"""
_OWN = """\
Every slice has implants of its own, so a number K occurs in one slice only. Public loaders that draw K for each slice
from a fixed range (0 to 89 as a rule) need masks that all slices share: `eqreg ct simulate --masks FILE`.
"""
_SHARED = "K is the number of the mask in the file that was given; all slices share the masks.\n"
_PLAIN = """\
A NumPy archive for each case, `<split>/<patient>/<slice>/K.npz`: image (without metal), ma_CT, LI_CT, poly_CT (scanned
without metal), ma_sinogram, LI_sinogram, poly_sinogram, metal_trace, mask, and labels (1, 2, ... are the case's
materials in the order of the manifest).
"""


def readme(manifest: dict[str, Any], recipe: Recipe) -> str:
    """What lies in the folder and how it was made."""
    cases = manifest["cases"]
    counts = {s: sum(c["split"] == s for c in cases) for s in ("train", "test")}
    shared = any(i["kind"] == "own" for c in cases for i in c["implants"])
    layout = _PLAIN
    if manifest["layout"] == "published":
        numbers = _SHARED if shared else _OWN
        layout = _PUBLISHED.format(splits="<split>", numbers=numbers)
    g = recipe.geometry
    turns = "exactly" if g.turns == 4 else "not exactly"
    return f"""\
# CT slices with simulated metal

{counts["train"]} training and {counts["test"]} test cases, simulated by
eqreg {manifest["eqreg"]} with seed {manifest["seed"]}. Images are attenuation in 1/cm,
`mu = 0.192 (1 + HU/1000)`; sinograms are line integrals.

{layout}
* `protocol.yaml`: every number of the scanner, the tube and the implants; `eqreg ct simulate --geometry protocol.yaml`
  uses it again.
* `manifest.json`: for each case its source, implants, materials, area and SHA-256; what was left out, and why.
* `contact_sheet.png`: some of the cases.

The scanner: {type(g).__name__}, {g.views} views, {g.bins} cells, {g.size} x {g.size} pixels of {g.pixel:.4g} cm.
It is {turns} equivariant under quarter turns of the patient.

Score a method with `eqreg ct repair` and `eqreg ct score`.

The slices keep the licence of their sources.
"""
