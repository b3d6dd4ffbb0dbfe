"""The user's module inside ``torch.compile``, ``DistributedDataParallel`` and Lightning Fabric."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The module whose layer names the user knows.

    >>> net = nn.Linear(2, 2)
    >>> unwrapped(net) is net
    True
    """
    while True:
        if is_compiled(model):
            model = model._orig_mod  # type: ignore[assignment]
        elif _is_fabric(model):
            model = model._original_module  # type: ignore[assignment]
        elif is_parallel(model):
            model = model.module  # type: ignore[assignment]
        else:
            return model


def need_parameters(model: nn.Module, whole: bool = True) -> None:
    """Require that every parameter is there, and ``whole`` in this process.

    Raises:
        ValueError: for a lazy layer that never ran.
        TypeError: for a DTensor, of which each process holds a part.
    """
    for name, parameter in model.named_parameters():
        layer = name.rpartition(".")[0]
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            kind = type(model.get_submodule(layer)).__name__
            raise ValueError(
                f"layer {layer!r} ({kind}) has no parameters before its first run; call model(x) once, then this"
            )
        if whole and hasattr(parameter, "device_mesh"):  # asked so, since the import takes a second
            raise TypeError(
                f"parameter {name!r} is a DTensor, split over processes; expected whole tensors: call this before "
                "fully_shard or parallelize_module, or use DistributedDataParallel"
            )


def is_compiled(model: Any) -> bool:
    """Whether ``torch.compile`` made ``model``."""
    # Asking by attribute spares the import of torch._dynamo, which takes seconds.
    return isinstance(model, nn.Module) and "_orig_mod" in model._modules


def compiled_parts(core: nn.Module) -> list[str]:
    """Names of the modules in ``core`` that were compiled, also in place, or that hold a compiled function."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled yet
        return []
    kinds = {kind for kind in set(map(type, core.modules())) if _has_compiled(vars(kind))}

    def compiled(module: nn.Module) -> bool:
        return type(module) in kinds or is_compiled(module) or _has_compiled(vars(module))

    # Asked at every call, so that names are only made if they are wanted.
    if not any(map(compiled, core.modules())):
        return []
    return [name for name, module in core.named_modules() if compiled(module)]


def parts_uncompiled(core: nn.Module) -> AbstractContextManager[Any]:
    """While this is open, parts that were compiled for themselves run as they were written.

    Hooks that are added to a module after its first compiled call do not fire in it, without a word.
    """
    if torch.compiler.is_compiling() or not compiled_parts(core):
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _has_compiled(attributes: Mapping[str, Any]) -> bool:
    return any(
        type(v) is FunctionType and "_torchdynamo_orig_callable" in v.__dict__
        for v in attributes.values()
    )


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


def hookable(model: nn.Module) -> Callable[..., Any]:
    """A compiled model's code was traced without hooks, so the paired pass is compiled for itself."""
    if not is_compiled(model):
        return model
    inner = model._orig_mod

    def paired(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)  # type: ignore[operator]

    # The model's own context, so that backend, mode, dynamic and fullgraph are those it was compiled with.
    compiled: Callable[..., Any] = model.dynamo_ctx(paired)  # type: ignore[operator]
    return compiled
