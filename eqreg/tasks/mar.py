"""Metal artifact reduction with the unfolding network of chapter 14b."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..data.crops import RandomCrops
from ..models.dicdnet import DICDNet
from ..models.unet import UNet
from ..physics.ct import mar_psnr, mar_ssim, rmse_hu, size_group
from ..physics.ct.evaluate import WINDOW
from ..soft.regularizer import EquivarianceRegularizer
from ..symmetry.actions import rotate
from ..symmetry.groups import C4, Group
from ..training.methods import METHODS, Method
from ._metal import Cases
from ._patients import ELSEWHERE, PUBLISHED_SIZE, cases
from ._studies import claim
from .task import Preset, Root, Task

_ROWS = (
    "plain", "unet", "augmentation", "strict", "strict-equal", "pairs", "eqreg", "decay",
    "pairs-C8", "eqreg-C8",
)  # fmt: skip
_EVIDENCE = (
    "plain", "augmentation", "strict-equal", "pairs", "eqreg", "eqreg-at-pairs-rate",
    "released", "released-control",
)  # fmt: skip
_LARGE_FILTERS = ("plain-5x5", "strict-5x5-C8", "strict-equal-5x5-C8")
# The loss is a squared error of about 1e-4, a hundredth of that of the other tasks.
_PENALTIES = (1e-5, 1e-4)
_DECAYS = (10.0, 100.0)
_EARLIER = 0.1  # weight of the stages before the last one


class Mar(Task):
    """CT slices with simulated implants; the network gets scan, LI image and the mask of the metal.

    A quarter turn of the patient is a cyclic shift of the scanner's views, so C4 is exactly right for the
    artifacts. EQ-Reg and the decay act on the nets that know anatomy.

    The presets beyond "quick" train on chest slices of CT100 with procedural implants in the geometry of
    SynDeepLesion, and test on other patients with the ten published masks, and on what was never seen:
    other regions, scanners, implants and orientations, and the published scans. Scans are simulated
    once and kept in EQREG_CACHE (0.9 GB).

    The preset "paper" has the published sizes: 10 stages, 32 maps and features, 3 blocks a net, 200 epochs of
    1000 batches of 16 patches of 64 x 64, Adam at 2e-4. It departs in the data (1000 slices of DeepLesion with
    90 masks are not at hand), in the loss, which there has an absolute error of image and artifact, too, and
    in the schedule, a cosine.
    """

    name = "mar"
    title = "metal artifact reduction in CT, unfolding network"
    right = C4
    full = C4
    layers = ("image_nets.*.lift", "image_nets.*.blocks.*.[02]", "image_nets.*.read")
    methods: ClassVar[Mapping[str, Method]] = MappingProxyType(
        {
            name: replace(m, strengths=_PENALTIES if m.pairs else _DECAYS)
            if m.strengths and not m.released
            else m
            for name, m in METHODS.items()
        }
        | {
            "unet": Method("a U-Net that corrects the LI image", network="unet"),
            # Filters of 3 x 3 hold no turns by 45 degrees, those of 5 x 5 nearly do.
            **{
                f"{name}-5x5": replace(m, about=f"{m.about}, filters of 5 x 5", network="5x5")
                for name, m in METHODS.items()
                if name in ("plain", "strict", "strict-equal")
            },
        }
    )
    presets = {
        "quick": Preset(
            steps=40, images=4, methods=("plain", "eqreg"), seeds=(0, 1),
            rates=(3e-3,), tuning_steps=10, watch=1,
            sizes={
                "data": "phantoms", "size": 64, "slices": 6, "implants": 2, "crop": 32, "turn_every": 2,
                "stages": 2, "maps": 4, "width": 4, "blocks": 1, "dictionary": 5, "unet": (4, 1),
            },
            expects="half a minute on one CPU core; too short to learn much",
        ),
        "cpu": Preset(
            steps=1000, images=4, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-3, 3e-3), tuning_steps=150, tuning_seeds=(100, 101), watch=2,
            sizes={
                "data": "ct100", "size": 416, "slices": 30, "implants": 4, "crop": 48, "turn_every": 11,
                "stages": 3, "maps": 8, "width": 8, "blocks": 1, "dictionary": 5, "unet": (8, 2),
            },
            expects="two hours of one CPU core",
        ),
        "evidence": Preset(
            steps=1500, images=4, methods=_EVIDENCE, seeds=tuple(range(12)),
            rates=(1e-3, 2e-3), tuning_steps=500, tuning_seeds=(100, 101), watch=2, study=True,
            sizes={
                "data": "ct100", "size": 416, "slices": 30, "implants": 4, "crop": 48, "turn_every": 11,
                "stages": 3, "maps": 8, "width": 8, "blocks": 1, "dictionary": 5, "unet": (8, 2),
            },
            expects="six hours of one CPU core for five rows, with their tuning",
        ),
        "full": Preset(
            steps=3000, images=16, methods=(*_ROWS, "augmentation-decay", *_LARGE_FILTERS), seeds=(0, 1, 2),
            rates=(5e-4, 1e-3, 2e-3), tuning_steps=600,
            sizes={
                "data": "ct100", "size": 416, "slices": 34, "implants": 10, "crop": 64, "turn_every": 11,
                "stages": 6, "maps": 16, "width": 16, "blocks": 2, "dictionary": 9, "unet": (16, 3),
            },
            expects="not measured yet: `make gpu` times 50 steps of each row before it starts",
        ),
        "paper": Preset(
            steps=200_000, images=16, methods=_ROWS, seeds=(0, 1, 2),
            rates=(2e-4,), tuning_steps=5000,
            sizes={
                "data": "ct100", "size": 416, "slices": 34, "implants": 20, "crop": 64, "turn_every": 11,
                "stages": 10, "maps": 32, "width": 32, "blocks": 3, "dictionary": 9, "unet": (32, 4),
            },
            # 470 GFLOP a step of plain, at 3 TFLOP/s.
            expects="9 hours of one H200-class GPU for one plain run, two weeks for all: counted from "
            "operations, not yet run",
        ),
    }  # fmt: skip
    _hours = "nine hours of one CPU core with its tunings, counted from the preset cpu; not yet run"
    presets["claim"] = claim(presets["evidence"], _hours, "slices=4,8,16,32")  # four pairs a slice

    def model(self, preset: Preset) -> nn.Module:
        """A DICDNet of the preset's sizes."""
        return _unfolded(preset)

    def network(self, name: str, preset: Preset) -> nn.Module:
        """The baseline "unet", or "5x5": the DICDNet with larger filters."""
        if name == "5x5":
            return _unfolded(preset, 5)
        if name == "unet":
            return RepairingUNet(UNet(3, *preset.sizes["unet"]))
        return super().network(name, preset)

    def twin(
        self, model: nn.Module, group: Group, *, match: Literal["width", "parameters"]
    ) -> nn.Module:
        """The network's own twin."""
        assert isinstance(model, DICDNet)
        return model.twin(group, match)

    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> MetalCrops:
        """Random crops of the training cases, which are the same for all seeds."""
        train = _cases("train", preset, root)
        return MetalCrops(train, crop=preset.sizes["crop"], batch=batch, device=device)

    def loss(self, prediction: Any, y: Any) -> Tensor:
        """Mean squared error outside the metal, of the last stage and a tenth of the earlier ones'."""
        clean, outside = y
        squares = (outside * (prediction - clean)).square().mean((0, 2, 3))
        return squares[-1] + _EARLIER * squares[:-1].sum()

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """PSNR of the published protocol on "val"; on "test" all that chapter 14b reports.

        ``psnr``, ``ssim``, ``rmse`` (HU), ``psnr_size0`` (large) to ``psnr_size4`` (small), and
        ``psnr_turned`` of some of these patients turned by quarter turns and ``psnr_ensemble`` of the mean
        over the four orientations beside ``psnr_upright``. Then ``psnr_*`` for
        other regions, scans, implants, patients turned by 45 degrees, and the published scans. ``*_input``,
        ``*_li``, ``*_nmar`` are what is had without a network. ``error_C4`` is the change of the correction
        under quarter turns, ``error_layers`` that of the features of the image nets.
        """
        scans = _cases(split, preset, root)
        restored = restore(model, scans)
        found = {"psnr": mar_psnr(restored, scans.gt, scans.metal)}
        if split != "test":
            return {name: values.tolist() for name, values in found.items()}
        found["ssim"] = mar_ssim(restored, scans.gt, scans.metal)
        found["rmse"] = rmse_hu(restored, scans.gt, scans.metal)
        found |= scans.known
        areas = scans.metal.sum((1, 2)) * (PUBLISHED_SIZE / preset.sizes["size"]) ** 2
        groups = torch.tensor([size_group(max(1, int(area))) for area in areas])
        for group in groups.unique().tolist():
            for name in ("psnr", "psnr_input", "psnr_li", "psnr_nmar"):
                found[f"{name}_size{group}"] = found[name][groups == group]
        some = range(0, len(areas), preset.sizes["turn_every"])
        found |= _under_turns(model, scans.pick(some), restored[list(some)])
        for name in ELSEWHERE[preset.sizes["data"]]:
            other = _cases(name, preset, root)
            restored = restore(model, other)
            found[f"psnr_{name}"] = mar_psnr(restored, other.gt, other.metal)
            found[f"rmse_{name}"] = rmse_hu(restored, other.gt, other.metal)
            for key in ("psnr_input", "psnr_li", "psnr_nmar"):
                if key in other.known:
                    found[f"{key}_{name}"] = other.known[key]
        return {name: values.double().tolist() for name, values in found.items()}


class RepairingUNet(nn.Module):
    """The baseline that unfolds nothing: a U-Net corrects the LI image, given scan and mask.

    Args:
        net: of three channels, LI image, scan and mask.

    Shape:
        as :class:`eqreg.models.dicdnet.DICDNet`; sides divisible by ``2**levels`` of the U-Net.
    """

    def __init__(self, net: UNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, ma: Tensor, li: Tensor, metal: Tensor) -> Tensor:
        """Restore images (B, 1, H, W)."""
        return self.net(torch.cat([li, ma, metal], 1))[:, :1]


class MetalCrops:
    """A sampler for :func:`eqreg.training.fit`: ``(ma, li, metal)`` and ``(clean, outside)``.

    Args:
        cases: whole scans.
        crop: side in pixels.
        batch: crops per call.
        device: where they lie.
    """

    def __init__(
        self, cases: Cases, *, crop: int, batch: int, device: torch.device | str = "cpu"
    ) -> None:
        ma, li, metal, clean = (t.to(device) for t in cases.scaled())
        self.crops = RandomCrops(
            torch.cat([ma, li], 1), torch.cat([metal, clean], 1), crop=crop, batch=batch
        )

    def __call__(
        self, generator: torch.Generator | None
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """A batch of (B, 1, crop, crop)."""
        seen, hidden = self.crops(generator)
        metal, clean = hidden.split(1, 1)
        return (*seen.split(1, 1), metal), (clean, 1 - metal)

    def fingerprint(self) -> str:
        """Hash of the images."""
        return self.crops.fingerprint()


def restore(model: nn.Module, scans: Cases, turns: int = 0) -> Tensor:
    """Images (N, H, W) in 1/cm of a trained network; with ``turns``, of scans turned by quarter turns.

    One case at a time, so that memory holds the features of one image.
    """
    device = next(model.parameters()).device
    ma, li, metal, _ = scans.scaled()
    images = [
        model(*(rotate(t[i : i + 1].to(device), turns) for t in (ma, li, metal)))[:, -1]
        for i in range(len(ma))
    ]
    return torch.cat(images).cpu() * WINDOW


def _unfolded(preset: Preset, kernel_size: int = 3) -> DICDNet:
    sizes = preset.sizes
    return DICDNet(
        sizes["stages"], sizes["maps"], sizes["width"], sizes["blocks"],
        dictionary_size=sizes["dictionary"], kernel_size=kernel_size, every_stage=True,
    )  # fmt: skip


def _under_turns(model: nn.Module, scans: Cases, restored: Tensor) -> dict[str, Tensor]:
    """Quality and correction of the same cases in the other orientations."""
    back = [rotate(restore(model, scans, k), -k) for k in (1, 2, 3)]
    outside = ~scans.metal
    power = ((restored - scans.li.clamp(0, WINDOW)) * outside).square().sum((1, 2))
    errors = [((b - restored) * outside).square().sum((1, 2)) / power for b in back]
    psnr = torch.stack([mar_psnr(b, scans.gt, scans.metal) for b in back])
    found = {
        "psnr_upright": mar_psnr(restored, scans.gt, scans.metal),
        "psnr_turned": psnr.mean(0),
        "psnr_ensemble": mar_psnr((restored + sum(back)) / 4, scans.gt, scans.metal),
        "error_C4": torch.stack(errors).mean(0),
    }
    if isinstance(model, DICDNet):
        regularizer = EquivarianceRegularizer(model, C4, layers=Mar.layers)
        x = [t[:1].to(next(model.parameters()).device) for t in scans.scaled()[:3]]
        seen = [v for g in (1, 2, 3) for v in regularizer(*x, g=g).per_layer.values()]
        found["error_layers"] = torch.stack([torch.as_tensor(v) for v in seen]).mean()[None].cpu()
    return found


def _cases(name: str, preset: Preset, root: Root) -> Cases:
    sizes = preset.sizes
    return cases(name, *(sizes[k] for k in ("data", "size", "slices", "implants")), root)
