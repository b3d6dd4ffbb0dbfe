"""Field types by tracing: what a group does to every parameter and feature of any network.

``tape`` records a dry run, ``values`` numbers what each entry holds, ``rules``, ``moves`` and ``contract``
carry the numbers through operations, ``demand`` carries wishes back, ``solve`` joins both, ``orbits`` are
the ties. The way in is :func:`tie`.
"""

from .state import Break
from .ties import Ties, tie

__all__ = ["Break", "Ties", "tie"]
