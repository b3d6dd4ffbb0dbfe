r"""A network that unfolds an optimisation: metal artifacts as a convolutional dictionary.

The scanned image ``Y`` is the image ``X`` that we want plus an artifact ``A``, and streaks look alike
all over: ``A = K * M`` with a small dictionary ``K`` of filters and maps ``M`` that say where they
stand. Outside the metal (``I`` is 1 there) the three have to agree:

.. math:: \min_{X, M}\ \tfrac12\lVert I\odot(X + K*M - Y)\rVert^2 + \alpha f(M) + \beta h(X)

Proximal gradient steps take turns; ``R = I (X + K*M - Y)`` is the residual at the start of each:

.. math:: M \leftarrow \mathrm{prox}_{f}(M - \eta\,K^{T} R), \qquad X \leftarrow \mathrm{prox}_{h}(X - \rho\,R)

A stage of the network is one such pair. Gradients are computed as written; the two proximal maps, which
stand for what we do not know about artifacts and anatomy, are small convolutional nets, and everything is
trained end to end.

Reference: Wang et al., "DICDNet: Deep Interpretable Convolutional Dictionary Network for Metal Artifact
Reduction in CT Images", IEEE TMI 41(4), 2022, for the model. Nets and code are ours.
Taught in: notebooks/14b
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..symmetry.groups import Group
from ..typed import typed
from ._layers import convolution
from ._unfolding import ImageNet, MapNet, check_sizes, largest_gain, strict_size


class DICDNet(nn.Module):
    """Unfolded dictionary network for metal artifact reduction.

    Args:
        stages: how many pairs of steps.
        maps: filters in the dictionary, and channels of ``M``.
        width: channels of the features that the image nets hand from stage to stage.
        blocks: residual blocks of each net.
        dictionary_size: side of the dictionary's filters in pixels, odd.
        kernel_size: of the nets, odd; 5 or more if ``strict`` holds angles other than quarter turns.
        every_stage: return the images after all stages, for a loss on each.
        strict: group of the strictly equivariant twin; None for the plain network. It must divide ``maps`` and
            ``width``.

    Shape:
        ``model(ma, li, metal)``: scanned image, LI image and mask of the metal (bool, or 0 and 1), each
        (B, 1, H, W), with attenuation scaled to [0, 1] (clamped to 0.5/cm and divided by it). Result (B, 1, H, W), or
        (B, stages, H, W) with ``every_stage``, the last one being the result.

    Raises:
        ValueError: a size is out of range, or ``maps`` or ``width`` does not fit the group.

    ``image_nets``, ``map_nets`` and ``dictionary`` are the parts that a symmetry can be asked of:
    ``layers="image_nets.*"`` selects the convolutions that know anatomy.

    >>> x = torch.rand(1, 1, 12, 12)
    >>> DICDNet(stages=2, maps=4, width=4, blocks=1)(x, x, torch.zeros_like(x)).shape
    torch.Size([1, 1, 12, 12])
    """

    @typed
    def __init__(
        self,
        stages: int = 6,
        maps: int = 16,
        width: int = 16,
        blocks: int = 2,
        *,
        dictionary_size: int = 9,
        kernel_size: int = 3,
        every_stage: bool = False,
        strict: Group | None = None,
    ) -> None:
        check_sizes(
            "DICDNet",
            {"stages": stages, "maps": maps, "width": width, "blocks": blocks},
            {"dictionary_size": dictionary_size, "kernel_size": kernel_size},
        )
        if strict is not None and (maps % strict.order or width % strict.order):
            raise ValueError(
                f"DICDNet: maps and width must be divisible by the {strict.order} elements of {strict}, "
                f"got {maps} and {width}"
            )
        super().__init__()
        self.options: dict[str, Any] = {
            "stages": stages,
            "maps": maps,
            "width": width,
            "blocks": blocks,
            "dictionary_size": dictionary_size,
            "kernel_size": kernel_size,
            "every_stage": every_stage,
        }
        self.maps, self.width, self.every_stage, self.strict = maps, width, every_stage, strict
        # One dictionary for all stages: K is a part of the problem, not of a step.
        self.dictionary: Any = convolution(
            maps, 1, dictionary_size, strict, image="out", bias=False
        )
        self.map_nets = nn.ModuleList(
            MapNet(maps, blocks, kernel_size, strict) for _ in range(stages)
        )
        self.image_nets = nn.ModuleList(
            ImageNet(width, blocks, kernel_size, strict) for _ in range(stages)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights: nets start near the identity, the dictionary has norm 1, steps have length 1/2."""
        for net in (*self.map_nets, *self.image_nets):
            net.reset_parameters()
        self.dictionary.reset_parameters()
        with torch.no_grad():
            # With norm 1 steps up to length 2 are stable.
            gain = largest_gain(self.filters())
            for parameter in self.dictionary.parameters():
                parameter.div_(gain)

    def filters(self) -> Tensor:
        """The dictionary as a kernel of ``conv2d``: (1, maps, K, K)."""
        expanded = getattr(self.dictionary, "expanded_weight", None)
        return expanded() if expanded is not None else self.dictionary.weight

    def objective(self, x: Tensor, m: Tensor, y: Tensor, outside: Tensor) -> Tensor:
        """The data term ``1/2 || I (X + K*M - Y) ||^2`` that the stages descend."""
        return 0.5 * (outside * (x + self.dictionary(m) - y)).square().sum()

    def gradients(self, x: Tensor, m: Tensor, y: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of :meth:`objective`: ``R`` for the image and ``K^T R`` for the maps.

        Args:
            x, y, outside: (B, 1, H, W).
            m: (B, maps, H, W).
        """
        residual = outside * (x + self.dictionary(m) - y)
        kernel = self.filters()
        # The transpose of a convolution with zero padding is one with the filters turned by 180 degrees.
        return residual, F.conv_transpose2d(residual, kernel, padding=kernel.shape[-1] // 2)

    def forward(self, ma: Tensor, li: Tensor, metal: Tensor) -> Tensor:
        """Restore images; see the class for shapes."""
        outside = self._outside(ma, li, metal)
        x, m = li, ma.new_zeros(len(ma), self.maps, *ma.shape[-2:])
        features = ma.new_zeros(len(ma), self.width, *ma.shape[-2:])
        images = []
        for map_net, image_net in zip(self.map_nets, self.image_nets, strict=True):
            _, gradient = self.gradients(x, m, ma, outside)
            m = map_net(m, gradient)
            residual = outside * (x + self.dictionary(m) - ma)
            x, features = image_net(x, residual, features)
            images.append(x)
        return torch.cat(images, 1) if self.every_stage else x

    def twin(self, group: Group, match: Literal["width", "parameters"] = "width") -> DICDNet:
        """The strict network of equal width, or of (as nearly as possible) equally many parameters.

        Raises:
            ValueError: unknown ``match``, or the group's order does not divide ``maps`` and ``width``.
        """
        if match not in ("width", "parameters"):
            raise ValueError(f'DICDNet: match must be "width" or "parameters", got {match!r}')
        if match == "width":
            return DICDNet(**self.options, strict=group)
        sizes = {
            name: strict_size(self.options[name], self.options["kernel_size"], group)
            for name in ("maps", "width")
        }
        return DICDNet(**{**self.options, **sizes}, strict=group)

    @staticmethod
    def _outside(ma: Tensor, li: Tensor, metal: Tensor) -> Tensor:
        if ma.ndim != 4 or ma.shape[1] != 1 or not ma.shape == li.shape == metal.shape:
            raise ValueError(
                "DICDNet: expected ma, li and metal of one shape (B, 1, H, W), got "
                f"{tuple(ma.shape)}, {tuple(li.shape)} and {tuple(metal.shape)}"
            )
        return 1 - metal.to(ma.dtype)
