"""Networks that people use, built from scratch and small: what each is made of stays, depth and width shrink."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from eqreg.extras import require


@dataclass(frozen=True)
class Network:
    """How to build a network, and an input size; one at which its strides are exact, where there is any."""

    name: str
    maker: str  # module:attribute
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 32
    channels: int = 3

    @property
    def kind(self) -> str:
        return next(k for k, names in KINDS.items() if self.name in names)

    @property
    def package(self) -> str:
        """Who publishes it."""
        return self.maker.split(":")[0].split(".")[0]

    def build(self) -> nn.Module:
        require(
            "torchvision", extra="tasks"
        )  # imported by most, in an order that works beside a CPU torch
        module, attribute = self.maker.split(":")
        torch.manual_seed(0)
        return getattr(importlib.import_module(module), attribute)(**self.options)

    def example(self, batch: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.rand(batch, self.channels, self.size, self.size, generator=generator)


def _spandrel(
    name: str, folder: str, size: int = 32, attribute: str = "", channels: int = 3, **options: Any
) -> Network:
    maker = f"spandrel.architectures.{folder}:{attribute or folder}"
    return Network(name, maker, options, size, channels)


def _timm(name: str, model: str, size: int = 64, **options: Any) -> Network:
    return Network(
        name, "timm:create_model", {"model_name": model, "num_classes": 10, **options}, size
    )


def _smp(name: str, size: int = 64, **options: Any) -> Network:
    options = {"encoder_weights": None, "classes": 4, **options}
    return Network(name, f"segmentation_models_pytorch:{name.split()[1]}", options, size)


def _monai(name: str, size: int = 32, **options: Any) -> Network:
    options = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, **options}
    return Network(name, f"monai.networks.nets:{name.split()[1]}", options, size, 1)


def _deepinv(name: str, size: int = 32, **options: Any) -> Network:
    return Network(name, f"deepinv.models:{name.split()[1]}", options, size)


def _torchvision(name: str, path: str, size: int = 65, **options: Any) -> Network:
    module, _, attribute = f"torchvision.models.{path}".rpartition(".")
    return Network(name, f"{module}:{attribute}", {"num_classes": 10, **options}, size)


_HEAD = {"weights": None, "weights_backbone": None}
_SWIN = {"embed_dim": 24, "depths": (2, 2), "num_heads": (2, 2), "window_size": 8, "mlp_ratio": 2.0}

RESTORATION = (
    _spandrel("SwinIR x1", "SwinIR", **_SWIN),
    _spandrel("SwinIR x2 pixelshuffle", "SwinIR", **_SWIN, upscale=2, upsampler="pixelshuffle"),
    _spandrel("SwinIR x2 direct", "SwinIR", **_SWIN, upscale=2, upsampler="pixelshuffledirect"),
    _spandrel("Swin2SR", "Swin2SR", **_SWIN, upscale=2, upsampler="pixelshuffle"),
    _spandrel(
        "HAT",
        "HAT",
        **_SWIN,
        compress_ratio=3,
        squeeze_factor=6,
        upscale=2,
        upsampler="pixelshuffle",
    ),
    _spandrel(
        "DAT",
        "DAT",
        embed_dim=48,
        split_size=[4, 4],
        depth=[2, 2],
        num_heads=[2, 2],
        expansion_factor=2.0,
    ),
    _spandrel("DRCT", "DRCT", **_SWIN, gc=8, upscale=2, upsampler="pixelshuffle"),
    _spandrel(
        "ATD",
        "ATD",
        **{**_SWIN, "depths": (1, 1)},
        category_size=64,
        num_tokens=16,
        upscale=2,
        upsampler="pixelshuffle",
    ),
    _spandrel(
        "RGT", "RGT", embed_dim=48, depth=[2, 2], num_heads=[2, 2], mlp_ratio=2.0, split_size=[8, 8]
    ),
    _spandrel(
        "GRL",
        "GRL",
        img_size=32,
        embed_dim=24,
        depths=[2, 2],
        num_heads_window=[2, 2],
        num_heads_stripe=[2, 2],
        mlp_ratio=2.0,
    ),
    _spandrel("CRAFT", "CRAFT", embed_dim=48, depths=[1, 1], num_heads=[6, 6], upscale=2),
    _spandrel(
        "FDAT",
        "FDAT",
        scale=2,
        embed_dim=24,
        num_groups=1,
        depth_per_group=2,
        num_heads=2,
        mid_dim=16,
    ),
    _spandrel("DITN", "DITN", dim=16, ITL_blocks=1, SAL_blocks=1, upscale=2),
    _spandrel("OmniSR", "OmniSR", size=21, num_feat=16, up_scale=2, window_size=7),
    _spandrel("DCTLSA", "DCTLSA", nf=20, upscale=2),
    _deepinv(
        "deepinv Restormer",
        dim=16,
        num_blocks=(1, 1, 1, 1),
        num_refinement_blocks=1,
        heads=(1, 2, 2, 2),
        pretrained=None,
    ),
    _deepinv("deepinv PromptIR", pretrained=None, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1),
    _spandrel(
        "Uformer",
        "Uformer",
        size=64,
        img_size=64,
        embed_dim=8,
        depths=[1] * 9,
        num_heads=[1, 1, 2, 2, 2, 2, 2, 1, 1],
        win_size=4,
    ),
    _spandrel("RetinexFormer", "RetinexFormer", n_feat=8, stage=1),
    Network(
        "HVI-CIDNet",
        "spandrel.architectures.HVICIDNet:HVICIDNet",
        {"channels": [8, 8, 16, 32], "heads": [1, 2, 2, 4]},
    ),
    _spandrel("FFTformer", "FFTformer", dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1),
    _spandrel(
        "KBNet small",
        "KBNet",
        attribute="KBNet_s",
        width=8,
        middle_blk_num=1,
        enc_blk_nums=[1, 1, 1, 1],
        dec_blk_nums=[1, 1, 1, 1],
    ),
    _spandrel(
        "KBNet large",
        "KBNet",
        attribute="KBNet_l",
        num_blocks=[1, 1, 1, 1],
        num_refinement_blocks=1,
    ),
    _spandrel("NAFNet", "NAFNet", width=16, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]),
    _spandrel("SCUNet", "SCUNet", size=64, config=[1] * 7, input_resolution=64),
    _spandrel("RCAN", "RCAN", scale=2, n_resgroups=1, n_resblocks=2, n_feats=16, reduction=4),
    _spandrel("RRDB (ESRGAN)", "ESRGAN", num_filters=16, num_blocks=1, scale=2),
    _spandrel("Real-ESRGAN compact", "Compact", num_feat=16, num_conv=2, upscale=2),
    _spandrel("DRUNet", "DRUNet", in_nc=4, out_nc=3, nc=[8, 16, 16, 32], nb=1, channels=4),
    _spandrel("DnCNN", "DnCNN", in_nc=3, out_nc=3, nc=16, nb=5),
    _spandrel("FBCNN", "FBCNN", nb=1),
    _spandrel("PLKSR", "PLKSR", dim=16, n_blocks=2, upscaling_factor=2),
    _spandrel("RealPLKSR", "PLKSR", attribute="RealPLKSR", dim=16, n_blocks=2, upscaling_factor=2),
    _spandrel("SAFMN", "SAFMN", dim=16, n_blocks=2, upscaling_factor=2),
    _spandrel("SPAN", "SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
    _spandrel("MoSR", "MoSR", upscale=2, n_block=2, dim=16),
    _spandrel("MoESR", "MoESR", scale=2, dim=16, n_blocks=1, n_block=1, upsample_dim=16),
    _spandrel("SeemoRe", "SeemoRe", scale=2, num_layers=1),
    _spandrel("SwiftSRGAN", "SwiftSRGAN", num_channels=16, num_blocks=2, upscale_factor=2),
    _spandrel("Real-CUGAN", "RealCUGAN", attribute="UpCunet2x", size=48),
    _spandrel("MixDehazeNet", "MixDehazeNet", size=64, embed_dims=[8, 16, 32, 16, 8]),
    _deepinv(
        "deepinv MPRNet",
        size=32,
        n_feat=16,
        scale_unetfeats=8,
        scale_orsnetfeats=8,
        num_cab=1,
        pretrained=None,
    ),
    _deepinv("deepinv UNet", in_channels=3, out_channels=3, scales=3),
    _deepinv("deepinv SRResNet", pretrained=None),
)

CLASSIFICATION = (
    _timm("ResNet-10", "resnet10t", size=65),
    _timm("ResNet-18", "resnet18", size=65),
    _timm("ResNeXt-26", "resnext26ts", size=65),
    _timm("EfficientNet-B0", "efficientnet_b0", size=65),
    _timm("RegNetY-200", "regnety_002", size=65),
    _timm("DenseNet-121", "densenet121", size=61),
    _timm("NF-RegNet-B0", "nf_regnet_b0", size=65),
    _timm("RepVGG-A0", "repvgg_a0", size=65),
    _timm("MobileNetV3", "mobilenetv3_small_050", size=65),
    _timm("GhostNet", "ghostnet_050", size=65),
    _timm("HRNet-W18", "hrnet_w18_small", size=64),
    _timm("ConvNeXt atto", "convnext_atto"),
    _timm("ConvMixer", "convmixer_768_32", size=63),
    _timm("PoolFormer", "poolformer_s12", size=67),
    _timm("ViT tiny", "vit_tiny_patch16_224", img_size=64),
    _timm("DeiT III small", "deit3_small_patch16_224", img_size=64),
    _timm("Mixer", "mixer_s32_224", img_size=64),
    _timm(
        "Swin tiny",
        "swin_tiny_patch4_window7_224",
        img_size=64,
        window_size=4,
        embed_dim=24,
        depths=(2, 2, 2),
        num_heads=(2, 2, 4),
    ),
    _timm(
        "SwinV2 tiny",
        "swinv2_tiny_window8_256",
        img_size=64,
        embed_dim=24,
        depths=(2, 2, 2),
        num_heads=(2, 2, 4),
    ),
    _timm("CoAtNet pico", "coatnet_pico_rw_224", img_size=64),
    _timm("MaxViT pico", "maxvit_rmlp_pico_rw_256", img_size=64),
    _timm("PVTv2-B0", "pvt_v2_b0"),
    _timm("EdgeNeXt", "edgenext_xx_small"),
    _timm("XCiT nano", "xcit_nano_12_p8_224", img_size=64),
    _timm("ConvNeXt V2 atto", "convnextv2_atto"),
    _timm("MobileOne-S0", "mobileone_s0", size=65),
    _timm("MobileViT V2", "mobilevitv2_050"),
    _timm("ResMLP", "resmlp_12_224", img_size=64),
    _timm("gMLP tiny", "gmlp_ti16_224", img_size=64),
    _torchvision("torchvision MobileNetV2", "mobilenet_v2"),
    _torchvision("torchvision MNASNet", "mnasnet0_5"),
    _torchvision("torchvision ShuffleNetV2", "shufflenet_v2_x0_5"),
    _torchvision("torchvision SqueezeNet", "squeezenet1_1", size=63),
    _torchvision(
        "torchvision GoogLeNet", "googlenet", size=77, init_weights=False, aux_logits=False
    ),
    _torchvision(
        "torchvision Swin",
        "swin_transformer.SwinTransformer",
        size=64,
        patch_size=[4, 4],
        embed_dim=24,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=[4, 4],
    ),
)

SEGMENTATION = (
    _smp("smp Unet", encoder_name="resnet18", decoder_channels=(64, 32, 32, 16, 16)),
    _smp("smp UnetPlusPlus", encoder_name="resnet18", decoder_channels=(64, 32, 32, 16, 16)),
    _smp("smp FPN", encoder_name="resnet18"),
    _smp("smp DeepLabV3Plus", encoder_name="resnet18"),
    _smp("smp Linknet", encoder_name="resnet18"),
    _smp("smp Segformer", encoder_name="mit_b0"),
    _torchvision("torchvision LRASPP", "segmentation.lraspp_mobilenet_v3_large", **_HEAD),
    _torchvision("torchvision DeepLabV3", "segmentation.deeplabv3_mobilenet_v3_large", **_HEAD),
)

MEDICAL = (
    _monai("MONAI BasicUNet", features=(8, 8, 16, 16, 16, 8)),
    _monai("MONAI UNet", channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
    _monai("MONAI AttentionUnet", channels=(8, 16, 32), strides=(2, 2)),
    _monai("MONAI SegResNet", init_filters=8),
    _monai(
        "MONAI DynUNet",
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[8, 16, 32],
    ),
    _monai(
        "MONAI UNETR", size=64, img_size=64, feature_size=8, hidden_size=48, mlp_dim=96, num_heads=3
    ),
    _monai(
        "MONAI SwinUNETR",
        size=64,
        feature_size=12,
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 4),
        window_size=4,
    ),
    _monai("MONAI DenseNet121", size=61),
)

KINDS = {
    "restoration": tuple(n.name for n in RESTORATION),
    "classification": tuple(n.name for n in CLASSIFICATION),
    "segmentation": tuple(n.name for n in SEGMENTATION),
    "medical": tuple(n.name for n in MEDICAL),
}
NETWORKS = (*RESTORATION, *CLASSIFICATION, *SEGMENTATION, *MEDICAL)
