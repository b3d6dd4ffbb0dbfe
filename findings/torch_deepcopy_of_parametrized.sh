#!/usr/bin/env bash
# torch 2.13.0, torch.nn.utils.parametrize and copy.deepcopy. torch takes minutes.
# Expected: a deep copy shares nothing with its original: what is done to one does not reach the other.
# Seen: a parametrized module has a class of its own, and its deep copy has the same one. Parametrizing a second
#   tensor of the copy, or removing the parametrization of the copy, changes that class: the original, which nobody
#   touched, then fails with KeyError or AttributeError.
# Hurts: who keeps an average of the weights as a deep copy, or makes the copy plain for export, while training the
#   original with weight norm or any other parametrization.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PY'
import copy

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

print("torch", torch.__version__)
x = torch.rand(1, 2, 8, 8)


class Half(nn.Module):
    def forward(self, w):
        return w / 2


def pair():
    """A convolution with weight norm, and its deep copy."""
    original = parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    twin = copy.deepcopy(original)
    assert torch.equal(original(x), twin(x)) and type(original) is type(twin)
    return original, twin


def outcome(f):
    try:
        return f"works, shape {tuple(f().shape)}"
    except (AttributeError, KeyError) as error:
        return f"{type(error).__name__}: {error}"


original, twin = pair()
parametrize.register_parametrization(twin, "bias", Half())
print("the copy's bias is parametrized; the copy:", outcome(lambda: twin(x)))
first = outcome(lambda: original(x))
print("the original, untouched:", first)

original, twin = pair()
parametrize.remove_parametrizations(twin, "weight")
print("the copy's weight norm is removed; the copy:", outcome(lambda: twin(x)))
second = outcome(lambda: original(x))
print("the original, untouched:", second)
assert first.startswith("KeyError") and second.startswith("AttributeError")
PY
