"""Small readable networks."""

from .classifier import Classifier
from .dicdnet import DICDNet
from .residual import ResidualNet
from .unet import UNet

__all__ = ["Classifier", "DICDNet", "ResidualNet", "UNet"]
