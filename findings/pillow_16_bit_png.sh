#!/usr/bin/env bash
# Pillow 13.0.0, Image.open on PNG files of 16 bits.
# Expected: grey becomes 8 bits by dropping the lower byte, and colour keeps its 16 bits, or both do alike.
# Seen: grey opens as I;16, and convert("L") clips: all above 255 is white. Colour opens as RGB of 8 bits,
#   the upper bytes, without a word. So one scene as grey is white and as colour is right but coarse.
# Hurts: who loads microscopy, depth or raw images with Image.open(...).convert(...), as most data loaders do.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q Pillow==13.0.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PY'
import io
import struct
import zlib

import numpy as np
import PIL
from PIL import Image

print("Pillow", PIL.__version__)


def png(values, colour):
    """A PNG of one row with 16 bits per sample; colour type 0 is grey, 2 is RGB."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    samples = np.repeat(values, 3 if colour == 2 else 1).astype(">u2").tobytes()
    header = struct.pack(">IIBBBBB", len(values), 1, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + samples)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + parts))


values = [0, 100, 256, 30000, 65535]
grey, colour = png(values, 0), png(values, 2)
as_grey = np.asarray(grey.convert("L"))[0].tolist()
as_colour = np.asarray(colour)[0, :, 0].tolist()
print("stored            ", values)
print(f"grey,   mode {grey.mode}, convert('L'):", as_grey)
print(f"colour, mode {colour.mode}, red channel:", as_colour)
assert grey.mode == "I;16" and as_grey == [0, 100, 255, 255, 255]
assert colour.mode == "RGB" and as_colour == [v >> 8 for v in values]
PY
