#!/usr/bin/env bash
# xraydb 4.5.8, material_mu.
# Expected: energies are in eV, so 60, meant as keV, is an error, and so is 2 MeV, which no table has.
# Seen: both return a number and warn. Below 100 eV it is the value at 100 eV, above 800 keV the one at 800 keV;
#   the warning speaks of unreliable tables, not of another energy. Water at 60 is 270 thousand times too opaque.
# Hurts: who simulates CT scans with spectra in keV, above all where warnings are silenced or lost in a log.
# Date seen: 2026-11-27, CPU.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q xraydb==4.5.8 numpy==2.4.6 scipy==1.17.1

"$folder/venv/bin/python" - <<'PY'
import warnings
from importlib.metadata import version

from xraydb import material_mu

print("xraydb", version("xraydb"))


def water(energy):
    """Attenuation of water in 1/cm at an energy in eV, and what the call warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = float(material_mu("water", energy))
    messages = {str(w.message) for w in caught}
    print(f"{energy:>9.0f} eV: {value:12.5f} / cm", *messages)
    return value, messages


right, silent = water(60_000)
assert abs(right - 0.2059) < 1e-3 and not silent
low, warned_low = water(60)
assert low == water(100)[0] and low > 1e5 * right and warned_low
high, warned_high = water(2_000_000)
assert high == water(800_000)[0] and warned_high
print(f"water at 60 instead of 60000: {low / right:.0f} times too much")
PY
