"""``python -m eqreg`` is the command ``eqreg``."""

import sys

from .cli import main

sys.exit(main())
