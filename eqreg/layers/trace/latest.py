"""The latest trace is kept: a report, a decay and a regularizer of one model ask for the same."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

T = TypeVar("T")
_PLAIN = (bool, int, float, str, type(None), tuple, list, dict, set)
_INTERNAL = frozenset(vars(nn.Module()))
_kept: dict[str, Any] = {}


def latest(model: nn.Module, x: Any, question: Any, trace: Callable[[], T]) -> T:
    """What ``trace`` returned for the same model, example and question the last time, or what it returns now.

    The ties do not depend on the weights' values, so training does not outdate them. They do on modules, hooks,
    attributes, buffers and the example, of which each is compared. One trace is kept, as long as its model lives.
    """
    key = (_structure(model), _content(x), question)
    owner = _kept.get("model")
    if owner is not None and owner() is model and _kept["key"] == key:
        found: T = _kept["found"]
        return found
    forget()  # before the next, so that two are never held
    found = trace()
    _kept.update(model=weakref.ref(model, lambda _: forget()), key=key, found=found)
    return found


def forget() -> None:
    """Drop the kept trace."""
    _kept.clear()


def _structure(model: nn.Module) -> tuple[Any, ...]:
    found: list[Any] = []
    for name, m in model.named_modules():
        # Values by what they are, functions and other objects by which they are: also a forward of this one module.
        own = [
            (k, repr(v) if isinstance(v, _PLAIN) else id(v))
            for k, v in vars(m).items()
            if k not in _INTERNAL and not isinstance(v, Tensor)
        ]
        hooks = (*m._forward_hooks, *m._forward_pre_hooks)
        found.append((name, id(m), type(m), id(type(m).forward), tuple(own), hooks))
        held = {**m._buffers, **{k: v for k, v in vars(m).items() if isinstance(v, Tensor)}}
        found += [(k, id(v), v._version) for k, v in held.items() if v is not None]
        shapes = ((k, id(p), p.shape) for k, p in m._parameters.items() if p is not None)
        found += shapes
    return tuple(found)


def _content(x: Any) -> tuple[Any, ...]:
    leaves, spec = tree_flatten(x)
    found: list[Any] = [str(spec)]
    for a in leaves:
        if isinstance(a, Tensor):
            data = hashlib.blake2b(a.detach().cpu().contiguous().view(-1).numpy().tobytes())
            found.append((a.dtype, a.shape, data.hexdigest()))
        else:
            found.append(repr(a))
    return tuple(found)
