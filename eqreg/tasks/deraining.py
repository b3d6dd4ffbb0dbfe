"""Rain removal in colour with the unfolded network of chapter 13b."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..data import Rain100, patches, photographs
from ..data.crops import RandomCrops
from ..models.rcdnet import RCDNet, stage_loss
from ..models.residual import ResidualNet
from ..physics.rain import add_rain
from ..symmetry.actions import rotate
from ..symmetry.groups import C2, C4, Group
from ..training.methods import METHODS, Method
from ._in_rain import (
    RAIN,
    bsds500,
    elsewhere,
    folder,
    kept_back,
    photographs_in_rain,
    rain100,
    validation,
)
from .task import Preset, Root, Task

_STRENGTHS = {"eqreg": (1e-3, 1e-2), "decay": (40.0, 160.0), "augmentation-decay": (40.0, 160.0)}
_ROWS = (
    "plain", "residual", "augmentation", "strict-C4", "strict-equal-C4", "pairs", "eqreg", "pairs-C4",
    "eqreg-C4", "decay", "augmentation-decay", "turned-backgrounds",
)  # fmt: skip
_EVIDENCE = (
    "plain", "augmentation", "strict-equal", "pairs", "eqreg", "eqreg-at-pairs-rate",
    "released", "released-control",
)  # fmt: skip
_ERROR_SIZE = 96


class Deraining(Task):
    """Colour photographs in rain that falls within an angle of the vertical, and RCDNet.

    Rain has a direction, photographs hardly one, so the methods act on different things. Whole images
    are turned by C2, which maps the rain to itself: ``augmentation``, ``pairs``, ``eqreg``. The decay
    and the strict rows know C4, since they tie the weights of the background nets alone. ``eqreg-C4``
    asks the same of features, and so has to turn whole images by quarters, with horizontal rain in them;
    ``pairs-C4`` does so without the penalty. As the rain of a training pair is known, photographs can also
    be turned before it falls: ``turned-backgrounds``, the augmentation that knows what may turn.
    Penalty and decay look at the background nets only, in every row.

    Training pairs are crops of a fixed pool of clean patches, in rain that is drawn anew for every
    batch. The test is on photographs and rain that were never trained on: the published Rain100L.
    The preset ``quick`` needs no data and is judged on bundled photographs.
    """

    name = "deraining"
    title = "rain removal, colour photographs, RCDNet"
    right = C2
    full = C4
    methods: ClassVar[Mapping[str, Method]] = MappingProxyType(
        {
            **METHODS,
            **{name: replace(METHODS[name], strengths=s) for name, s in _STRENGTHS.items()},
            "penalty": replace(METHODS["penalty"], strengths=_STRENGTHS["eqreg"]),
            "residual": Method("a residual network that unfolds nothing", network="residual"),
            "turned-backgrounds": Method(
                "photographs turned by quarters before the rain falls", data="turned-backgrounds"
            ),
        }
    )
    layers = tuple(
        f"background_nets.*.{part}" for part in ("lift", "blocks.*.0", "blocks.*.2", "read")
    )
    presets = {
        "quick": Preset(
            steps=60, images=4, methods=("plain", "augmentation-decay"), seeds=(0, 1),
            rates=(8e-3,), tuning_steps=20, watch=2,
            sizes={
                "patches": 16, "patch": 64, "crop": 24, "size": 64,
                "stages": 2, "maps": 8, "width": 8, "blocks": 1, "residual": (8, 4),
            },
            expects="under a minute on one CPU core; too short to learn much",
        ),
        "cpu": Preset(
            steps=1200, images=4, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-3, 2e-3, 4e-3), tuning_steps=200, tuning_seeds=(100, 101), watch=4,
            sizes={
                "published": True, "patches": 400, "patch": 64, "crop": 32, "size": 128,
                "stages": 3, "maps": 8, "width": 16, "blocks": 1, "residual": (24, 6),
            },
            expects="two hours of one CPU core",
        ),
        "evidence": Preset(
            steps=2000, images=4, methods=_EVIDENCE, seeds=tuple(range(10)),
            rates=(2e-3, 4e-3), tuning_steps=667, tuning_seeds=(100, 101), watch=4, study=True,
            sizes={
                "published": True, "part": "fit", "patches": 400, "patch": 64, "crop": 32, "size": 128,
                "stages": 3, "maps": 8, "width": 16, "blocks": 1, "residual": (24, 6),
            },
            expects="six hours of one CPU core for five rows, with their tuning",
        ),
        "full": Preset(
            steps=2500, images=16, methods=(*_ROWS, "strict-equal", "penalty-C4"), seeds=(0, 1, 2),
            rates=(1e-3, 2e-3), tuning_steps=400, tuning_seeds=(100, 101),
            sizes={
                "published": True, "patches": 4000, "patch": 96, "crop": 48, "size": 128,
                "stages": 6, "maps": 32, "width": 32, "blocks": 1, "residual": (64, 8),
            },
            expects="not measured yet: `make gpu` times 50 steps of each row before it starts",
        ),
        "paper": Preset(
            # A pass over 200 pairs of 481 x 321 is 471 batches of 16 patches; 100 of them.
            steps=47_100, images=16, methods=_ROWS, seeds=(0, 1, 2),
            rates=(1e-3,), tuning_steps=4000,
            sizes={
                "published": True, "pairs": "Rain100L_train", "patches": 2000, "patch": 128,
                "crop": 64, "size": 128, "stages": 17, "maps": 32, "width": 32, "blocks": 4,
                "residual": (64, 17),
            },
            # 1.1 TFLOP a step of plain; 3 TFLOP/s.
            expects="5 hours of an H200-class GPU for a run, 6 days for all: counted from operations, "
            "not yet run",
        ),
    }  # fmt: skip

    def model(self, preset: Preset) -> nn.Module:
        """RCDNet with the preset's sizes; it returns all its stages, for the loss."""
        sizes = {k: preset.sizes[k] for k in ("stages", "maps", "width", "blocks")}
        return RCDNet(**sizes, every_stage=True)

    def network(self, name: str, preset: Preset) -> nn.Module:
        """The baseline "residual": what chapter 13 trains, of about as many parameters as RCDNet."""
        if name != "residual":
            return super().network(name, preset)
        width, depth = preset.sizes["residual"]
        return RainLayer(ResidualNet(3, width, depth))

    def twin(
        self, model: nn.Module, group: Group, *, match: Literal["width", "parameters"]
    ) -> nn.Module:
        """RCDNet with strict background nets."""
        assert isinstance(model, RCDNet)
        return model.twin(group, match)

    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> RainyCrops:
        """Random crops with their background and their rain."""
        g, sizes = torch.Generator().manual_seed(seed), preset.sizes
        cut = sizes["patch"], sizes["patches"]
        how = {"crop": sizes["crop"], "batch": batch}
        if "pairs" in sizes:
            pairs = Rain100(folder(root, sizes["pairs"]))
            both = {p.name: torch.cat([p.clean, p.rainy]) for p in pairs}
            clean, rainy = patches(both, *cut, generator=g).chunk(2, 1)
            return RainyCrops(clean, rainy, **how)
        images = (
            bsds500(sizes.get("part", "train"), root)
            if "published" in sizes
            else photographs("train", color=True)
        )
        return RainyCrops(patches(images, *cut, generator=g), **how)

    def variant(self, name: str, sampler: Any) -> RainyCrops:
        """The data "turned-backgrounds": photographs turned by random quarters, in upright rain."""
        if name != "turned-backgrounds":
            return super().variant(name, sampler)  # type: ignore[return-value]
        sampler.turned = True
        return sampler

    def loss(self, prediction: Any, y: Any) -> Tensor:
        """Mean squared errors of all stages, :func:`eqreg.models.rcdnet.stage_loss`."""
        return stage_loss(prediction, y)

    @torch.no_grad()
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """PSNR on "val"; on "test" all that chapter 13b reports, PSNR and SSIM on Y unless named ``rgb``.

        Names without more are Rain100L at full size (bundled photographs in the preset ``quick``), and
        ``turned`` the same turned by 90 degrees. ``crop`` and ``diagonal`` are the middle of every pair,
        upright and turned by 45 degrees; ``photographs`` are bundled ones in the rain of the training, in horizontal
        rain and in half and twice as dense rain; ``kept_back`` 40 photographs of BSDS500 in the rain of the
        training, with the size ``part``. ``*_input`` is what the rainy image has. ``error_*``:
        how far the background nets of each stage are from symmetric (RCDNet only).
        """
        device = next(model.parameters()).device
        sizes, published = preset.sizes, "published" in preset.sizes

        def clear(rainy: Tensor) -> Tensor:
            # A fifth faster than the planes of one channel after the other.
            backgrounds, _ = model(rainy.to(device, memory_format=torch.channels_last))
            return backgrounds[:, -rainy.shape[1] :].clamp(0, 1).cpu()

        if split == "val":
            return _told({"psnr": validation(clear, sizes["size"], published, root)})
        found = elsewhere(clear)
        if published:
            found |= rain100(clear, root)
            if sizes.get("part") == "fit":  # 40 photographs are kept back then
                found |= kept_back(clear, sizes["size"], root)
        else:
            found |= {k: found[k + "_photographs"] for k in ("psnr", "psnr_input")}
        if isinstance(model, RCDNet):
            rainy = photographs_in_rain(_ERROR_SIZE, RAIN)[0].to(device)
            found |= background_errors(model, rainy)
        return _told(found)


class RainLayer(nn.Module):
    """A network for images as RCDNet's only stage: the background, and what it took away as rain.

    Args:
        net: of images (B, C, H, W).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, o: Tensor) -> tuple[Tensor, Tensor]:
        """Background and rain (B, C, H, W) of rainy images."""
        background = self.net(o)
        return background, o - background


class RainyCrops:
    """Random crops for :func:`eqreg.training.fit`: rainy images and the pair (background, rain).

    Args:
        clean: patches (n, C, H, W).
        rainy: the same patches in rain; None: every batch gets new rain by the law of ``RAIN``.
        crop: side in pixels.
        batch: crops per call.

    With the attribute ``turned`` the backgrounds of a batch are turned by one random quarter turn, and the
    rain falls as it did.
    """

    def __init__(
        self, clean: Tensor, rainy: Tensor | None = None, *, crop: int, batch: int
    ) -> None:
        self.fresh, self.turned = rainy is None, False
        self.crops = RandomCrops(clean if rainy is None else rainy, clean, crop=crop, batch=batch)

    def __call__(self, generator: torch.Generator | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A batch."""
        rainy, clean = self.crops(generator)
        if self.turned:
            rain = rainy - clean
            clean = rotate(clean, int(torch.randint(4, (), generator=generator)))
            rainy = clean + rain.minimum(1 - clean)
        if self.fresh:
            rainy, _ = add_rain(clean, RAIN, generator=generator)
        return rainy, (clean, rainy - clean)

    def fingerprint(self) -> str:
        """Hash of the patches."""
        return self.crops.fingerprint()


def background_errors(model: RCDNet, rainy: Tensor) -> dict[str, Tensor]:
    """Relative equivariance errors of the background nets, stage by stage.

    The estimates that the nets get in the network are turned and given to them again: what they change
    should turn along. So neither the rain nor the nets that know it take part.

    Args:
        model: the network.
        rainy: (B, C, H, H).

    Returns:
        ``error_C2_stage_1``, ``error_C4_stage_1`` and so on: (B,) each; 0 is symmetric.
    """
    estimates = [stage.estimate for stage in model.unfold(rainy)]

    def changes(k: int) -> list[Tensor]:
        turned = [rotate(e, k) for e in estimates]
        return [rotate(b - e, -k) for b, e in zip(model.backgrounds(turned), turned, strict=True)]

    def power(t: Tensor) -> Tensor:
        return t.square().flatten(1).sum(1)

    upright, *others = (changes(k) for k in range(4))
    found = {}
    for s, change in enumerate(upright):
        errors = [power(other[s] - change) / power(change) for other in others]
        found[f"error_C2_stage_{s + 1}"] = errors[1]
        found[f"error_C4_stage_{s + 1}"] = torch.stack(errors).mean(0)
    return found


def _told(found: dict[str, Tensor]) -> dict[str, list[float]]:
    return {name: values.double().tolist() for name, values in found.items()}
