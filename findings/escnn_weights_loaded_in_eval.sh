#!/usr/bin/env bash
# escnn 1.0.11, R2Conv: weights that are loaded after `.eval()`.
# Expected: `net.eval()` then `net.load_state_dict(...)` gives the loaded network, as with layers of torch; the order does not matter.
# Seen: "All keys matched", and the output is neither that of the loaded weights nor that of those before. In eval mode the layer
#   computes with a buffer `filter` that it expanded when eval() was called; loading replaces it by the one in the file, which
#   in a file saved while training was never filled. A second eval() does not help; train() and eval() do.
# Hurts: who builds a network, switches it to eval and then loads a checkpoint; and who fine-tunes in eval mode, where steps of the
#   optimizer change nothing.
# Date seen: 2026-11-28, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==1.26.4 scipy==1.17.1 joblib==1.6.0 autograd==1.9.1 lie_learn==0.0.2
"$folder/venv/bin/pip" install -q --no-deps escnn==1.0.11

"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from escnn import gspaces, nn

print("escnn", version("escnn"), "torch", torch.__version__)
space = gspaces.rot2dOnR2(4)
image = nn.FieldType(space, [space.trivial_repr])
field = nn.FieldType(space, [space.regular_repr])


def layer(seed):
    torch.manual_seed(seed)
    return nn.R2Conv(image, field, kernel_size=3, padding=1)


x = image(torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
trained, other = layer(0), layer(1).eval()
want, before = trained(x).tensor, other(x).tensor

matched = other.load_state_dict(trained.state_dict())  # saved while training, loaded in eval mode
got = other(x).tensor
print(matched)
print(f"largest difference to the loaded weights {(got - want).abs().max():.2f}, to those before {(got - before).abs().max():.2f}")
assert not torch.allclose(got, want, atol=1e-3) and not torch.allclose(got, before, atol=1e-3)
assert not torch.allclose(other.eval()(x).tensor, want, atol=1e-3)
assert torch.allclose(other.train().eval()(x).tensor, want, atol=1e-5)

with torch.no_grad():
    other.weights.mul_(2)  # as a step of an optimizer would
print("a change of the weights in eval mode changes the output:", not torch.allclose(other(x).tensor, want, atol=1e-5))
assert torch.allclose(other(x).tensor, want, atol=1e-5)
PY
