#!/usr/bin/env bash
# escnn 1.0.11, GatedNonLinearity1 in float64.
# Expected: `module.double()` on a float64 field gives a float64 field, as NormNonLinearity and R2Conv do.
# Seen: the field that comes out is float32. Errors of equivariance stop at 1e-8 there, where the rest stops at 1e-16,
#   and a float64 layer behind it refuses the input, or is fed rounded numbers after a cast.
# Hurts: who checks equivariance in float64, to tell rounding from a fault, and finds a fault.
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
vectors = nn.FieldType(space, 2 * [space.irrep(1)])
gated = nn.FieldType(space, 2 * [space.trivial_repr] + 2 * [space.irrep(1)])
layers = {
    "NormNonLinearity": nn.NormNonLinearity(vectors),
    "R2Conv": nn.R2Conv(vectors, vectors, kernel_size=3),
    "GatedNonLinearity1": nn.GatedNonLinearity1(gated, gates=2 * ["gate"] + 2 * ["gated"]),
}
seen = {}
for name, layer in layers.items():
    layer = layer.double()
    x = torch.randn(1, layer.in_type.size, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen[name] = layer(nn.GeometricTensor(x, layer.in_type)).tensor.dtype
    print(f"{name:20} float64 -> {seen[name]}")
assert seen.pop("GatedNonLinearity1") == torch.float32
assert set(seen.values()) == {torch.float64}
PY
