#!/usr/bin/env bash
# torchmetrics 1.9.0: scores of a picture and its reference, and of both turned by 90 degrees. torch takes minutes.
# Expected: a score compares two pictures, so turning or mirroring both leaves it as it is, as with PSNR and SSIM.
# Seen: with sides of 256 pixels, where every halving goes even, SCC falls from .083 to .080, 4 %, RASE grows from 788 to 795, and
#   RMSE-SW from .0561 to .0565; mirroring moves them alike. Their windows are 8 pixels wide, so they stand beside the pixel
#   they speak of, and more of them reach over one border than over the other. PSNR, SSIM and UQI do not move.
# Hurts: who checks that a symmetric network scores the same on turned test images, or compares tables of scores whose images
#   were loaded in other orientations (rows and columns swapped).
# Date seen: 2026-11-28, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 torchmetrics==1.9.0

"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from torch.nn.functional import interpolate
from torchmetrics.functional import image as tm

print("torchmetrics", version("torchmetrics"), "torch", torch.__version__)
source = torch.Generator().manual_seed(0)
clean = torch.rand(1, 3, 16, 16, generator=source, dtype=torch.float64)
clean = interpolate(clean, size=(256, 256), mode="bicubic").clamp(0, 1)
noise = torch.rand(clean.shape, generator=source, dtype=torch.float64)
noisy = (clean + 0.2 * noise * torch.linspace(0, 1, 256, dtype=torch.float64)).clamp(0, 1)

scores = {
    "PSNR": (lambda a, b: tm.peak_signal_noise_ratio(a, b, data_range=1.0), False),
    "SSIM": (lambda a, b: tm.structural_similarity_index_measure(a, b, data_range=1.0), False),
    "UQI": (tm.universal_image_quality_index, False),
    "SCC": (tm.spatial_correlation_coefficient, True),
    "RASE": (tm.relative_average_spectral_error, True),
    "RMSE-SW": (tm.root_mean_squared_error_using_sliding_window, True),
}
moves = {
    "as it is": lambda x: x,
    "turned": lambda x: torch.rot90(x, 1, (-2, -1)).contiguous(),
    "mirrored": lambda x: x.flip(-1).contiguous(),
}
print(f"{'':8}", *(f"{name:>9}" for name in moves))
for name, (score, moving) in scores.items():
    values = [float(torch.as_tensor(score(move(noisy), move(clean)))) for move in moves.values()]
    print(f"{name:8}", *(f"{value:9.4f}" for value in values))
    spread = (max(values) - min(values)) / abs(values[0])
    assert (spread > 1e-3) if moving else (spread < 1e-9), (name, spread)
PY
