"""Sphinx extension: trained networks that work inside a page.

``{turned-rain}``  a photograph in rain, restored by four networks of chapter 13, to turn and to wipe;
                   drawn when the book is built.
``{try-it}``       the same networks, and those of chapter 15, on the reader's photograph, run by onnxruntime-web.
                   It is fetched from npm by `make npm`; without it the directive says so, and the page keeps
                   what is drawn.

What a click loads lies in ``_static/try``: the runtime, four networks as ONNX files, three photographs; four
networks more when the reader changes from rain to dead pixels.
"""

import io
import json
import shutil
import warnings
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

# Rows of artifacts/weights/rain: the three that know of turns were trained with C4, by quarters.
NETWORKS = {
    "plain": "plain",
    "augmentation": "augmentation-C4",
    "strict": "strict-C4",
    "EQ-Reg": "eqreg-C4",
}
# What a photograph suffers -> name of a network -> its row; all of inpainting's know of quarters.
DAMAGES = {
    "rain": NETWORKS,
    "inpainting": {name: row.removesuffix("-C4") for name, row in NETWORKS.items()},
}
PHOTOGRAPHS = {"rocket": "a rocket", "flower": "a flower", "gravel": "gravel"}
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
TURNS = ("0°", "90°", "180°", "270°")

PAGE = """<figure class="eqreg try-it" style="--at:50%">
<div class="panes"></div><div class="controls"></div>
<button class="btn btn-primary" onclick="import('../_static/try_it.js').then(
 m => m.start(this.closest('figure')),
 e => { this.nextElementSibling.textContent = `${e.message}. Load the page again.` })"
>Start: loads 14 MB once, sends nothing</button>
<p role="status"></p>
<noscript>The networks need JavaScript.</noscript></figure>"""
ABSENT = (
    "This copy of the book was built without onnxruntime-web (npm was not there), so its networks cannot "
    "run in the page. The slider above shows what they do."
)


def runtime(app):
    return Path(app.srcdir, "book", "web", "node_modules", "onnxruntime-web", "dist")


def exported(network):
    """A network of grey images as an ONNX model, for any height and width, with nothing of this machine.

    The exporter notes file paths and source lines of whoever exports at every node.
    """
    import torch

    from eqreg.strict import to_plain

    size = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own future
        program = torch.onnx.export(
            to_plain(network).eval(),
            (torch.rand(1, 1, 40, 48),),
            dynamo=True,
            dynamic_shapes=(size,),
            input_names=["x"],
            output_names=["y"],
            verbose=False,
        )
    model = program.model_proto
    model.ClearField("metadata_props")
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    for item in (*model.graph.input, *model.graph.output):
        item.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    return model


def with_weights_of(network, model):
    """The same ONNX model with the weights of another network, or None if they are not of the same names and shapes.

    Ten seconds less than to export it.
    """
    from eqreg.strict import to_plain

    weights = {name: t.contiguous().numpy() for name, t in to_plain(network).state_dict().items()}
    held = {item.name: item for item in model.graph.initializer}
    if any(name not in held or list(w.shape) != held[name].dims for name, w in weights.items()):
        return None
    for name, w in weights.items():
        held[name].raw_data = w.tobytes()
    return model


def turned_rain():
    """The figure of ``{turned-rain}``, as HTML."""
    import torch

    from eqreg import load_pretrained, psnr, rotate, viz
    from eqreg.data import photographs, seeded
    from eqreg.physics.rain import RainModel, add_rain

    clean = photographs("test", size=192)["rocket"][None]
    rainy, _ = add_rain(clean, RainModel(angle=8, spread=0), generator=seeded(3))
    restored, notes = {}, {}
    with torch.no_grad():
        for name, row in NETWORKS.items():
            network = load_pretrained(f"rain/{row}")
            restored[name] = [network(rotate(rainy, k)).clamp(0, 1) for k in range(4)]
            notes[name] = [
                f"{float(psnr(y, rotate(clean, k))):.1f} dB" for k, y in enumerate(restored[name])
            ]
    return viz.wipe(
        [rotate(rainy, k) for k in range(4)],
        restored,
        alt="A rocket on its pad at night in rain; right of the line, what the network {name} makes of it.",
        caption="Turn the picture: a plain network, which has only seen rain that falls, no longer takes it "
        "for rain. The others do, each for another reason.",
        names=("rain", "restored"),
        values=TURNS,
        label="Turn",
        notes=notes,
        size=150,
    ).html


class TurnedRain(SphinxDirective):
    def run(self):
        self.env.note_dependency(__file__)
        return [nodes.raw("", turned_rain(), format="html")]


class TryIt(SphinxDirective):
    def run(self):
        self.env.note_reread()  # npm may have been installed since
        if not runtime(self.env.app).is_dir():
            logging.getLogger(__name__).info("no onnxruntime-web: pages get no live networks")
            return [nodes.note("", nodes.paragraph(text=ABSENT))]
        self.env.live_networks = True
        return [nodes.raw("", PAGE, format="html")]


def write_files(app, error):
    place = Path(app.outdir, "_static", "try")
    if error or app.builder.format != "html" or not getattr(app.env, "live_networks", False):
        return
    from PIL import Image

    from eqreg import load_pretrained
    from eqreg.data import photographs

    place.mkdir(exist_ok=True)
    for name in RUNTIME:
        shutil.copy2(runtime(app) / name, place / name)
    about = {"networks": {damage: [] for damage in DAMAGES}, "photographs": []}
    for damage, networks in DAMAGES.items():
        model = None
        for name, row in networks.items():
            file = f"{damage}-{row}.onnx"
            # `make book` empties the folder when weights or the library have changed.
            made = place / file
            if not made.exists() or made.stat().st_mtime < Path(__file__).stat().st_mtime:
                network = load_pretrained(f"{damage}/{row}")
                model = (model and with_weights_of(network, model)) or exported(network)
                made.write_bytes(model.SerializeToString())
            about["networks"][damage].append({"name": name, "file": file})
    for key, name in PHOTOGRAPHS.items():
        pixels = (photographs("test", size=256)[key][0] * 255).round().byte().numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format="webp", quality=92)
        (place / f"{key}.webp").write_bytes(file.getvalue())
        about["photographs"].append({"name": name, "file": f"{key}.webp"})
    (place / "networks.json").write_text(json.dumps(about), encoding="utf8")


def setup(app):
    app.add_directive("turned-rain", TurnedRain)
    app.add_directive("try-it", TryIt)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
