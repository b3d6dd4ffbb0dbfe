"""Sphinx extension: what the front page shows, drawn from stored results when the book is built.

``{result}``             what EQ-Reg gains on each of its rivals, task by task, with both intervals and the verdict
``{part-picture} 3``     a small picture of a part of the book
"""

from collections import Counter
from dataclasses import replace

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

TASKS = {
    "Rain": "rain",
    "Rain, unfolded": "deraining",
    "Inpainting": "inpainting",
    "Metal artefacts": "mar",
    "Digits": "classification",
}
NAMES = {"eqreg": "EQ-Reg", "strict-equal": "strict, equal size"}
RIVALS = ("pairs", "augmentation", "strict-equal", "plain")


def answers(task):
    """What EQ-Reg gains on each of its rivals, the study's stamp, and its seeds; the evidence once it is stored."""
    from eqreg.experiments.artifacts import load_artifact
    from eqreg.experiments.comparison import decided, judged

    study = load_artifact(f"{task}-evidence", f"{task}-cpu")
    ours = {c.b: c for c in decided(study) if c.a == "eqreg"}
    found = [
        replace(ours[rival], a=NAMES["eqreg"], b=NAMES.get(rival, rival))
        for rival in RIVALS
        if rival in ours
    ]
    seeds, _ = judged(study["rows"])
    return found, study["stamp"], len(seeds)


def result():
    """The figure of ``{result}``, as HTML."""
    from eqreg import viz
    from eqreg.tasks import get_task
    from eqreg.viz.forest import forest

    found = {title: answers(task) for title, task in TASKS.items()}
    counts = Counter(c.verdict for rows, *_ in found.values() for c in rows)
    words = {
        "gain": "gains",
        "loss": "losses",
        "equivalent": "equivalent",
        "undecided": "undecided",
    }
    told = ", ".join(f"{counts[verdict]} {word}" for verdict, word in words.items())
    stamps = [stamp for _, stamp, _ in found.values()]
    dates = sorted({stamp["date"] for stamp in stamps})
    seeds = sorted({seeds for *_, seeds in found.values()})
    caption = (
        f"What EQ-Reg gains on four rivals in five tasks: {told}. Thick: 95 % interval over seeds; thin: over test "
        "images; grey: a difference too small to matter, fixed beforehand. “Pairs” is EQ-Reg without its penalty. "
        f"Small networks, few data: stored runs of {' to '.join(sorted({dates[0], dates[-1]}))}, "
        f"{' or '.join(map(str, seeds))} seeds, {' / '.join(sorted({stamp['device'] for stamp in stamps}))}."
    )
    alt = "; ".join(
        f"{title}: "
        + ", ".join(f"minus {c.b} {c.mean:+.3f} ± {c.half:.3f} {c.verdict}" for c in rows)
        for title, (rows, *_) in found.items()
    )
    figure = forest(
        {title: rows for title, (rows, *_) in found.items()},
        {title: get_task(task).margin for title, task in TASKS.items()},
        units={"Digits": ("points", 100)},
    )
    return viz.show(
        figure, alt=f"Differences of EQ-Reg to its rivals. {alt}.", caption=caption
    ).html


def part_picture(number):
    """A small picture of a part, as HTML."""
    import numpy as np
    import torch

    from eqreg import load_pretrained, rotate, viz
    from eqreg.data import photographs, seeded
    from eqreg.physics.rain import RainModel, add_rain

    size = (2.4, 1.35)
    if number in (1, 2):
        figure, axes = viz.subplots(2, 4, size=size)
        scene = photographs("test", size=96)["rocket"]
        where = torch.linspace(-1, 1, 33)
        up, right = torch.meshgrid(-where, where, indexing="ij")
        for k, ax in enumerate(axes.flat):
            angle = torch.tensor(k * np.pi / 4)
            # An odd wave under a bell: the first component of a steerable filter.
            wave = (up * angle.sin() + right * angle.cos()) * torch.exp(-4 * (up**2 + right**2))
            turned = rotate(scene, k % 4) if k < 4 else rotate(scene, k % 4).flip(-1)
            ax.imshow(turned[0] if number == 1 else wave, cmap="gray" if number == 1 else "RdBu_r")
            ax.set_axis_off()
        alt = (
            "A photograph in eight positions: four turns and their mirror images.",
            "One filter at eight angles.",
        )
        return viz.show(figure, alt=alt[number - 1]).html
    if number == 4:
        clean = photographs("test", size=96)["rocket"][None]
        rainy, _ = add_rain(clean, RainModel(angle=8, spread=0), generator=seeded(3))
        with torch.no_grad():
            restored = load_pretrained("rain/eqreg-C4")(rainy).clamp(0, 1)
        figure, axes = viz.subplots(1, 2, size=size)
        for ax, image in zip(axes, (rainy, restored), strict=True):
            ax.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
            ax.set_axis_off()
        return viz.show(figure, alt="A rocket in rain, and restored by a network with EQ-Reg.").html
    figure, ax = viz.subplots(size=size)
    if number == 3:
        # Ridge regression towards a symmetric solution: chapter 11's bias and variance.
        strength = np.linspace(0, 6, 100)
        variance, bias = 1 / (1 + strength) ** 2, 0.5 * (strength / (1 + strength)) ** 2
        ax.fill_between(strength, 0, variance, color=viz.COLORS["sky"], lw=0)
        ax.fill_between(strength, variance, variance + bias, color=viz.COLORS["orange"], lw=0)
        ax.set(xticks=[], yticks=[], xlabel="strength", ylabel="error")
        return viz.show(
            figure,
            alt="Error over strength: variance falls, bias grows, the sum has a least place.",
        ).html
    for i, width in enumerate((1.0, 0.8, 0.6, 0.8, 1.0)):
        ax.barh(0, 0.5, left=i, height=width, color=viz.COLORS["blue" if i % 2 else "green"])
        ax.annotate("", (i, 0), (i - 0.5, 0), arrowprops={"arrowstyle": "->", "color": "0.4"})
    ax.set(xlim=(-0.6, 4.7), ylim=(-0.8, 0.8))
    ax.set_axis_off()
    return viz.show(figure, alt="A network of five layers, narrow in the middle.").html


class Result(SphinxDirective):
    def run(self):
        self.env.note_dependency(__file__)
        return [nodes.raw("", result(), format="html")]


class PartPicture(SphinxDirective):
    required_arguments = 1

    def run(self):
        self.env.note_dependency(__file__)
        return [nodes.raw("", part_picture(int(self.arguments[0])), format="html")]


def setup(app):
    app.add_directive("result", Result)
    app.add_directive("part-picture", PartPicture)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
