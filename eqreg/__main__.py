"""``python -m eqreg`` is the command ``eqreg``."""

import sys

try:
    from .experiments.cli import main
except KeyboardInterrupt:  # these imports take seconds; those of torch before them are out of reach
    print("eqreg: interrupted; call again to go on", file=sys.stderr)
    sys.exit(130)

sys.exit(main())
