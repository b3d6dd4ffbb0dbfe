"""Bundled images, phantoms, and loaders of published sets. Nothing here downloads."""

from .bsds import BSDS500
from .crops import RandomCrops, seeded
from .digits import Labelled, digits, mnist, turn
from .images import PHOTOGRAPHS, patches, photographs
from .rain import PairFolder, Rain100, RainPair
from .textures import TEXTURES, textures
from .urban import Urban100

__all__ = [
    "BSDS500",
    "PHOTOGRAPHS",
    "TEXTURES",
    "Labelled",
    "PairFolder",
    "Rain100",
    "RainPair",
    "RandomCrops",
    "Urban100",
    "digits",
    "mnist",
    "patches",
    "photographs",
    "seeded",
    "textures",
    "turn",
]
