"""Weights that a trained network no longer uses: behind a ReLU that is shut everywhere nothing is learned."""

from __future__ import annotations

import torch
from torch import nn

from ..training.batch import move
from ..training.fit import SampleBatch
from ..training.settings import PLAIN
from ..training.step import Loss, Objective, StepLoss


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
