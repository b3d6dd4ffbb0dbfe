"""Bundled images, phantoms, and loaders of published sets. Nothing here downloads."""

from .crops import RandomCrops
from .digits import Labelled, digits, mnist, turn
from .images import PHOTOGRAPHS, patches, photographs
from .rain import Rain100
from .textures import TEXTURES, textures
from .urban import Urban100

__all__ = [
    "PHOTOGRAPHS",
    "TEXTURES",
    "Labelled",
    "Rain100",
    "RandomCrops",
    "Urban100",
    "digits",
    "mnist",
    "patches",
    "photographs",
    "textures",
    "turn",
]
