"""Sphinx extension: ``{metal-scans}``, what `eqreg ct` makes of drawn patients, scanned when the book is built.

The published scanner at its full size takes seconds for four patients, and its matrices are not kept.
"""

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

CASES = {
    "hips": ("pelvis", "hip"),
    "screws": ("abdomen", "spine"),
    "fillings": ("head", "dental"),
    "clips": ("thorax", "clips"),
}
FIELD = 400.0  # mm
WINDOW = (-300.0, 400.0)  # HU: black and white
SEED = 1


def metal_scans():
    """The figure, as HTML."""
    from eqreg import viz
    from eqreg.data import seeded
    from eqreg.data.metal.place import labels, place
    from eqreg.data.phantoms import phantom
    from eqreg.physics.ct import Scanner, hu_to_mu, mu_to_hu, nmar_image

    def shown(mu):
        return ((mu_to_hu(mu) - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clamp(0, 1)

    scanner = Scanner.preset(cache=False)
    before, after, notes = [], {"LI": [], "NMAR": [], "truth": []}, {"LI": [], "NMAR": []}
    values = []
    for name, (region, kind) in CASES.items():
        g = seeded(SEED)
        hu = phantom(region, generator=g)
        materials, metal = labels(place(kind, hu, FIELD, generator=g))
        mu = hu_to_mu(hu)
        scan = scanner.scan_metals(mu, [materials], generator=g)
        project, reconstruct = scanner.projector.project, scanner.fbp
        nmar, _ = nmar_image(scan.ma_sinogram[0], scan.trace[0], project, reconstruct, metal)
        before.append(shown(scan.ma[0]))
        found = {"LI": scan.li[0], "NMAR": nmar}
        for method, image in found.items():
            after[method].append(shown(image))
            off = (mu_to_hu(image) - hu)[~metal].square().mean().sqrt()
            notes[method].append(f"{float(off):.0f} HU off")
        after["truth"].append(shown(mu))
        values.append(f"{name}: {', '.join(materials)}")
    notes["truth"] = ["the slice before the scan"] * len(values)
    return viz.wipe(
        before,
        after,
        alt="A drawn patient scanned with metal, streaked; right of the line {name}.",
        caption="Four drawn patients on the published scanner; left of the line what it makes of the metal. The "
        "number is the root mean square of the error outside the metal. Window: −300 to 400 HU.",
        names=("scanned", "repaired"),
        values=values,
        label="Implant",
        notes=notes,
    ).html


class MetalScans(SphinxDirective):
    def run(self):
        self.env.note_dependency(__file__)
        return [nodes.raw("", metal_scans(), format="html")]


def setup(app):
    app.add_directive("metal-scans", MetalScans)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
