"""The cases that `speed.py` measures, and which are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from eqreg import C2, C4, D4, EquivarianceDecay, EquivarianceRegularizer, rotate
from eqreg.strict import GroupConv2d
from eqreg.tasks import get_task
from eqreg.training import Row, fit, prepare

LAMBDA = 1e-8  # of the released code, where the penalty is a sum of unsquared norms

Cases = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Figure:
    """A case as a multiple of another; ``memory`` is the target of what is kept for backward."""

    case: str
    against: str
    target: float | None = None
    memory: float | None = None


@dataclass(frozen=True)
class Group:
    """Cases that are measured in turns. A case gives a loss that is back-propagated, or None."""

    name: str
    cases: Callable[[], Cases]
    figures: tuple[Figure, ...]
    repeats: int = 1
    share: float = 1.0  # of the time


def chain(width: int, depth: int, images: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(images, width, 3, padding=1), nn.ReLU()]
    for _ in range(depth - 2):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, images, 3, padding=1))


def layers(width: int, size: int, batch: int) -> Cases:
    """Eight convolutions on the same images: EQ-Reg beside twice the batch, decay beside the plain step."""
    net, x = chain(width, 8), torch.rand(batch, 1, size, size)
    decay = EquivarianceDecay(net, C4, 1.0)

    def plain() -> Tensor:
        return mse_loss(net(x), x)

    def twice() -> Tensor:
        both = torch.cat([x, rotate(x, 1)])
        return mse_loss(net(both), both)

    def decayed() -> Tensor:
        decay.step(1e-3)
        return plain()

    def regularised(**options: Any) -> Callable[[], Tensor]:
        reg = EquivarianceRegularizer(net, C4, **options)

        def loss() -> Tensor:
            out = reg(x)
            return mse_loss(out.y, x) + mse_loss(out.y_g, out.act(x)) + 0.1 * out.penalty

        return loss

    return {
        "plain": plain, "twice the batch": twice, "EQ-Reg": regularised(),
        "EQ-Reg, pixels 1/4": regularised(pixels=1 / 4), "EQ-Reg, pixels 1/16": regularised(pixels=1 / 16),
        "EQ-Reg, fraction 1/4 and every 4": regularised(fraction=0.25, every=4), "decay": decayed,
    }  # fmt: skip


def many_layers(depth: int = 300, dtype: torch.dtype = torch.float32) -> Cases:
    """A step of Adam, alone and with the decay behind it; building network and optimizer, and the decay too."""
    net, x = chain(16, depth).to(dtype), torch.rand(4, 1, 16, 16, dtype=dtype)
    adam, decay = torch.optim.Adam(net.parameters(), 1e-4), EquivarianceDecay(net, C4, 1.0)

    def step(shrink: bool) -> None:
        adam.zero_grad()
        mse_loss(net(x), x).backward()
        adam.step()
        if shrink:
            decay.step(1e-4)

    def build(shrink: bool) -> None:
        made = chain(16, depth)
        torch.optim.Adam(made.parameters(), 1e-4)
        if shrink:
            EquivarianceDecay(made, C4, 1.0)

    return {
        "plain": partial(step, False), "decay": partial(step, True),
        "building a network": partial(build, False), "building it and its decay": partial(build, True),
    }  # fmt: skip


def released() -> Cases:
    """A chain with the sizes of RCDNet's image net (36 channels, patches of 64), EQ-Reg as released and ours.

    The released form is written anew from its description: each layer's error by whole-tensor turns and rolls, in
    the unsquared norm, one after the other, all results kept by autograd.
    """
    net, x, fields = chain(36, 6, 3), torch.rand(4, 3, 64, 64), 18
    regular = {str(i): C2.field(f"{fields}r") for i in range(0, 10, 2)}
    convs = [net[int(name)] for name in regular]
    ours = {
        norm: EquivarianceRegularizer(net, C2, layers=list(regular), fields=regular, norm=norm)
        for norm in ("reference", "relative")
    }

    def theirs() -> Tensor:
        found: list[Tensor] = []

        def hook(module: nn.Module, inputs: Any, y: Tensor) -> None:
            half = len(y) // 2
            back = y[half:].view(half, fields, 2, *y.shape[-2:]).roll(-1, 2).flatten(1, 2)
            found.append((torch.rot90(y[:half], 2, (2, 3)) - back).norm(2))

        hooks = [conv.register_forward_hook(hook) for conv in convs]
        both = torch.cat([x, torch.rot90(x, 2, (2, 3))])
        loss = mse_loss(net(both), both)
        for h in hooks:
            h.remove()
        return loss + LAMBDA * sum(found)

    def by(norm: str) -> Tensor:
        out = ours[norm](x, g=1)
        return mse_loss(out.y, x) + mse_loss(out.y_g, out.act(x)) + LAMBDA * out.penalty

    return {
        "as released": theirs, "EQ-Reg, reference norm": partial(by, "reference"),
        "EQ-Reg": partial(by, "relative"),
    }  # fmt: skip


def beside_escnn(group: Any, fields: int) -> Cases:
    """A strict network of three layers at equal width: a training step, and its construction."""
    from eqreg.strict.escnn import EscnnConv2d

    image, hidden = group.field("1t"), group.field(f"{fields}r")
    x = torch.rand(4, 1, 32, 32)

    def build(layer: Any) -> nn.Sequential:
        ends = layer(image, hidden, 3, padding=1), layer(hidden, image, 3, padding=1)
        return nn.Sequential(
            ends[0], nn.ReLU(), layer(hidden, hidden, 3, padding=1), nn.ReLU(), ends[1]
        )

    ours, theirs = build(GroupConv2d), build(EscnnConv2d)

    def make(layer: Any) -> None:
        build(layer)

    return {
        "GroupConv2d": lambda: mse_loss(ours(x), x), "escnn": lambda: mse_loss(theirs(x), x),
        "building GroupConv2d": partial(make, GroupConv2d), "building escnn": partial(make, EscnnConv2d),
    }  # fmt: skip


def task_steps(name: str, steps: int = 2) -> Cases:
    """Steps of the engine on the task's own network and data, at equal images: plain and EQ-Reg."""
    task = get_task(name)
    preset, cases = task.preset("cpu"), {}
    if name == "mar":  # the same network and crops; simulating the published scans takes minutes
        drawn = {"data": "phantoms", "size": 64, "slices": 6, "implants": 2, "turn_every": 2}
        preset = replace(preset, sizes={**preset.sizes, **drawn})
    for method in ("plain", "eqreg"):
        torch.manual_seed(0)
        row = Row.parse(method, task.right, task.full, task.methods)
        made = prepare(
            row, task.model(preset), 0.01 if method == "eqreg" else 0.0,
            layers=task.layers, fields=task.fields, twin=task.twin,
        )  # fmt: skip
        sampler = task.sampler(preset, row.method, 0, None, torch.device("cpu"))

        def run(made: Any = made, sampler: Any = sampler) -> None:
            fit(
                made.model, sampler, steps=steps, lr=1e-4, symmetry=made.symmetry, loss=task.loss,
                generator=torch.Generator().manual_seed(1), progress=False,
            )  # fmt: skip

        cases[method] = run
    return cases


def rain_run(steps: int = 20) -> Cases:
    """Twenty steps of the task `rain`, in torch's layout and with channels last."""
    task = get_task("rain")
    preset, cases = task.preset("cpu"), {}
    row = Row.parse("plain", task.right, task.full, task.methods)
    sampler = task.sampler(preset, row.method, 0, None, torch.device("cpu"))
    for name, layout in (
        ("as it is", torch.contiguous_format),
        ("channels last", torch.channels_last),
    ):
        torch.manual_seed(0)
        model = task.model(preset).to(memory_format=layout)
        cases[name] = partial(
            fit, model, sampler, steps=steps, lr=1e-3, loss=task.loss,
            generator=torch.Generator().manual_seed(1), progress=False,
        )  # fmt: skip
    return cases


_LAYERS = (
    Figure("twice the batch", "plain"),
    Figure("EQ-Reg, fraction 1/4 and every 4", "plain", 1.06),
)
_STRICT = (
    Figure("GroupConv2d", "escnn", 0.85, 0.6),
    Figure("building GroupConv2d", "building escnn", 0.05),
)
GROUPS = {
    group.name: group
    for group in (
        Group("wide", partial(layers, 32, 48, 16), (
            Figure("EQ-Reg", "twice the batch", 1.03, 1.10),
            Figure("EQ-Reg, pixels 1/4", "twice the batch", 1.03, 1.10),
            Figure("EQ-Reg, pixels 1/16", "twice the batch", 1.03, 1.10),
            Figure("decay", "plain", 1.03), *_LAYERS,
        ), repeats=4, share=3),
        Group("narrow", partial(layers, 16, 24, 4), (
            Figure("EQ-Reg", "twice the batch", 1.10, 1.10),
            Figure("EQ-Reg, pixels 1/4", "twice the batch", 1.10, 1.10),
            Figure("decay", "plain", 1.03), *_LAYERS,
        ), repeats=8),
        Group("decay", many_layers, (
            Figure("decay", "plain", 1.02),
            Figure("building it and its decay", "building a network"),
        )),
        Group("decay-bf16", partial(many_layers, dtype=torch.bfloat16), (
            Figure("decay", "plain", 1.02),
        )),
        Group("released", released, (
            # Its memory would be miscounted: its own hooks are nearer than those that count.
            Figure("EQ-Reg, reference norm", "as released", 0.75),
            Figure("EQ-Reg", "as released", 0.75, 1.0),
        )),
        Group("escnn-C4", partial(beside_escnn, C4, 8), _STRICT),
        Group("escnn-D4", partial(beside_escnn, D4, 4), _STRICT),
        *(
            Group(name, partial(task_steps, name), (Figure("eqreg", "plain", 1.10),))
            for name in ("rain", "inpainting", "classification", "deraining", "mar")
        ),
        Group("run", rain_run, (Figure("channels last", "as it is", 0.80),)),
    )
}  # fmt: skip
