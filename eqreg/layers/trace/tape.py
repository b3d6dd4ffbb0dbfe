"""One dry run of a network as a list of operations on numbered tensors.

The recorder sits below autograd, where every network is a sequence of ATen operations, whatever its
Python looks like. It keeps what depends on the input or on a parameter; everything else is a constant.
Operations in place become operations with a new result: each tensor that shares the storage gets a new
number, read from the written one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from .modes import Looking, awake

_MASKED = ("index", "index_put", "_index_put_impl", "masked_fill")


@dataclass(frozen=True)
class Ref:
    """A tensor of the tape, by its number."""

    index: int


@dataclass(frozen=True, eq=False)
class Node:
    """One operation: ``args`` and ``kwargs`` with :class:`Ref` in place of tensors."""

    index: int
    func: Callable[..., Any]
    name: str  # of the operation, without namespace and overload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    ins: tuple[int, ...]
    outs: tuple[int | None, ...]
    path: str  # of the innermost module that ran

    def call(self, value: Callable[[int], Any]) -> list[Any]:
        """Run the operation with other tensors in place of its own; the results as a flat list."""

        def put(a: Any) -> Any:
            return value(a.index) if isinstance(a, Ref) else a

        return tree_leaves(self.func(*tree_map(put, self.args), **tree_map(put, self.kwargs)))


@dataclass
class Tape:
    """What :func:`record` returns."""

    nodes: list[Node] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    parameters: dict[int, str] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    features: list[tuple[str, int]] = field(default_factory=list)  # module path, what it put out
    masks: dict[int, Tensor] = field(
        default_factory=dict
    )  # values of masks that depend on the input


def reread(old: Tensor, at: Tensor) -> Tensor:
    """What another tensor with the same storage holds, of which no operation tells (``.data``)."""
    return old.reshape(-1)[at]


def overwrite(old: Tensor, new: Tensor, at: Tensor) -> Tensor:
    """``old`` with ``new.flatten()[at]`` where ``at >= 0``: how a write in place reaches another view."""
    return torch.where(at >= 0, new.reshape(-1)[at.clamp_min(0)], old)


class _Recorder(Looking):
    def __init__(self, path: list[str]) -> None:
        super().__init__()
        self.tape, self.path = Tape(), path
        self.number: dict[int, int] = {}  # id(tensor) -> number
        self.home: dict[int, int] = {}  # id(tensor) -> its storage when it was numbered
        self.kept: dict[int, list[Tensor]] = {}  # by storage; alive, so that ids stay unique
        self.known: set[int] = set()
        self.live: set[int] = set()

    def add(self, t: Tensor, live: bool = True) -> int:
        """A new number for a tensor."""
        number = len(self.tape.shapes)
        self.tape.shapes.append(tuple(t.shape))
        self.number[id(t)], self.home[id(t)] = number, _storage(t)
        self.keep(t)
        if live:
            self.live.add(number)
        return number

    def keep(self, t: Tensor) -> None:
        if id(t) not in self.known:
            self.known.add(id(t))
            self.kept.setdefault(_storage(t), []).append(t)

    def ref(self, a: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        if id(a) not in self.number:
            self.tape.constants[self.add(a, live=False)] = a.detach().clone()
        return Ref(self.number[id(a)])

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        for t in given:
            self.recognise(t)
        live = any(self.number.get(id(t)) in self.live for t in given)
        written = _written(func, args, kwargs)
        if live:
            for t in written:  # what the write is about to change must be known before
                for alias in self.kept.get(_storage(t), [t]):
                    self.ref(alias)
            args_, kwargs_ = tree_map(self.ref, (args, kwargs))
        out = func(*args, **kwargs)
        results = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if live:
            self.node(_functional(func), args_, kwargs_, tree_leaves(out))
            if func._schema.name.split("::")[1].rstrip("_") in _MASKED:
                numbers = ((self.number.get(id(t)), t) for t in given if t.dtype == torch.bool)
                self.tape.masks.update((n, t.clone()) for n, t in numbers if n in self.live)
            for t in written:
                self.spread(t)
        else:
            for t in (a for w in written for a in self.kept.get(_storage(w), ())):
                self.number.pop(id(t), None)  # a constant that changed is read anew
            for t in results:
                self.keep(t)
        return out

    def node(self, func: Any, args: Any, kwargs: Any, results: Iterable[Any]) -> None:
        ins = tuple(r.index for r in tree_leaves((args, kwargs)) if isinstance(r, Ref))
        outs = tuple(self.add(t) if isinstance(t, Tensor) else None for t in results)
        name = func._schema.name.split("::")[1] if hasattr(func, "_schema") else func.__name__
        path = self.path[-1] if self.path else ""
        index = len(self.tape.nodes)
        self.tape.nodes.append(Node(index, func, name, args, kwargs, ins, outs, path))

    def recognise(self, t: Tensor) -> None:
        """A tensor that came by ``.data``, or whose ``.data`` was set: the recorder has seen no operation."""
        if id(t) in self.number:
            if self.home[id(t)] == _storage(t):
                return
            del self.number[id(t)]  # it shows other numbers now
            self.known.discard(id(t))
        elif id(t) in self.known:
            return
        for other in self.kept.get(_storage(t), ()):
            if (
                other is not t
                and other.dtype == t.dtype
                and self.number.get(id(other)) in self.live
            ):
                place = torch.full((t.untyped_storage().nbytes() // t.element_size(),), -1)
                _places(other, place)[...] = torch.arange(other.numel()).view(other.shape)
                at = _places(t, place).clone()
                if bool((at >= 0).all()):
                    return self.node(reread, (self.ref(other), at), {}, [t])

    def spread(self, t: Tensor) -> None:
        """The other views of a storage, after ``t`` was written."""
        new = Ref(self.number[id(t)])
        place = torch.full((t.untyped_storage().nbytes() // t.element_size(),), -1)
        _places(t, place)[...] = torch.arange(t.numel()).view(t.shape)
        for alias in self.kept[_storage(t)]:
            # One whose .data was set since has left the storage.
            if alias is not t and id(alias) in self.number and _storage(alias) == _storage(t):
                at = _places(alias, place).clone()
                if bool((at >= 0).any()):
                    self.node(overwrite, (self.ref(alias), new, at), {}, [alias])


def _storage(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _places(t: Tensor, storage: Tensor) -> Tensor:
    return storage.as_strided(t.shape, t.stride(), t.storage_offset())


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    if not func._schema.is_mutable:
        return []
    names = [a.name for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    order = [a.name for a in func._schema.arguments]
    values = {**dict(zip(order, args, strict=False)), **kwargs}
    return [v for n in names if isinstance(v := values.get(n), Tensor)]


def _functional(func: Any) -> Any:
    """The operation without the write; its first result is what was written."""
    if not func._schema.is_mutable:
        return func
    name = func._schema.name.split("::")[1]
    packet = getattr(torch.ops.aten, name.rstrip("_"), None)
    return getattr(packet, func._overloadname, func) if packet is not None else func


@contextmanager
def _paths(model: nn.Module, path: list[str], seen: Callable[[str, Any], None]) -> Iterator[None]:
    def enter(name: str) -> Callable[..., None]:
        return lambda module, args: path.append(name)

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            path.pop()
            seen(name, output)

        return hook

    handles = []
    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


_STATISTICS = ("running_mean", "running_var")


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """What the group acts on: parameters, and the running statistics of normalisation layers."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    for name, buffer in model.named_buffers():
        if name.rsplit(".", 1)[-1] in _STATISTICS and buffer.is_floating_point():
            tensors[name] = buffer
    return tensors


@torch.no_grad()
def record(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tape:
    """Run ``model`` once and write down what it does.

    Args:
        model: in evaluation mode; in-place changes of its buffers stay.
        args, kwargs: its inputs; the tensors among them are the tape's inputs.
    """
    path: list[str] = []
    recorder: _Recorder = awake(_Recorder)(path)
    tape = recorder.tape
    for name, tensor in learnt(model).items():
        tape.parameters[recorder.add(tensor)] = name
    tape.inputs = [recorder.add(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]

    def numbers(output: Any) -> list[int]:
        tensors = [t for t in tree_leaves(output) if isinstance(t, Tensor)]
        found = [recorder.number.get(id(t)) for t in tensors]
        return [n for n in found if n is not None and n in recorder.live]

    def seen(name: str, output: Any) -> None:
        tape.features.extend((name, number) for number in numbers(_leaves(output)))

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused layers would hide their parts
    try:
        with _paths(model, path, seen), sdpa_kernel(SDPBackend.MATH), recorder:
            output = model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    tape.outputs = numbers(_leaves(output))
    return tape


def tensors_of(output: Any) -> list[Tensor]:
    """The tensors of an output, in containers and data classes."""
    return [t for t in _leaves(output) if isinstance(t, Tensor)]


def _leaves(output: Any) -> list[Any]:
    """Tensors in containers, also in the data classes that libraries return."""
    found: list[Any] = []
    for leaf in tree_leaves(output):
        if hasattr(leaf, "__dataclass_fields__"):
            found += _leaves([getattr(leaf, name) for name in leaf.__dataclass_fields__])
        else:
            found.append(leaf)
    return found
