"""Layers that are called on parts of the image: a turned image has other parts at their places.

A network that cuts its input into quadrants and runs one encoder on each (MPRNet) calls the encoder's
layers several times. The first call sees the upper left of the image and, for the turned image, what came
from the upper right: features of different pictures, which no comparison may put side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import IMAGE_DIMS, Inputs

_CORNERS = ("upper left", "upper right", "lower left", "lower right")


@torch.no_grad()
def partial_views(
    core: nn.Module,
    layers: Iterable[tuple[str, nn.Module]],
    inputs: Inputs,
    batch: int,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> dict[str, str]:
    """Layers with a call that depends on some corners of the image and not on the others.

    The model runs once, in eval mode and without gradient, on five images of noise: one, and four that
    differ from it in a corner. Which of the five features differ says which corners a call has seen.

    Args:
        core: the model.
        layers: names and modules to look at.
        inputs: which inputs turn.
        batch: the number of images in them.
        args, kwargs: the model's inputs.

    Returns:
        What the first such call of a layer sees, by name; nothing if the model does not run in this way.
    """
    seen: dict[str, str] = {}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: Any, given: Any, z: Any) -> None:
            if name in seen or not isinstance(z, Tensor) or z.shape[0] != 1 + len(_CORNERS):
                return
            rounding = 4 * torch.finfo(z.dtype).eps * z.abs().max()
            differs = (z[1:] - z[:1]).flatten(1).abs().amax(1) > rounding
            if bool(differs.any()) and not bool(differs.all()):
                seen[name] = " and ".join(
                    corner for corner, d in zip(_CORNERS, differs.tolist(), strict=True) if d
                )

        return hook

    training = {module: module.training for module in core.modules()}
    handles = [module.register_forward_hook(hook_for(name)) for name, module in layers]
    try:
        core.eval()
        probes, named = inputs.map(args, kwargs, lambda t, turns, _: _probe(t, turns, batch))
        core(*probes, **named)
    except Exception:  # a network that cannot run on noise or in eval mode: nothing was learnt
        return {}
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    return seen


def _probe(t: Tensor, turns: bool | None, batch: int) -> Tensor:
    count = 1 + len(_CORNERS)
    if turns is False or (turns is None and t.ndim < IMAGE_DIMS) or not t.is_floating_point():
        return t[:1].expand(count, *t.shape[1:]) if t.shape[0] in (1, batch) else t
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand((2, *t.shape[1:]), generator=generator).to(t)
    probes = first.repeat(count, *(1 for _ in first.shape))
    h, w = (max(1, side // 4) for side in t.shape[-2:])
    for probe, row, column in zip(probes[1:], (0, 0, -h, -h), (0, -w, 0, -w), strict=True):
        rows, columns = slice(row, row + h or None), slice(column, column + w or None)
        probe[..., rows, columns] = second[..., rows, columns]
    return probes
