"""Checkpoints: round trip, what can go wrong with a disk, foreign and malicious files."""

import errno
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from eqreg.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_weights,
    previous,
    random_states,
    save_checkpoint,
    save_weights,
    set_random_states,
)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b and type(a) is type(b)


STATE = {
    "step": 7,
    "model": {"w": torch.randn(3, 2), "half": torch.ones(2, dtype=torch.bfloat16), "n": torch.tensor(3)},
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(4), "step": torch.tensor(1.0)}}, "groups": [{"lr": 0.1}]},
    "loss": [0.1, 1 / 3, 1e-300],
    "array": np.arange(4),
    "nothing": None,
    "flag": True,
    "text": 'tensor "x"',
    "nested": [[1, 2], {"tensor": "not a tensor"}, []],
    "empty": torch.zeros(0, 3),
}  # fmt: skip


def test_what_is_read_is_what_was_written(tmp_path):
    save_checkpoint(tmp_path / "deep" / "c", STATE)
    assert same(load_checkpoint(tmp_path / "deep" / "c"), STATE)


def test_tensors_that_share_memory_and_other_layouts(tmp_path):
    x = torch.randn(2, 3, 4, 4)
    state = {
        "a": x,
        "b": x[0],
        "c": x.transpose(1, 2),
        "d": x.to(memory_format=torch.channels_last),
    }
    save_checkpoint(tmp_path / "c", state)
    found = load_checkpoint(tmp_path / "c")
    assert all(torch.equal(found[k], v) for k, v in state.items())
    x.zero_()
    assert found["a"].abs().sum() > 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": {1.5: 2}}, r"/a: keys must be str or int, got 1\.5"),
        ({"a": [object()]}, "/a/0: cannot store a object"),
        ({"f": print}, "/f: cannot store a builtin_function_or_method"),
    ],
)
def test_what_cannot_be_stored_is_named_and_nothing_is_written(tmp_path, state, message):
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "c", state)
    assert list(tmp_path.iterdir()) == []


def test_the_one_before_is_kept(tmp_path):
    path = tmp_path / "c"
    for step in (1, 2, 3):
        save_checkpoint(path, {"step": step})
    assert load_checkpoint(path) == {"step": 3}
    assert load_checkpoint(previous(path)) == {"step": 2}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "c.previous"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, call):
    path = tmp_path / "c"
    save_checkpoint(path, {"step": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        CheckpointError, match=r"could not write .*c \(.* MB\): No space left .* last good one is"
    ):
        save_checkpoint(path, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_crash_between_the_two_renames_leaves_the_previous_one(tmp_path, monkeypatch):
    path = tmp_path / "c"
    save_checkpoint(path, {"step": 1})
    replace, calls = os.replace, []

    def second_fails(*args):
        calls.append(args)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        replace(*args)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(CheckpointError, match=r"last good one is .*c\.previous"):
        save_checkpoint(path, {"step": 2})
    monkeypatch.undo()
    assert load_checkpoint(path) == {"step": 1}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not write .*there is no earlier one"):
        save_checkpoint(tmp_path / "file" / "c", {"step": 1})


def test_a_folder_that_is_read_only(tmp_path, monkeypatch):
    def refuse(*_):  # root, who may run this test, is never refused by the system
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match="Permission denied"):
        save_checkpoint(tmp_path / "c", {"step": 1})


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped header", "text"])
def test_a_damaged_file_gives_the_one_before_with_a_warning(tmp_path, damage):
    path = tmp_path / "c"
    save_checkpoint(path, {"step": 1, "w": torch.ones(100)})
    save_checkpoint(path, {"step": 2, "w": torch.ones(100)})
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "flipped header": b"\xff" * 8 + content[8:],
            "text": b"hello" * 50,
        }[damage]
    )
    with pytest.warns(UserWarning, match=r"c is damaged or foreign: .*going on from .*c\.previous"):
        assert load_checkpoint(path)["step"] == 1
    previous(path).unlink()
    with pytest.raises(CheckpointError, match="damaged or foreign"):
        load_checkpoint(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected a checkpoint at .*c, found none"):
        load_checkpoint(tmp_path / "c")


def test_files_of_another_kind(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "foreign")
    with pytest.raises(
        CheckpointError, match="expects the format 'eqreg checkpoint 2', the file says None"
    ):
        load_checkpoint(tmp_path / "foreign")
    save_weights(tmp_path / "w", {"w": torch.ones(2)}, {"run": 1})
    with pytest.raises(
        CheckpointError, match="'eqreg checkpoint 2', the file says 'eqreg weights 2'"
    ):
        load_checkpoint(tmp_path / "w")
    assert load_weights(tmp_path / "w")[1] == {"run": 1}
    save_file({"w": torch.ones(2)}, tmp_path / "bare", {"format": "eqreg weights 1"})
    with pytest.raises(CheckpointError, match="bare is damaged or foreign: 'about'"):
        load_weights(tmp_path / "bare")
    for about in ("null", "[]", "3", "{"):
        save_file(
            {"w": torch.ones(2)}, tmp_path / "odd", {"format": "eqreg weights 1", "about": about}
        )
        with pytest.raises(
            CheckpointError, match="odd: the header does not say what the weights are"
        ):
            load_weights(tmp_path / "odd")
    for entry in ("null", "[]", "7", "{", "{}", '{"format": "eqreg weights 2"}'):
        save_file({"w": torch.ones(2)}, tmp_path / "odd", {"eqreg": entry})
        with pytest.raises(CheckpointError, match="odd(: this version| is damaged or foreign)"):
            load_weights(tmp_path / "odd")
    for tree in (
        "[",
        "null",
        '{"plain": 1}',
        "[" * 9999,
        json.dumps({"tensor": "gone"}),
        json.dumps(["odd"]),
    ):
        header = {"format": "eqreg checkpoint 1", "tree": tree}
        save_file({"w": torch.ones(2)}, tmp_path / "odd", header)
        with pytest.raises(CheckpointError, match="is damaged"):
            load_checkpoint(tmp_path / "odd")


def test_a_single_flipped_bit_is_noticed(tmp_path):
    state = {
        "w": torch.arange(6.0),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "words": ["a", 1, None],
    }
    state |= {
        "none": torch.zeros(0),
        "one": torch.tensor(True),
        "z": torch.ones(2, dtype=torch.cfloat),
    }
    save_checkpoint(tmp_path / "c", state)
    save_weights(tmp_path / "w", {"w": torch.arange(6.0)}, {"run": {"seed": 1}})
    for name, load in (("c", load_checkpoint), ("w", load_weights)):
        good = (tmp_path / name).read_bytes()
        load(tmp_path / name)
        for byte in range(len(good)):
            bad = bytearray(good)
            bad[byte] ^= 1 << byte % 8
            (tmp_path / "bad").write_bytes(bad)
            with pytest.raises(CheckpointError, match="bad"):
                load(tmp_path / "bad")


def test_equal_weights_give_equal_bytes(tmp_path):
    """safetensors orders the entries of a header at random, within one process too."""
    weights, found = {"b": torch.ones(2), "a": torch.zeros(3)}, set()
    for i in range(20):
        save_weights(tmp_path / str(i), dict(sorted(weights.items(), reverse=i % 2)), {"run": {}})
        found.add((tmp_path / str(i)).read_bytes())
    assert len(found) == 1


def test_files_of_format_1_are_read(tmp_path):
    """Those that lie in ``artifacts/``, and checkpoints of a campaign that was begun before."""
    tree = json.dumps({"dict": [["step", {"plain": 3}], ["w", {"tensor": "/w"}]]})
    save_file({"/w": torch.ones(2)}, tmp_path / "c", {"format": "eqreg checkpoint 1", "tree": tree})
    state = load_checkpoint(tmp_path / "c")
    assert state["step"] == 3 and torch.equal(state["w"], torch.ones(2))
    header = {"format": "eqreg weights 1", "about": '{"run": {}}'}
    save_file({"w": torch.ones(2)}, tmp_path / "w", header)
    tensors, about = load_weights(tmp_path / "w")
    assert torch.equal(tensors["w"], torch.ones(2)) and about == {"run": {}}


def test_parts_that_dead_processes_left_go(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, at_work, other = (tmp_path / f"c.part-{x}" for x in (dead.pid, os.getppid(), "mine"))
    for path in (left, at_work, other):
        path.write_bytes(b"half")
    save_checkpoint(tmp_path / "c", {"step": 1})
    assert not left.exists() and at_work.exists() and other.exists()


class Trap:
    """Unpickling it would make a folder."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("form", ["pickle", "torch.save"])
def test_a_malicious_file_runs_no_code(tmp_path, form):
    mark, path = str(tmp_path / "owned"), tmp_path / "c"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Trap(mark)))
    else:
        torch.save({"model": Trap(mark)}, path)
    for load in (load_checkpoint, load_weights):
        with pytest.raises(CheckpointError, match="damaged or foreign"):
            load(path)
    assert not os.path.exists(mark)
    if form == "pickle":  # the trap is real
        pickle.loads(path.read_bytes())
        assert os.path.exists(mark)


def draws(generator):
    return (
        torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(),
        torch.rand(2, generator=generator).tolist(),
    )  # fmt: skip


def test_all_generators_go_on_where_they_were(tmp_path):
    generator = torch.Generator().manual_seed(3)
    draws(generator)
    random.gauss(0, 1), np.random.randn()  # both keep a second number for later
    save_checkpoint(tmp_path / "c", random_states({"given": generator, "none": None}))
    first = draws(generator), random.gauss(0, 1), np.random.randn()
    other = torch.Generator()
    set_random_states(load_checkpoint(tmp_path / "c"), {"given": other})
    assert (draws(other), random.gauss(0, 1), np.random.randn()) == first


def test_other_generators_than_then():
    states = random_states({"a": torch.Generator()})
    with pytest.raises(CheckpointError, match=r"generators \['a'\], given now are \['b'\]"):
        set_random_states(states, {"b": torch.Generator()})
