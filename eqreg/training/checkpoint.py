"""Checkpoints of a training run: one file, written whole or not at all, and no pickle.

A checkpoint is a tree of dicts and lists whose leaves are tensors, arrays, numbers, strings, booleans
and None. Its tensors make a safetensors file; the rest is JSON in that file's header. Reading one can
therefore run no code, whoever wrote it. The header also holds a SHA-256 of all, so that a single flipped
bit is noticed; files of format 1, which has none, are read too.
"""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import files
from ..extras import require
from ..files import previous

# The kinds of files, and where format 1 kept what is not a tensor.
_CHECKPOINT, _WEIGHTS = "eqreg checkpoint", "eqreg weights"
_TEXT_OF_1 = {_CHECKPOINT: "tree", _WEIGHTS: "about"}
_NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read or used; the message says why and what is still there."""


def save_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write ``state`` to ``path``, so that at every moment a whole checkpoint lies on the disk.

    The new file is written beside the old one, forced to the disk, and only then put in its place; the
    old one stays as ``<name>.previous``. A kill or a full disk leaves the last good checkpoint.

    Args:
        path: file to write; its folder is made.
        state: tree of dicts (keys are strings or ints), lists and tuples (read back as lists) with
            tensors, arrays and plain values as leaves.

    Raises:
        CheckpointError: the disk is full, the folder cannot be written to, or ``state`` holds
            something else; the message names it. What was there before is untouched.

    Reference: the file format is that of https://github.com/huggingface/safetensors.
    Taught in: notebooks/19.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, "", tensors))
    write_whole(path, _encoded(_CHECKPOINT, tensors, tree), keep_previous=True)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read what :func:`save_checkpoint` wrote; if ``path`` is damaged, the checkpoint before it.

    Raises:
        FileNotFoundError: neither ``path`` nor the one before it exists.
        CheckpointError: neither can be read; the message says why for each.

    A damaged file whose predecessor is whole gives a ``UserWarning``.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save_checkpoint(f"{folder}/run.safetensors", {"step": 3, "w": torch.ones(2)})
    ...     load_checkpoint(f"{folder}/run.safetensors")
    {'step': 3, 'w': tensor([1., 1.])}
    """
    path = Path(path)
    candidates = [p for p in (path, previous(path)) if p.is_file()]
    if not candidates:
        raise FileNotFoundError(f"load_checkpoint: expected a checkpoint at {path}, found none")
    problems = []
    for candidate in candidates:
        try:
            state = _read(candidate)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        if problems:
            warnings.warn(f"{problems[0]}; going on from {candidate}", UserWarning, stacklevel=2)
        return state
    raise CheckpointError("; ".join(problems))


def write_whole(path: Path, content: bytes, *, keep_previous: bool = False) -> None:
    """As :func:`eqreg.files.write_whole`, for files of a run.

    Raises:
        CheckpointError: the system refused; the message gives its reason.
    """
    try:
        files.write_whole(path, content, keep_previous=keep_previous)
    except OSError as error:
        raise CheckpointError(str(error)) from error


def save_weights(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write the weights of a trained network, with what is known about them as JSON in the header.

    Equal weights with equal ``about`` give equal bytes.

    Raises:
        CheckpointError: the file cannot be written.
    """
    own = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in tensors.items()}
    write_whole(Path(path), _encoded(_WEIGHTS, own, json.dumps(about)))


def load_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_weights` wrote: tensors by name, and what is known about them.

    Raises:
        CheckpointError: the file is damaged, or of another kind or version.
    """
    tensors, text = _open(Path(path), _WEIGHTS)
    try:
        about = json.loads(text)
        if not isinstance(about, dict):
            raise TypeError(f"expected a dict, found {type(about).__name__}")
    except _NOT_OURS as error:
        raise CheckpointError(
            f"{path}: the header does not say what the weights are: {error}"
        ) from error
    return tensors, about


def random_states(generators: Mapping[str, torch.Generator | None]) -> dict[str, Any]:
    """States of the global generators (torch, CUDA, numpy, python) and of those given by name."""
    name, key, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, np.asarray(key), *rest],
        "python": random.getstate(),
        "given": {k: g.get_state() for k, g in generators.items() if g is not None},
    }


def set_random_states(
    states: Mapping[str, Any], generators: Mapping[str, torch.Generator | None]
) -> None:
    """Put back what :func:`random_states` saw.

    Raises:
        CheckpointError: other generators are given now than then.
    """
    present = {k: g for k, g in generators.items() if g is not None}
    if present.keys() != states["given"].keys():
        raise CheckpointError(
            f"the checkpoint holds the states of the generators {sorted(states['given'])}, "
            f"given now are {sorted(present)}"
        )
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, key, *rest = states["numpy"]
    np.random.set_state((name, key.astype(np.uint32), *rest))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    for k, generator in present.items():
        generator.set_state(states["given"][k])


def _read(path: Path) -> dict[str, Any]:
    tensors, text = _open(path, _CHECKPOINT)
    try:
        state = _unpack(json.loads(text), tensors)
        if not isinstance(state, dict):
            raise TypeError(f"expected a dict, found {type(state).__name__}")
    except _NOT_OURS as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return state


def _encoded(kind: str, tensors: dict[str, Tensor], text: str) -> bytes:
    """A safetensors file; its tensors are ordered by their names and its header has a single entry."""
    # safetensors keeps a header's entries in a hash map: two would come in another order each time.
    header = json.dumps({"format": f"{kind} 2", "text": text, "sha256": _digest(text, tensors)})
    return require("safetensors.torch", extra="tasks").save(tensors, metadata={"eqreg": header})


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the text and of names, types, shapes and values."""
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _open(path: Path, kind: str) -> tuple[dict[str, Tensor], str]:
    """Tensors and text of a file of ours.

    Raises:
        CheckpointError: it is another file, or not what was written.
    """
    safetensors = require("safetensors", extra="tasks")
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise CheckpointError(f"{path}: expected a file, found a folder or a device")
    try:
        with safetensors.safe_open(path, "pt") as file:
            outer = file.metadata() or {}
            header = json.loads(outer["eqreg"]) if "eqreg" in outer else outer
            found = header.get("format")
            if found not in (f"{kind} 1", f"{kind} 2"):
                raise CheckpointError(
                    f"{path}: this version of eqreg expects the format {kind + ' 2'!r}, the file says "
                    f"{found!r}"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}
        if header is outer:
            return tensors, header[_TEXT_OF_1[kind]]
        if (now := _digest(header["text"], tensors)) != header["sha256"]:
            raise CheckpointError(
                f"{path} is damaged: its content has the SHA-256 {now}, its header says "
                f"{header['sha256']}"
            )
        return tensors, header["text"]
    except (safetensors.SafetensorError, OSError, *_NOT_OURS) as error:
        raise CheckpointError(f"{path} is damaged or foreign: {error}") from error


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """JSON for a tree; every container is marked, so that nothing in it can pass for a tensor."""
    if isinstance(value, Tensor):
        # A copy of its own: safetensors refuses tensors that share memory, optimizers may share.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(
            value.astype(np.int64 if value.dtype.kind == "u" else value.dtype)
        )
        return {"array": name}
    if isinstance(value, Mapping):
        if wrong := [k for k in value if not isinstance(k, str | int)]:
            raise CheckpointError(
                f"{name or 'the state'}: keys must be str or int, got {wrong[0]!r}"
            )
        return {"dict": [[k, _pack(v, f"{name}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        if all(isinstance(v, int | float | str) for v in value):
            return {"plain": list(value)}
        return {"list": [_pack(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return {"plain": value}
    raise CheckpointError(f"{name}: cannot store a {type(value).__name__} in a checkpoint")


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "array":
        return tensors[value].numpy()
    if kind == "dict":
        return {k: _unpack(v, tensors) for k, v in value}
    if kind == "list":
        return [_unpack(v, tensors) for v in value]
    return value
