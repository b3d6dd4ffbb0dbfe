#!/usr/bin/env bash
# pydicom 3.0.2, pydicom.pixels.apply_rescale, on the CT slice that comes with pydicom.
# Expected: Pixel Padding Value marks what lies outside the scan, so apply_rescale leaves it out, or masks it.
# Seen: padding is rescaled like tissue. Stored -2000 becomes -3024 HU, far below air at -1000, and no longer
#   equals ds.PixelPaddingValue, so a mask taken after the rescaling finds nothing.
# Hurts: who normalises CT images by their minimum or mean, or masks the padding after apply_rescale.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6

"$folder/venv/bin/python" - <<'PY'
import pydicom
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_rescale

print("pydicom", pydicom.__version__)
scan = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
padding = scan.PixelPaddingValue
stored = scan.pixel_array.copy()
assert not (stored == padding).any()
stored[:4] = padding  # the slice declares a padding value and has none: four rows of it
units = apply_rescale(stored, scan)
print(f"HU = {scan.RescaleSlope} * stored + {scan.RescaleIntercept}; padding value {padding}")
print(f"padded rows before: {stored[:4].min()} … {stored[:4].max()}; after: {units[:4].min()} … {units[:4].max()} HU")
print(f"pixels equal to the padding value before: {(stored == padding).sum()}; after: {(units == padding).sum()}")
print(f"mean of the slice: {units[4:].mean():.0f} HU without, {units.mean():.0f} HU with the padded rows")
assert (padding, scan.RescaleSlope, scan.RescaleIntercept) == (-2000, 1, -1024)
assert not hasattr(units, "mask")
assert (units[:4] == -3024).all() and (stored == padding).sum() == 4 * stored.shape[1]
assert not (units == padding).any()
PY
