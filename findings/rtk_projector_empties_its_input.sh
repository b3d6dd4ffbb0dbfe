#!/usr/bin/env bash
# itk-rtk 2.7.0.post1, JosephForwardProjectionImageFilter.
# Expected: an ITK filter leaves its inputs as they are, so that a second Update, after Modified, gives the same numbers.
# Seen: it works in place. The stack of projections that was given loses its buffer, and the second Update raises
#   an error about a region outside of it. After InPlaceOff both calls give the same line integrals.
# Hurts: who projects many images through one geometry, or times the projector, and who reads the first input afterwards.
# Date seen: 2026-11-28, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q itk-rtk==2.7.0.post1 numpy==2.4.6

"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import itk
import numpy as np
from itk import RTK

print("itk-rtk", version("itk-rtk"))
Kind = itk.Image[itk.F, 3]
geometry = RTK.ThreeDCircularProjectionGeometry.New()
for angle in range(0, 360, 30):
    geometry.AddProjection(500.0, 1000.0, float(angle))


def image(values):
    """An ITK image of unit voxels around the origin, except that projections are numbered from 0."""
    made = itk.image_from_array(values.astype(np.float32))
    x, y, z = (-(n - 1) / 2 for n in reversed(values.shape))
    made.SetOrigin((x, y, z if values.shape[0] == values.shape[2] else 0.0))
    return made


def projector(in_place):
    """The filter on a cube of ones, and its stack of empty projections."""
    stack, made = image(np.zeros((12, 3, 40))), RTK.JosephForwardProjectionImageFilter[Kind, Kind].New()
    made.SetGeometry(geometry)
    made.SetInput(0, stack)
    made.SetInput(1, image(np.ones((16, 3, 16))))
    if not in_place:
        made.InPlaceOff()
    return made, stack


def buffered(stack):
    return tuple(stack.GetBufferedRegion().GetSize())


made, stack = projector(in_place=True)
before = buffered(stack)
made.Update()
print("the given stack holds", before, "before, and", buffered(stack), "after")
assert before == (40, 3, 12) and buffered(stack) == (0, 0, 0)
made.Modified()
try:
    made.Update()
except RuntimeError as error:
    print("second Update:", str(error).strip().splitlines()[-1].strip()[:60] or type(error).__name__)
else:
    raise SystemExit("the second Update works now")
made, stack = projector(in_place=False)
made.Update()
first = itk.array_from_image(made.GetOutput()).copy()
made.Modified()
made.Update()
assert buffered(stack) == (40, 3, 12) and first.max() > 10
assert np.array_equal(first, itk.array_from_image(made.GetOutput()))
print("after InPlaceOff: the same numbers twice, the largest", float(first.max()))
PY
