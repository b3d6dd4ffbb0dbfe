r"""A network that unfolds an optimisation: rain as drops that draw streaks.

A rainy image ``O`` is the background ``B`` plus rain, and the streaks of a picture look alike: each is
drawn by one of a few kernels ``C_n`` at the places where the map ``M_n >= 0`` has a drop.

.. math:: O = B + R,\quad R = C * M = \sum_n C_n * M_n, \qquad
    \min_{B,\,M\ge0}\ \tfrac12\lVert B + C*M - O\rVert^2 + \alpha f(M) + \beta h(B)

Proximal gradient steps take turns:

.. math:: M \leftarrow \mathrm{prox}_{f}\big(M - \eta_1\,C^{T}(C*M + B - O)\big), \qquad
    B \leftarrow \mathrm{prox}_{h}\big((1-\eta_2)B + \eta_2(O - C*M)\big)

A stage of the network is one such pair. The gradients are computed as written, the two proximal maps are
small convolutional nets, and everything is trained end to end. It starts from ``M = 0`` and a blurred
``O``: what the blur takes away is where drops are looked for first.

Reference: Wang, Xie, Zhao, Meng, "A Model-Driven Deep Neural Network for Single Image Rain Removal", CVPR
2020, for the model. Nets and code are ours.
Taught in: notebooks/13b
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..symmetry.groups import Group
from ..typed import typed
from ._unfolding import ImageNet, MapNet, check_sizes, largest_gain, strict_size

_BLUR = 5


class Stage(NamedTuple):
    """What one stage leaves.

    Attributes:
        maps: ``M`` (B, maps, H, W).
        rain: ``C*M`` (B, channels, H, W), like the images below.
        estimate: the background after the gradient step.
        background: what its proximal net makes of the estimate.
    """

    maps: Tensor
    rain: Tensor
    estimate: Tensor
    background: Tensor


class RCDNet(nn.Module):
    """Unfolded dictionary network for rain removal.

    Args:
        stages: how many pairs of steps.
        maps: kernels in the dictionary, and channels of ``M``.
        width: channels of the features that the background nets hand from stage to stage.
        blocks: residual blocks of each net.
        dictionary_size: side of the dictionary's kernels in pixels, odd.
        kernel_size: of the nets, odd; 5 or more if ``strict`` holds angles other than quarter turns.
        channels: of the images.
        every_stage: return backgrounds and rain of all stages, for a loss on each.
        strict: group of the strictly equivariant twin; None for the plain network. Only the background nets
            are strict, since rain has a direction: dictionary and map nets stay as they are.

    Shape:
        ``model(o)``: rainy images (B, channels, H, W) in [0, 1] to backgrounds of the same shape. With
        ``every_stage`` a pair, the backgrounds and the rain layers after each stage, (B, stages * channels,
        H, W) each; the last ``channels`` are those of the last stage.

    Raises:
        ValueError: a size is out of range, or ``width`` does not fit the group.

    ``background_nets``, ``map_nets`` and ``dictionary`` are the parts that a symmetry can be asked of; the
    convolutions below ``background_nets`` are those that know photographs.

    >>> RCDNet(stages=2, maps=4, width=4, blocks=1)(torch.rand(1, 3, 12, 12)).shape
    torch.Size([1, 3, 12, 12])
    """

    @typed
    def __init__(
        self,
        stages: int = 6,
        maps: int = 32,
        width: int = 32,
        blocks: int = 2,
        *,
        dictionary_size: int = 9,
        kernel_size: int = 3,
        channels: int = 3,
        every_stage: bool = False,
        strict: Group | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "stages": stages,
            "maps": maps,
            "width": width,
            "blocks": blocks,
            "dictionary_size": dictionary_size,
            "kernel_size": kernel_size,
            "channels": channels,
            "every_stage": every_stage,
        }
        check_sizes(
            "RCDNet",
            {n: options[n] for n in ("stages", "maps", "width", "blocks", "channels")},
            {n: options[n] for n in ("dictionary_size", "kernel_size")},
        )
        if strict is not None and width % strict.order:
            raise ValueError(
                f"RCDNet: width must be divisible by the {strict.order} elements of {strict}, got {width}"
            )
        super().__init__()
        self.options = options
        self.channels, self.width = channels, width
        self.every_stage, self.strict = every_stage, strict
        # One dictionary for all stages: C is a part of the problem, not of a step.
        self.dictionary = nn.Parameter(
            torch.empty(maps, channels, dictionary_size, dictionary_size)
        )
        self.map_nets = nn.ModuleList(
            MapNet(maps, blocks, kernel_size, None, positive=True) for _ in range(stages)
        )
        # Of the objective's data term, a step of length 1 in B finds the minimum: O - C*M.
        self.background_nets = nn.ModuleList(
            ImageNet(width, blocks, kernel_size, strict, channels=channels, step=1.0)
            for _ in range(stages)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weights: nets start near the identity, the dictionary has norm 1."""
        nn.init.normal_(self.dictionary)
        with torch.no_grad():
            # With norm 1, steps in M up to length 2 are stable.
            self.dictionary.div_(largest_gain(self.dictionary.transpose(0, 1)))
        for net in (*self.map_nets, *self.background_nets):
            net.reset_parameters()

    def rain(self, m: Tensor) -> Tensor:
        """``C * M``: every drop of the maps (B, maps, H, W) draws its kernel into (B, channels, H, W)."""
        # torch's transposed convolution is the mathematical one, its "convolution" the transpose.
        return F.conv_transpose2d(m, self.dictionary, padding=self.dictionary.shape[-1] // 2)

    def correlate(self, image: Tensor) -> Tensor:
        """The transpose of :meth:`rain`: how well each kernel fits the image around each pixel."""
        return F.conv2d(image, self.dictionary, padding=self.dictionary.shape[-1] // 2)

    def objective(self, b: Tensor, m: Tensor, o: Tensor) -> Tensor:
        """The data term ``1/2 || B + C*M - O ||^2`` that the stages descend, 0-d."""
        return 0.5 * (b + self.rain(m) - o).square().sum()

    def gradients(self, b: Tensor, m: Tensor, o: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of :meth:`objective` with respect to ``b`` (B, channels, H, W) and ``m`` (B, maps, H, W)."""
        residual = b + self.rain(m) - o
        return residual, self.correlate(residual)

    def unfold(self, o: Tensor) -> Iterator[Stage]:
        """The stages, one after the other; the objective is that of ``o`` (B, channels, H, W).

        Raises:
            ValueError: ``o`` has another shape.
        """
        if o.ndim != 4 or o.shape[1] != self.channels:
            raise ValueError(
                f"RCDNet: expected images (B, {self.channels}, H, W), got {tuple(o.shape)}"
            )
        b, rain = start(o), torch.zeros_like(o)
        m = o.new_zeros(len(o), len(self.dictionary), *o.shape[-2:])
        features = self._no_features(o)
        for map_net, background_net in zip(self.map_nets, self.background_nets, strict=True):
            m = map_net(m, self.correlate(b + rain - o))
            rain = self.rain(m)
            estimate = b - background_net.step * (b + rain - o)  # type: ignore[operator]
            b, features = background_net.prox(estimate, features)  # type: ignore[operator]
            yield Stage(m, rain, estimate, b)

    def forward(self, o: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Remove the rain; see the class for shapes."""
        stages = list(self.unfold(o))
        if not self.every_stage:
            return stages[-1].background
        return torch.cat([s.background for s in stages], 1), torch.cat([s.rain for s in stages], 1)

    def backgrounds(self, estimates: Iterable[Tensor]) -> list[Tensor]:
        """The background nets by themselves: what they make of given estimates, one for each stage.

        This part of the network knows nothing of the rain; turned estimates tell how equivariant it is.
        """
        found: list[Tensor] = []
        features: Tensor | None = None
        for net, estimate in zip(self.background_nets, estimates, strict=True):
            if features is None:
                features = self._no_features(estimate)
            b, features = net.prox(estimate, features)  # type: ignore[operator]
            found.append(b)
        return found

    def twin(self, group: Group, match: Literal["width", "parameters"] = "width") -> RCDNet:
        """The network with strict background nets, of equal width or of (nearly) equally many parameters.

        Raises:
            ValueError: unknown ``match``, or the group's order does not divide ``width``.
        """
        if match not in ("width", "parameters"):
            raise ValueError(f'RCDNet: match must be "width" or "parameters", got {match!r}')
        options = dict(self.options)
        if match == "parameters":
            options["width"] = strict_size(self.width, options["kernel_size"], group)
        return RCDNet(**options, strict=group)

    def _no_features(self, image: Tensor) -> Tensor:
        return image.new_zeros(len(image), self.width, *image.shape[-2:])


@typed
def start(o: Tensor) -> Tensor:
    """The first background: ``o`` (B, C, H, W) averaged over 5 x 5 pixels, inside the image at its border."""
    return F.avg_pool2d(o, _BLUR, 1, _BLUR // 2, count_include_pad=False)


@typed
def stage_loss(prediction: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared errors of backgrounds and rain after every stage.

    Weights are those of the paper: 1 for the last background, 0.9 for the last rain layer, 0.1 before.

    Args:
        prediction: of a network with ``every_stage``.
        y: clean images and rain (B, C, H, W) each.
    """
    total = torch.zeros((), device=y[0].device)
    for images, truth, weight in zip(prediction, y, (1.0, 0.9), strict=True):
        found = images.unflatten(1, (-1, truth.shape[1]))
        errors = (found - truth[:, None]).square().mean((0, 2, 3, 4))
        total = total + 0.1 * errors[:-1].sum() + weight * errors[-1]
    return total
