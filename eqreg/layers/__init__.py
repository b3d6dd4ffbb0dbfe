"""How a group acts on the layers of a network: plans, weights, and one pass over an image and its turned copy."""

from .plan import Fields, Plan, Selector
from .wrappers import unwrapped

__all__ = [
    "Fields",
    "Plan",
    "Selector",
    "unwrapped",
]
