"""Computed tomography with metal: scanner, physics, repair and evaluation, pip-only.

>>> import torch
>>> from eqreg.data.phantoms import phantom
>>> from eqreg.physics.ct import Scanner, hu_to_mu, implants, small_fan
>>> scanner = Scanner(small_fan(64, views=80))
>>> mu = hu_to_mu(phantom("pelvis", 64, generator=torch.Generator().manual_seed(0)))
>>> scans = scanner(mu, implants(2, 64, generator=torch.Generator().manual_seed(0)))
>>> scans.ma.shape, scans.li_sinogram.shape
(torch.Size([2, 64, 64]), torch.Size([2, 80, 99]))

``Scanner.preset("syndeeplesion")`` reproduces the published SynDeepLesion data.

Taught in: notebooks/14
"""

from .evaluate import by_size, mar_psnr, mar_ssim, rmse_hu, size_group
from .fbp import FBP
from .geometry import FanBeam, ParallelBeam, small_fan, syndeeplesion, turn_sinogram
from .metal import implant, implants
from .polychromatic import correct, decompose, measure, polychromatic, water_correction
from .projector import Projector
from .protocol import Protocol
from .repair import interpolate_trace, nmar, nmar_image, prior_image
from .simulate import Scanner, Simulation
from .spectra import Beam, monochromatic, open_beam, tabulated_beam
from .units import MU_WATER, hu_to_mu, mu_to_hu

__all__ = [
    "FBP",
    "MU_WATER",
    "Beam",
    "FanBeam",
    "ParallelBeam",
    "Projector",
    "Protocol",
    "Scanner",
    "Simulation",
    "by_size",
    "correct",
    "decompose",
    "hu_to_mu",
    "implant",
    "implants",
    "interpolate_trace",
    "mar_psnr",
    "mar_ssim",
    "measure",
    "monochromatic",
    "mu_to_hu",
    "nmar",
    "nmar_image",
    "open_beam",
    "polychromatic",
    "prior_image",
    "rmse_hu",
    "size_group",
    "small_fan",
    "syndeeplesion",
    "tabulated_beam",
    "turn_sinogram",
    "water_correction",
]
