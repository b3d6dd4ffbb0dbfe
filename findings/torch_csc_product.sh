#!/usr/bin/env bash
# torch 2.13.0 on a processor, the product of a sparse matrix and a dense one. torch takes minutes.
# Expected: `A.t()` of a CSR matrix is the same numbers under the name CSC, so `A.t() @ y` costs about what `A @ x` costs.
# Seen: the same numbers come out, thirty times as slowly and more. `A.t().to_sparse_csr()`, once, gives the speed back.
# Hurts: who writes the adjoint of a projector, a graph layer or any operator as `A.t() @ y`, in each step of an iteration.
# Date seen: 2026-11-28, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PY'
import time
import warnings

import torch

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
print("torch", torch.__version__)
g, n, k = torch.Generator().manual_seed(0), 20_000, 50
columns = torch.randint(n, (n * k,), generator=g)
a = torch.sparse_csr_tensor(torch.arange(n + 1) * k, columns, torch.rand(n * k, generator=g), size=(n, n))
x = torch.rand(n, 8, generator=g)


def seconds(f):
    """Of the processor, the least of five."""
    found = []
    for _ in range(5):
        start = time.process_time()
        f()
        found.append(time.process_time() - start)
    return min(found)


csc = a.t()
csr = csc.to_sparse_csr()
times = {"A @ x": seconds(lambda: a @ x), "A.t() @ x": seconds(lambda: csc @ x), "as CSR": seconds(lambda: csr @ x)}
print(csc.layout, {name: f"{1000 * s:.1f} ms" for name, s in times.items()})
assert csc.layout == torch.sparse_csc and torch.allclose(csc @ x, csr @ x)
assert times["A.t() @ x"] > 8 * times["as CSR"], "the product is no longer slow"
PY
