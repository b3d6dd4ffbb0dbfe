"""EQ-Reg: train an ordinary network towards rotation equivariance with a penalty on its features."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from math import ceil, isfinite
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..checks import need_generator, need_number
from ..layers.compare import Comparisons, How
from ..layers.inputs import InFields, Inputs, Turn, batch_size
from ..layers.nested import tensors
from ..layers.pairs import Pairing, paired_forward
from ..layers.plan import ROOT, Fields, Plan, Selector
from ..layers.traced import feature_plan
from ..layers.wrappers import compiled_parts, hookable, is_compiled, is_parallel, unwrapped
from ..symmetry.groups import Element, Group
from .output import RegularizedOutput

_NORMS = ("relative", "scale-free", "reference")


class EquivarianceRegularizer:
    r"""Compare the features of turned images with the turned, channel-permuted features of the images.

    .. math:: \mathrm{penalty} = \frac1L \sum_{\ell=1}^{L}
        \frac{\operatorname{mean}\,\lVert g\cdot f_\ell(x) - f_\ell(g\cdot x)\rVert^2}
             {\operatorname{mean}\,\lVert f_\ell(x)\rVert^2}

    with the denominator detached: 0 for an equivariant network, about 2 at random initialisation,
    whatever the batch, patch or width. The model is not changed: hooks live only while a call runs.

    Args:
        model: any ``nn.Module``; also one wrapped by ``torch.compile`` or ``DistributedDataParallel``.
        group: the rotations, for example ``C4``.
        layers: which layers to compare: names, globs, module types or a predicate(name, module), one or
            several. By default all convolutions whose channels fit; see ``plan``.
        fields: field types by name or glob, to override the plan, such as ``{"head": "3t + 8r"}``.
        in_fields: field type of the inputs, for a submodule such as ``model.decoder`` that reads features: one
            for all that turn, or by name or position of the input; a list of fields for an input that is a
            list. Images (all trivial) if not given.
        turn: which inputs turn: names, positions, or a predicate(name, tensor). By default those of at least four
            dimensions. Inputs that do not turn are repeated if they have the batch dimension, else shared.
        generator: source of the draws of ``g``; by default torch's global one.
        fraction: part of the batch that is paired, in (0, 1]; the first images are taken.
        every: pair on every n-th call only; the calls between cost nothing extra.
        pixels: part of the pixels that is compared, one of 1, 1/4, 1/9, 1/16...: every second, third... in both
            directions, from a place drawn for each layer. The penalty and its gradient are then unbiased
            estimates of those over all pixels, and memory and time of the comparison shrink with the part.
        norm: ``"relative"`` as above; ``"scale-free"``, the same number with the gradient of the whole
            quotient (of each process's own under DDP); or ``"reference"``, the sum over the layers of the
            unsquared 2-norms that the code released with the paper minimises (it grows with the batch).
        center: take the denominators about each field's mean, so that a bias cannot buy a small number.
        example: an input of the model, a tensor or a tuple: then the fields are traced, not guessed from
            channel counts; outputs are trivial unless ``fields`` says otherwise. Tokens and windows of
            transformers can be compared too, where ``layers`` names them (``soft.eq_reg_t("SwinIR")``).
        shares: measure ``invariant_share`` too, one more pass over the features.
        check_finite: stop on NaN or Inf in a compared layer; costs one device synchronisation a call.

    Raises:
        TypeError, ValueError: for arguments out of range, unknown layers, fields that do not fit, or a
            plan without layers; each message says what was given and what was expected.

    >>> from eqreg import C4, equivariant_init_
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    >>> reg, x, y = EquivarianceRegularizer(model, C4), torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8)
    >>> out, mse, lam = reg(x), nn.functional.mse_loss, 1e-3
    >>> loss = mse(out.y, y) + mse(out.y_g, out.act(y)) + lam * out.penalty
    >>> _ = equivariant_init_(model, C4)  # now the four channels are one filter, turned
    >>> out.penalty.item() > 0.01, reg(x).penalty.item() < 1e-9
    (True, True)

    The penalty is of order 1, so ``lam`` belongs to the scale of the task loss: for a mean squared error near
    1e-3 try 1e-4 to 1e-2 on validation images. Too large a weight teaches the network to do nothing.

    Reference: Bai, Fu, Xie, Meng, A Regularization-Guided Equivariant Approach for Image Restoration,
    CVPR 2025. Taught in: notebooks/09, notebooks/13.
    """

    def __init__(
        self,
        model: nn.Module,
        group: Group,
        *,
        layers: Selector | Iterable[Selector] | None = None,
        fields: Fields | None = None,
        in_fields: InFields | None = None,
        turn: Turn | None = None,
        generator: torch.Generator | None = None,
        fraction: float = 1.0,
        every: int = 1,
        norm: str = "relative",
        center: bool = False,
        pixels: float = 1.0,
        shares: bool = False,
        check_finite: bool = True,
        example: Any = None,
    ) -> None:
        need_number(fraction, "fraction", 0, 1, above=True)
        need_generator(generator, "generator")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be an int >= 1, got {every!r}")
        if norm not in _NORMS:
            raise ValueError(f"norm must be one of {_NORMS}, got {norm!r}")
        self.model, self.group = model, group
        self._core = unwrapped(model)
        self.plan: Plan = feature_plan(self._core, group, layers, fields, example)
        self.inputs = Inputs.of(self._core, group, turn, in_fields)
        self.generator, self.fraction, self.every = generator, fraction, every
        self.norm, self.center, self.check_finite = norm, center, check_finite
        self._how = How(
            norm != "reference", center, norm == "scale-free", shares, self._step(pixels)
        )
        self.calls = 0
        self._sizes: set[tuple[int, ...]] = set()
        self._warned = False
        self._call = hookable(model)
        _tell_compiled_parts(self._core)

    def __call__(
        self, *inputs: Any, g: Element | int | None = None, **kwargs: Any
    ) -> RegularizedOutput:
        """Run the model on ``[x, g x]``, both in one forward pass.

        Args:
            inputs, kwargs: the model's inputs. Tensors (B, C, H, W) are turned, (B,) and (B, K) repeated, unless
                ``turn`` says otherwise.
            g: the element to turn by; drawn from the group without the identity if not given.

        Raises:
            TypeError, ValueError: for integer, empty, non-square or mixed inputs, or layers whose output
                does not fit the plan.
            FloatingPointError: if a compared layer puts out NaN or Inf.
            RuntimeError: if called while a regularizer runs on the same model.
        """
        images = self.inputs.images(inputs, kwargs)
        batch = batch_size(images, self._core, self.group)
        element = self.draw() if g is None else self.group.element(g)
        skip = self.calls % self.every != 0
        self.calls += 1
        if skip:
            y = self.model(*inputs, **kwargs)
            pairing = Pairing(self.group, self.group.identity, batch, batch)
            return RegularizedOutput(y, y, _zero(y), {}, {}, pairing)
        pairing = Pairing(self.group, element, batch, ceil(self.fraction * batch))
        if self._how.step > 1:
            self._how.places.seed(self._drawn(0, 2**31))
        output, found = paired_forward(
            self._call, self._core, self.plan.fields, pairing, self.inputs, inputs, kwargs,
            how=self._how, check_grid=self._new_size(images), layouts=self.plan.layouts,
        )  # fmt: skip
        if self.check_finite:
            _require_finite(found)
        self._warn_without_graph(found)
        y, y_g = pairing.split(output)
        errors = self._errors(found)
        penalty = errors.sum()
        if self.every > 1:
            penalty = penalty * self.every
        if self.norm != "reference":
            penalty = penalty / len(found.names)
        per_layer = dict(zip(found.names, errors.unbind(), strict=True))
        return RegularizedOutput(y, y_g, penalty, per_layer, found.shares, pairing)

    def __repr__(self) -> str:
        return f"EquivarianceRegularizer({type(self._core).__name__}, {self.group}, {len(self.plan.fields)} layers)"

    def draw(self) -> Element:
        """A random element, not the identity, from ``generator``."""
        return self.group.elements[self._drawn(1, self.group.order)]

    def _drawn(self, low: int, high: int) -> int:
        device = self.generator.device if self.generator is not None else "cpu"
        return int(torch.randint(low, high, (), generator=self.generator, device=device))

    def _step(self, pixels: float) -> int:
        """Compare every so-many-th pixel in both directions."""
        need_number(pixels, "pixels", 0, 1, above=True)
        step = round(pixels**-0.5)
        if abs(pixels * step**2 - 1) > 1e-6:
            raise ValueError(f"pixels must be 1, 1/4, 1/9, 1/16 or such a part, got {pixels!r}")
        if step > 1 and (self.norm != "relative" or is_compiled(self.model) or 4 % self.group.n):
            raise ValueError(
                f"pixels={pixels:g} needs norm='relative', a model that is not compiled and a group of quarter "
                f"turns; got norm={self.norm!r}, {type(self.model).__name__} and {self.group}"
            )
        return step

    def _errors(self, found: Comparisons) -> Tensor:
        if self.norm == "reference":
            return found.errors
        powers = found.powers
        if is_parallel(self.model) and self.norm == "relative":
            # The mean over all processes, so that the gradients are those of one process with the whole batch.
            dist.all_reduce(powers)
            powers = powers / dist.get_world_size()
        return found.relative(powers)

    def _warn_without_graph(self, found: Comparisons) -> None:
        if self._warned or not torch.is_grad_enabled():
            return
        lost = [
            name
            for name in found.detached
            if any(p.requires_grad for p in self._core.get_submodule(_layer(name)).parameters())
        ]
        if lost:
            self._warned = True
            warnings.warn(
                f"no gradient reaches the penalty of {', '.join(map(repr, lost))}: it ran under no_grad or in a "
                "reentrant checkpoint; use checkpoint(..., use_reentrant=False)",
                UserWarning,
                stacklevel=3,
            )

    def _new_size(self, images: list[Tensor]) -> bool:
        """Strides are checked at the first call with a new image size; not under torch.compile."""
        sizes = {tuple(t.shape[-2:]) for t in images}
        new = bool(sizes - self._sizes) and self._call is self.model
        self._sizes |= sizes
        return new


def _layer(call: str) -> str:
    """The module's name behind the name of one of its calls."""
    name = call.split("#")[0]
    return "" if name == ROOT else name


def _tell_compiled_parts(core: nn.Module) -> None:
    parts = compiled_parts(core)
    if parts:
        warnings.warn(
            f"{(parts[0] or ROOT)!r} was compiled as a part or in place, where layers cannot be watched: with the "
            "regularizer it runs uncompiled; to keep the speed wrap the whole model, model = torch.compile(model)",
            UserWarning,
            stacklevel=3,
        )


def _zero(y: Any) -> Tensor:
    found = tensors(y)
    return torch.zeros((), device=found[0].device if found else None)


def _require_finite(found: Comparisons) -> None:
    values = found.errors.detach() + found.powers.detach()
    # The sum of numbers that are not negative is finite if they are, unless they are next to overflow.
    if not isfinite(float(values.sum())) and not bool(values.isfinite().all()):
        bad = [
            name for name, v in zip(found.names, values.tolist(), strict=True) if not isfinite(v)
        ]
        raise FloatingPointError(
            f"NaN or Inf in the features of {', '.join(map(repr, bad))} (first: {bad[0]!r}); expected finite "
            "numbers. Check the inputs, the learning rate, and the loss scale under float16"
        )
