"""What turns a clean image into the one we observe: ``rain``, ``inpainting``, ``ct``; ``tiling`` of large images."""

from .tiling import needed_overlap, needed_period, tiled

__all__ = ["needed_overlap", "needed_period", "tiled"]
