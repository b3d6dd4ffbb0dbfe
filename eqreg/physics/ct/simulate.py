"""A scan of a patient with metal, from the clean image to the image full of artifacts.

HU -> attenuation -> water, bone and metal -> line integrals -> a spectrum's transmission -> photons ->
beam-hardening correction -> filtered back-projection, and beside it the linear interpolation (LI) that
networks get as a second input.

Reference: Zhang and Yu, "Convolutional Neural Network Based Metal Artifact Reduction in X-Ray Computed
Tomography", IEEE TMI 37(6), 2018, for the protocol. The code is ours.
Taught in: notebooks/14
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...typed import typed
from .fbp import FBP
from .geometry import Geometry, in_view, syndeeplesion
from .polychromatic import correct, decompose, measure, polychromatic, water_correction
from .projector import Projector
from .protocol import Protocol
from .repair import interpolate_trace
from .spectra import Beam, open_beam
from .units import check_attenuation, check_images


class Simulation(NamedTuple):
    """Scans of one slice with M implants. Images in 1/cm, sinograms are line integrals.

    ``ma`` (M, H, W): FBP of ``ma_sinogram`` (M, views, bins). ``li``, ``li_sinogram``: after linear
    interpolation over ``trace`` (M, views, bins), bool.
    """

    ma: Tensor
    li: Tensor
    ma_sinogram: Tensor
    li_sinogram: Tensor
    trace: Tensor


@dataclass
class Scanner:
    """A CT scanner that can be asked for scans with and without metal.

    Args:
        geometry: fan or parallel beam.
        beam: the spectrum; our open one by default.
        protocol: everything else.
        device: where projector and images live.
        cache: as for :class:`.Projector`.

    ``projector`` and ``fbp`` are built at once and may be used by themselves.

    Raises:
        ValueError: the beam lacks water, bone or the metal.
    """

    geometry: Geometry
    beam: Beam = field(default_factory=open_beam)
    protocol: Protocol = Protocol()
    device: torch.device | str = "cpu"
    cache: bool | str | Path = True

    def __post_init__(self) -> None:
        self.projector = Projector(self.geometry, device=self.device, cache=self.cache)
        self.fbp = FBP(self.geometry, self.protocol.fbp, device=self.device)
        self._prepare()

    def _prepare(self) -> None:
        for material in ("water", "bone", self.protocol.metal):
            self.beam.relative(material)  # says which ones there are
        self._correction = water_correction(self.beam) if self.protocol.hardening else None

    @classmethod
    def preset(
        cls,
        name: str = "syndeeplesion",
        *,
        beam: Beam | None = None,
        device: torch.device | str = "cpu",
        cache: bool | str | Path = True,
    ) -> Scanner:
        """A scanner by name.

        Args:
            name: "syndeeplesion", the one of the published data, with their reconstruction.
            beam: default :func:`.open_beam`. With :func:`.tabulated_beam` the published images are met
                down to the noise of the photons.
            device, cache: as for the class.

        Raises:
            ValueError: an unknown name.
        """
        if name != "syndeeplesion":
            raise ValueError(f'Scanner: the presets are "syndeeplesion", got {name!r}')
        return cls(syndeeplesion(), beam or open_beam(), Protocol(fbp="published"), device, cache)

    def variant(self, *, beam: Beam | None = None, **protocol: Any) -> Scanner:
        """The same machine with another beam or other settings; its matrices are shared, not built again.

        Args:
            beam: another spectrum.
            protocol: fields of :class:`Protocol` to change, for example ``metal="iron"``.
        """
        other = copy(self)
        other.beam = beam or self.beam
        other.protocol = replace(self.protocol, **protocol)
        if other.protocol.fbp != self.protocol.fbp:
            other.fbp = FBP(self.geometry, other.protocol.fbp, device=self.device)
        other._prepare()
        return other

    @typed
    def __call__(
        self, mu: Tensor, masks: Tensor, *, generator: torch.Generator | None = None
    ) -> Simulation:
        """Scan a slice with each of several implants in it.

        Args:
            mu: (H, W) attenuation in 1/cm of the slice without metal.
            masks: (M, H, W) bool, metal in each scan.
            generator: source of the photon noise; every scan gets its own.

        Raises:
            TypeError, ValueError: an image that is not finite, negative or of another size; a mask without
                metal, of metal only, or outside the field of view. The message says which.
        """
        self._check(mu, masks)
        parts = [{self.protocol.metal: mask} for mask in masks]
        return self._with_metals(*self._tissue(mu), parts, generator)

    def scan_metals(
        self,
        mu: Tensor,
        implants: Sequence[Mapping[str, Tensor]],
        *,
        generator: torch.Generator | None = None,
    ) -> Simulation:
        """Scan a slice with metals of several kinds in it at once.

        Args:
            mu: (H, W) attenuation in 1/cm of the slice without metal.
            implants: for each scan, material -> (H, W) bool; no pixel holds two materials.
            generator: source of the photon noise; every scan gets its own.

        Raises:
            TypeError, ValueError: as for a call, and for a material that the beam lacks or a pixel that holds two.
        """
        self._check_metals(mu, implants)
        return self._with_metals(*self._tissue(mu), implants, generator)

    def scan_all(
        self,
        mu: Tensor,
        implants: Sequence[Mapping[str, Tensor]],
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Simulation]:
        """Scan a slice without metal and with several, its tissue projected once.

        Returns:
            What :meth:`scan` and then :meth:`scan_metals` with the same generator give, bit by bit.

        Raises:
            TypeError, ValueError: as for :meth:`scan_metals`.
        """
        self._check_metals(mu, implants)
        paths, tissue = self._tissue(mu)
        p = self._detect(tissue, generator)
        return self.fbp(p), p, self._with_metals(paths, tissue, implants, generator)

    def _with_metals(
        self,
        paths: dict[str, Tensor],
        tissue: Tensor,
        implants: Sequence[Mapping[str, Tensor]],
        generator: torch.Generator | None,
    ) -> Simulation:
        masks = torch.stack([mask for parts in implants for mask in parts.values()])
        lengths = iter(self.projector.project(masks.to(tissue.dtype)))
        ma, li = (tissue.new_empty((len(implants), *tissue.shape)) for _ in range(2))
        trace = torch.empty(ma.shape, dtype=torch.bool, device=ma.device)
        # One scan after the other: their sinograms stay in the processor's cache.
        for i, parts in enumerate(implants):
            metals = {m: next(lengths) for m in parts}
            ma[i], li[i], trace[i] = self._with_metal(tissue, paths, metals, generator)
        del lengths, metals
        return Simulation(self.fbp(ma), self.fbp(li), ma, li, trace)

    def _with_metal(
        self,
        tissue: Tensor,
        paths: dict[str, Tensor],
        metals: dict[str, Tensor],
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Sinograms with metal and after LI, and the trace; ``metals`` are the paths in cm."""
        trace = torch.stack(list(metals.values())).amax(0) > 0
        # Only cells in the trace differ from the scan without metal.
        shaded = {m: p[trace] for m, p in paths.items()}
        for name, length in metals.items():
            shaded[name] = (self._partial_volume(length, trace) * self.beam.mu(name))[trace]
        p = tissue.masked_scatter(trace, polychromatic(shaded, self.beam))
        p = self._detect(p, generator)
        return p, interpolate_trace(p, trace), trace

    def scan(
        self, mu: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scan without metal: the image in 1/cm and the sinogram.

        Args:
            mu: (..., H, W) attenuation in 1/cm.
            generator: source of the photon noise.
        """
        check_images(mu, self.geometry, "Scanner")
        check_attenuation(mu, "Scanner")
        p = self._detect(self._tissue(mu)[1], generator)
        return self.fbp(p), p

    def _tissue(self, mu: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Line integrals of water and bone, and what the beam makes of them."""
        parts = decompose(mu, water_hu=self.protocol.water_hu, bone_hu=self.protocol.bone_hu)
        both = self.projector.project(torch.stack(list(parts.values())))
        paths = dict(zip(parts, both, strict=True))
        return paths, polychromatic(paths, self.beam)

    def _partial_volume(self, metal: Tensor, trace: Tensor) -> Tensor:
        reach = self.protocol.edge // 2
        outside = F.max_pool1d((~trace).to(metal.dtype), self.protocol.edge, 1, reach)
        at_edge = trace & (outside > 0)
        return torch.where(at_edge, metal * self.protocol.edge_share, metal)

    def _detect(self, p: Tensor, generator: torch.Generator | None) -> Tensor:
        about = self.protocol
        photons = about.photons * about.current
        if about.noise:
            p = measure(
                p,
                photons,
                about.scatter * about.current,
                electronic=about.electronic,
                generator=generator,
            )
        else:
            # As with noise, a cell that counts less than a photon counts one; the correction is not made for more.
            p = p.clamp(max=math.log(photons))
        return p if self._correction is None else correct(p, self._correction)

    def _check_metals(self, mu: Tensor, implants: Sequence[Mapping[str, Tensor]]) -> None:
        for i, parts in enumerate(implants):
            for material in parts:
                self.beam.relative(material)  # says which ones there are
            if not parts:
                raise ValueError(f"Scanner: scan {i} has no metal; Scanner.scan scans without")
            self._check(mu, torch.stack(list(parts.values())))
            twice = int((torch.stack(list(parts.values())).sum(0) > 1).sum())
            if twice:
                raise ValueError(f"Scanner: {twice} pixels of scan {i} hold two metals at once")
        if not implants:
            raise ValueError("Scanner: expected the implants of at least one scan, got none")

    def _check(self, mu: Tensor, masks: Tensor) -> None:
        check_images(mu, self.geometry, "Scanner")
        check_attenuation(mu, "Scanner")
        n = self.geometry.size
        if mu.ndim != 2:
            raise ValueError(f"Scanner: expected one slice (H, W), got shape {tuple(mu.shape)}")
        if not isinstance(masks, Tensor) or masks.dtype != torch.bool:
            kind = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
            raise TypeError(f"Scanner: expected a tensor of bool masks, got {kind}")
        if masks.ndim != 3 or masks.shape[-2:] != mu.shape or not len(masks):
            raise ValueError(
                f"Scanner: expected one or more masks (M, {n}, {n}) as large as the image, got "
                f"{tuple(masks.shape)}"
            )
        area = masks.sum((-2, -1))
        for i, pixels in enumerate(area.tolist()):
            if pixels == 0:
                raise ValueError(f"Scanner: mask {i} holds no metal; Scanner.scan scans without")
            if pixels == n * n:
                raise ValueError(
                    f"Scanner: mask {i} is metal everywhere, so no ray passes beside it"
                )
        beyond = (masks & ~in_view(self.geometry).to(masks.device)).sum((-2, -1))
        if beyond.any():
            i = int(beyond.argmax())
            raise ValueError(
                f"Scanner: mask {i} has {int(beyond[i])} pixels outside the circle that every view sees"
            )
