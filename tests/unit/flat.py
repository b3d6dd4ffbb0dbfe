"""The settings of ``fit`` by their names alone, for tests that vary one of them."""

from dataclasses import fields

from eqreg.training import Keeping, Optimisation, Symmetry

_PARTS = {"symmetry": Symmetry, "optimisation": Optimisation, "keeping": Keeping}


def flat(**settings):
    """``flat(lam=0.1, clip=2.0, loss=f)`` is ``symmetry=Symmetry(lam=0.1), optimisation=..., loss=f``."""
    for name, kind in _PARTS.items():
        known = {f.name for f in fields(kind)}
        settings[name] = kind(**{k: settings.pop(k) for k in list(settings) if k in known})
    return settings
