"""The user's module inside ``torch.compile``, ``DistributedDataParallel`` and Lightning Fabric."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The module whose layer names the user knows."""
    while True:
        if is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]
        elif _is_fabric(model):
            model = model._original_module  # type: ignore[assignment]
        elif is_parallel(model):
            model = model.module  # type: ignore[assignment]
        else:
            return model


def is_compiled(model: Any) -> bool:
    """Whether ``torch.compile`` made ``model``."""
    # Asking by attribute spares the import of torch._dynamo, which takes seconds.
    return isinstance(model, nn.Module) and "_orig_mod" in model._modules


def is_parallel(model: Any) -> bool:
    """Whether ``model`` runs in several processes."""
    if is_compiled(model):
        return is_parallel(model._orig_mod)
    if _is_fabric(model):
        return is_parallel(model._forward_module)
    return dist.is_available() and isinstance(model, nn.parallel.DistributedDataParallel)


def _is_fabric(model: Any) -> bool:
    """Whether ``Fabric.setup_module`` wrapped ``model``; asked without importing Fabric."""
    return isinstance(model, nn.Module) and "_original_module" in model._modules
