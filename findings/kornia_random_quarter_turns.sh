#!/usr/bin/env bash
# kornia 0.9.0, augmentation.RandomRotation90. torch takes minutes.
# Expected: times=(0, 3) draws the four quarter turns alike, and a turn moves pixels, as torch.rot90 does.
# Seen: a real number is drawn from [0, 3] and rounded, so that no turn and three turns come half as often as one and two:
#   1/6, 1/3, 1/3, 1/6. A turn is an affine warp: values differ from torch.rot90 by up to 1e-4 at 512 pixels (a flip is exact), and
#   a picture of 4 rows and 6 columns keeps its size, loses its ends and gets black columns.
# Hurts: who trains for symmetry: what is asked for is a mean over the group, and two of four elements weigh half. The mean of
#   a drawn turn and its counterpart is no projection, and an equivariance error stops at 1e-4.
# Date seen: 2026-11-28, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 kornia==0.9.0 kornia_rs==0.2.0

"$folder/venv/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from kornia.augmentation import RandomHorizontalFlip, RandomRotation90

print("kornia", version("kornia"), "torch", torch.__version__)


def turned(x, k):
    return torch.rot90(x, k, (-2, -1))


torch.manual_seed(0)
count = 6000
corner = torch.tensor([[1.0, 0.0], [0.0, 0.0]]).expand(count, 1, 2, 2)
drawn = RandomRotation90(times=(0, 3), p=1.0)(corner)
shares = [
    float((drawn - turned(corner, k)).abs().amax((1, 2, 3)).lt(0.1).float().mean()) for k in range(4)
]
print("shares of 0, 1, 2 and 3 turns:", *(f"{share:.3f}" for share in shares))
assert all(abs(share - want) < 0.03 for share, want in zip(shares, (1 / 6, 1 / 3, 1 / 3, 1 / 6)))

x = torch.rand(1, 1, 512, 512)
turn = (RandomRotation90(times=(1, 1), p=1.0)(x) - turned(x, 1)).abs().max()
flip = (RandomHorizontalFlip(p=1.0)(x) - x.flip(-1)).abs().max()
print(f"512 x 512, largest difference: one turn {turn:.0e}, a flip {flip:.0e}")
assert 1e-5 < turn < 1e-3 and flip == 0

wide = RandomRotation90(times=(1, 1), p=1.0)(torch.ones(1, 1, 4, 6))
print("ones of 4 rows and 6 columns, turned once:", tuple(wide.shape), "with means of columns",
      *(f"{mean:.2f}" for mean in wide.mean((0, 1, 2)).tolist()))
assert wide.shape == (1, 1, 4, 6)
assert wide[..., [0, 5]].abs().max() < 1e-3 and wide[..., 1:5].min() > 0.999
PY
