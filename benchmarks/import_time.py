"""What `import eqreg` costs beyond torch and numpy: at most 0.1 s is the aim.

Run it with `python benchmarks/import_time.py [runs]`.
"""

import subprocess
import sys
from statistics import median

PROBE = """
import sys, time
start = time.perf_counter()
import numpy, torch
middle = time.perf_counter()
before = set(sys.modules)
import eqreg
end = time.perf_counter()
print(middle - start, end - middle, len(set(sys.modules) - before))
"""


def measure(runs: int) -> tuple[float, float, int]:
    """Median seconds of torch + numpy, of eqreg after them, and the modules eqreg added."""
    rows = []
    for _ in range(runs + 1):  # the first also writes .pyc files and fills the disk cache
        line = subprocess.check_output([sys.executable, "-c", PROBE], text=True)
        rows.append([float(number) for number in line.split()])
    base, ours, modules = (median(column) for column in zip(*rows[1:], strict=True))
    return base, ours, int(modules)


if __name__ == "__main__":
    base, ours, modules = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
    print(f"torch + numpy {base:.3f} s, then eqreg {ours:.3f} s ({modules} modules)")
    print(f"ratio {ours / base:.4f}; of the aim of 0.1 s {ours / 0.1:.2f}")
