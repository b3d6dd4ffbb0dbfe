#!/usr/bin/env bash
# monai 1.6.1, LoadImage, with the PIL reader. torch takes minutes.
# Expected: a PNG of 3 rows and 5 columns becomes an array of shape (3, 5), as in Pillow, scikit-image and imageio.
# Seen: it becomes (5, 3), the transpose, since the first axis is x as in medical volumes.
# Hurts: who mixes loaders: squares hide it, and for a network what was a quarter turn to the left is now one
#   to the right, so masks, boxes and directions from elsewhere no longer fit.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 monai==1.6.1 Pillow==13.0.0 numpy==2.4.6

"$folder/venv/bin/python" - "$folder/image.png" <<'PY'
import sys

import monai
import numpy as np
from monai.transforms import LoadImage
from PIL import Image

print("monai", monai.__version__)
pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
Image.fromarray(pixels).save(sys.argv[1])
pillow = np.asarray(Image.open(sys.argv[1]))
loaded = LoadImage(image_only=True)(sys.argv[1]).numpy()
print("Pillow", pillow.shape, "monai", loaded.shape, "transposed alike:", (loaded.T == pillow).all())
assert pillow.shape == (3, 5) and loaded.shape == (5, 3)
assert (loaded.T == pillow).all()
assert (np.rot90(loaded).T == np.rot90(pillow, -1)).all()  # a turn the other way
PY
