#!/usr/bin/env bash
# torchmetrics 1.9.0, structural_similarity_index_measure; scikit-image 0.26.0 beside it. torch takes minutes.
# Expected: one window, one variance, one data range: one SSIM, whoever computes it.
# Seen: the maps agree to rounding where the window fits into the image. torchmetrics then averages the border
#   too, with reflected pixels, scikit-image the inner part only. Noise in the top rows: 0.937 there, 0.976 here.
# Hurts: who compares a table from one library with a table from the other, above all on small images.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 scikit-image==0.26.0 numpy==2.4.6 scipy==1.17.1

"$folder/venv/bin/python" - <<'PY'
import numpy as np
import skimage
import torch
import torchmetrics
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

print("torchmetrics", torchmetrics.__version__, "scikit-image", skimage.__version__, "torch", torch.__version__)
torch.manual_seed(0)
clean = torch.rand(1, 1, 32, 32, dtype=torch.float64)
noisy = clean.clone()
noisy[..., :6, :] += 0.3 * torch.randn(6, 32, dtype=torch.float64)

theirs, their_map = structural_similarity_index_measure(  # Gaussian window, sigma 1.5, 11 pixels
    noisy, clean, data_range=1.0, sigma=1.5, return_full_image=True)
other, other_map = structural_similarity(
    noisy[0, 0].numpy(), clean[0, 0].numpy(), data_range=1.0, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, full=True)
their_map = their_map[0, 0].numpy()
inner = np.s_[5:-5, 5:-5]
print(f"torchmetrics {float(theirs):.4f}: the mean of its whole map, {their_map.mean():.4f}")
print(f"scikit-image {other:.4f}: the mean of the inner map; that of torchmetrics' is {their_map[inner].mean():.4f}")
print(f"largest difference of the inner maps: {abs(their_map - other_map)[inner].max():.1e}")
assert abs(their_map - other_map)[inner].max() < 1e-10
assert abs(float(theirs) - their_map.mean()) < 1e-10 and abs(other - their_map[inner].mean()) < 1e-10
assert other - float(theirs) > 0.02
PY
