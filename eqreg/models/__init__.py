"""Small readable networks."""

from .classifier import Classifier
from .dicdnet import DICDNet
from .rcdnet import RCDNet
from .residual import ResidualNet
from .unet import UNet

__all__ = ["Classifier", "DICDNet", "RCDNet", "ResidualNet", "UNet"]
