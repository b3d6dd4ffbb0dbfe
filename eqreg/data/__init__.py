"""Bundled photographs and loaders of published sets. Nothing here downloads."""

from .images import PHOTOGRAPHS, patches, photographs
from .rain import Rain100

__all__ = ["PHOTOGRAPHS", "Rain100", "patches", "photographs"]
