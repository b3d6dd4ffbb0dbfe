#!/usr/bin/env bash
# torchmetrics 1.9.0, structural_similarity_index_measure without data_range.
# Expected: with reduction="none" an image has one SSIM, whatever else is in the batch.
# Seen: the range is that of the whole batch, so a brighter image beside a poor one raises its SSIM from .66 to .86.
#   With data_range=1.0 both calls give .65.
# Hurts: who compares methods with other batch sizes, or images that were not cut to [0, 1].
# Date seen: 2026-11-28, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0

"$folder/venv/bin/python" - <<'PY'
import torch
import torchmetrics
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

print("torchmetrics", torchmetrics.__version__, "torch", torch.__version__)
g = torch.Generator().manual_seed(0)
clean = torch.rand(1, 1, 32, 32, generator=g)
noisy = clean + 0.3 * torch.randn(clean.shape, generator=g)
bright = 20 * torch.rand(1, 1, 32, 32, generator=g)


def both(**options):
    """SSIM of the noisy image alone, and beside a bright one that was restored well."""
    alone = ssim(noisy, clean, reduction="none", **options)[0]
    beside = ssim(torch.cat([noisy, bright]), torch.cat([clean, bright]), reduction="none", **options)[0]
    print(f"SSIM alone {alone:.4f}, beside a bright image {beside:.4f}  {options}")
    return float(alone), float(beside)


alone, beside = both()
assert beside - alone > 0.1
alone, beside = both(data_range=1.0)
assert abs(alone - beside) < 1e-5
PY
