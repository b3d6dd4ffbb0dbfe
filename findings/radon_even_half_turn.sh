#!/usr/bin/env bash
# scikit-image 0.26.0, skimage.transform.radon.
# Expected: rays at 180° are those at 0° from behind, so one column of the sinogram is the other, flipped.
# Seen: so it is for odd N. For even N the flipped column has to be moved by one pixel: the centre of
#   rotation is pixel N // 2, not the middle of the image.
# Hurts: who tests a projector or a network for symmetry, or pairs opposite rays, on images of even size.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q scikit-image==0.26.0 numpy==2.4.6 scipy==1.17.1

"$folder/venv/bin/python" - <<'PY'
import numpy as np
import skimage
from skimage.transform import radon

print("scikit-image", skimage.__version__)


def shift_that_fits(n):
    """Pixels by which the flipped column of 0° is moved to become that of 180°, and what then differs."""
    rows, columns = np.mgrid[:n, :n] - n // 2
    image = np.random.default_rng(0).random((n, n)) * (np.hypot(rows, columns) < n // 2 - 3)
    front, back = radon(image, theta=[0.0, 180.0], circle=True).T
    errors = {k: abs(np.roll(front[::-1], k) - back).max() / back.max() for k in (-1, 0, 1)}
    print(f"N = {n}: relative error after a move by k pixels", {k: f"{e:.1e}" for k, e in errors.items()})
    return min(errors, key=errors.get), errors


for n, expected in ((63, 0), (64, 1), (65, 0)):
    shift, errors = shift_that_fits(n)
    assert shift == expected, f"N = {n}: the move was {expected}, is {shift}"
    assert errors[shift] < 1e-6 and min(e for k, e in errors.items() if k != shift) > 0.1
PY
