"""``python -m eqreg`` is the command ``eqreg``."""

import sys

from .experiments.cli import main

sys.exit(main())
