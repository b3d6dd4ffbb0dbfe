"""Weights that a trained network no longer uses: behind a ReLU that is shut everywhere nothing is learned."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..training.batch import inputs, move
from ..training.fit import SampleBatch
from ..training.settings import PLAIN
from ..training.step import Loss, Objective, StepLoss

_NOTHING = 1e-5  # of the input's spread


@torch.no_grad()
def is_mute(
    model: nn.Module, sample: SampleBatch, *, generator: torch.Generator | None = None
) -> bool:
    """Whether the network says nothing: its answer is an input up to a constant, or is constant.

    Such a network still scores, as its input does. It must not win a comparison.

    Args:
        model: trained; called in eval mode, its mode is left as it was.
        sample: as for :func:`eqreg.training.fit`; one batch is looked at.
        generator: of the batch.
    """
    modes = {module: module.training for module in model.modules()}
    x, _ = move(sample(generator), next(model.parameters()).device)
    answers = tree_leaves(model.eval()(*inputs(x)))
    for module, mode in modes.items():
        module.training = mode
    return all(any(_says_nothing(y, given) for given in inputs(x)) for y in answers)


def _says_nothing(y: Tensor, x: Tensor) -> bool:
    """Whether ``y``, or what it is more than ``x``, is a constant."""
    said = [y]
    if y.dim() == x.dim() and y.shape[2:] == x.shape[2:] and y.shape[1] % x.shape[1] == 0:
        said.append(
            y[:, -x.shape[1] :] - x
        )  # an unfolded network stacks its estimates, the last is last
    spreads = [s.flatten(1).std(1).max() if s.dim() > 2 else s.std(0).max() for s in said]
    return bool(min(spreads) <= _NOTHING * x.std())


def silent_weights(
    model: nn.Module,
    sample: SampleBatch,
    loss: Loss,
    objective: Objective | None = None,
    *,
    generator: torch.Generator | None = None,
) -> list[str]:
    """Names of the weights whose gradient is exactly zero on a batch.

    A network that has fallen silent still scores: as its input does, or as what its biases say. Biases and
    single numbers are left out; a threshold at its bound has no gradient either.

    Args:
        model: trained; its mode and its gradients are left as they were.
        sample, loss, objective, generator: as for :func:`eqreg.training.fit`.
    """
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad and p.dim() > 1}
    modes = {module: module.training for module in model.modules()}
    kept = {p: p.grad for p in model.parameters()}
    model.eval().zero_grad(set_to_none=True)
    x, y = move(sample(generator), next(model.parameters()).device)
    with torch.enable_grad():
        StepLoss(model, loss, objective, PLAIN, 1, generator).backward(x, y)
    silent = [n for n, p in weights.items() if p.grad is None or not p.grad.any()]
    for parameter, grad in kept.items():
        parameter.grad = grad
    for module, mode in modes.items():
        module.training = mode
    return silent


def told_silent_weights(
    name: str, model: nn.Module, sample: SampleBatch, settings: Mapping[str, Any], seed: int
) -> list[str]:
    """:func:`silent_weights` of the run called ``name``, with a warning: who reads its scores should know."""
    found = silent_weights(
        model, sample, settings["loss"], settings.get("objective"),
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    if found:
        warnings.warn(
            f"{name}: {len(found)} weights have no effect any more, "
            f"{', '.join(found[:3])}{', ...' if len(found) > 3 else ''}; a smaller lr may keep them alive",
            stacklevel=3,
        )
    return found
