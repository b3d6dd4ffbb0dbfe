r"""Learning without clean images: an unbiased estimate of the risk, and equivariant imaging.

Letters as in the book: ``x`` is the measurement, ``f`` the network, ``A`` the operator that loses
pixels, ``h = A f``, and ``mu = A y`` the measurement without noise.

Reference: Chen, Tachella, Davies, "Equivariant Imaging", ICCV 2021, and "Robust Equivariant Imaging",
CVPR 2022.
Taught in: notebooks/15_inpainting.ipynb
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..physics.inpainting import check_gamma, measure
from ..typed import typed

Map = Callable[[Tensor], Tensor]
# Images and a source of randomness -> a whole number of transformed copies of the batch.
Transform = Callable[[Tensor, torch.Generator | None], Tensor]


@typed
def poisson_sure(
    h: Map,
    x: Tensor,
    gamma: float,
    *,
    mask: Tensor | None = None,
    tau: float = 1e-2,
    hx: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Stein's estimate of the risk under photon noise, by one random probe.

    .. math:: \frac1n\Big[\lVert h(x)-x\rVert^2-\gamma\,1^\top x
        +\frac{2\gamma}{\tau}(b\odot x)^\top\big(h(x+\tau b)-h(x)\big)\Big],\qquad b_i=\pm1

    Its mean over noise and probe is :math:`\frac1nE\lVert h(x)-\mu\rVert^2`, exactly for affine ``h``
    and to first order in ``gamma`` else.

    Args:
        h: from measurements to measurements, image by image.
        x: (B, C, H, W), measured with noise of level ``gamma``.
        gamma: grey level of one photon.
        mask: what was kept, broadcast against ``x``: only kept pixels are probed and counted in
            ``n``. None: all are.
        tau: size of the probe in grey levels. Large ones blur the derivative, small ones meet the
            rounding of float32.
        hx: ``h(x)``, if it is known.
        generator: source of the probe, on the device of ``x``.

    Returns:
        (B,), differentiable with respect to what is inside ``h``. It may be negative.

    Raises:
        ValueError: ``gamma`` or ``tau`` is not positive, or ``h`` changes the shape.

    Reference: Le Montagner, Angelini, Olivo-Marin, "An Unbiased Risk Estimator for Image Denoising
    in the Presence of Mixed Poisson-Gaussian Noise", IEEE TIP 2014.
    """
    check_gamma(gamma)
    if not tau > 0:
        raise ValueError(f"poisson_sure: tau must be positive, got {tau}")
    hx = _like(h(x) if hx is None else hx, x, "poisson_sure: h(x)")
    # One draw per entry, compared with 1/2: the probe that deepinv draws from the same generator.
    b = 2.0 * (torch.empty_like(x).uniform_(generator=generator) > 0.5).to(x) - 1
    if mask is not None:
        b = b * mask
    change = b * x * (h(x + tau * b) - hx) / tau
    return _per_pixel((hx - x).square() - gamma * x + 2 * gamma * change, mask)


@typed
def poisson_sure_exact(h: Map, x: Tensor, gamma: float) -> Tensor:
    r"""The estimate that is unbiased for every ``h``: one evaluation for each pixel.

    .. math:: \frac1n\Big[\lVert h(x)-x\rVert^2-\gamma\,1^\top x
        +2\sum_i x_i\,\big(h_i(x)-h_i(x-\gamma e_i)\big)\Big]

    A pixel without photons has weight 0, so that ``h`` may be anything there.

    Args:
        h, x, gamma: as for :func:`poisson_sure`.

    Returns:
        (B,).

    Raises:
        ValueError: ``gamma`` is not positive, or ``h`` changes the shape.

    Reference: Hudson, "A Natural Identity for Exponential Families with Applications in
    Multiparameter Estimation", Annals of Statistics 1978, for the identity behind it.
    """
    check_gamma(gamma)

    total, hx = _first_terms(h, x, gamma)
    for e in _unit_vectors(x):
        total = total + 2 * e * x * (hx - h(x - gamma * e))
    return _per_pixel(total, None)


@typed
def poisson_sure_derivative(h: Map, x: Tensor, gamma: float) -> Tensor:
    r"""The estimate with derivatives, without a probe: one backward pass for each pixel.

    .. math:: \frac1n\Big[\lVert h(x)-x\rVert^2-\gamma\,1^\top x
        +2\gamma\sum_i x_i\,\partial_ih_i(x)\Big]

    Args:
        h, x, gamma: as for :func:`poisson_sure`; ``h`` must be made of differentiable operations.

    Returns:
        (B,), no gradient: the mean of :func:`poisson_sure` over the probe, for a small one.

    Raises:
        ValueError: ``gamma`` is not positive, or ``h`` changes the shape.
    """
    check_gamma(gamma)

    with torch.enable_grad():
        free = x.detach().requires_grad_()
        hx = h(free)
        # h works image by image, so one backward pass per pixel serves the whole batch.
        columns = [
            e * torch.autograd.grad((e * hx).sum(), free, retain_graph=True)[0]
            for e in _unit_vectors(x)
        ]
    total = _first_terms(lambda _: hx.detach(), x, gamma)[0]
    return _per_pixel(total + 2 * gamma * x * torch.stack(columns).sum(0), None)


@typed
def random_shift(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One random circular shift of a batch (B, C, H, W)."""
    device = generator.device if generator is not None else None
    shifts = [
        int(torch.randint(n, (), generator=generator, device=device)) for n in images.shape[-2:]
    ]
    return images.roll(shifts, (-2, -1))


@typed
def equivariant_imaging(
    model: Map,
    prediction: Tensor,
    camera: Map,
    *,
    transform: Transform = random_shift,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Equivariant imaging: restore a measurement of the moved restoration.

    .. math:: \lVert f(\mathrm{camera}(T_g\hat y)) - T_g\hat y\rVert^2,\qquad \hat y = f(x)

    Pictures may be moved, the lost pixels stay where they are: what one position hides, another
    shows. It asks that :math:`f\circ A` commute with ``T_g``, not that ``f`` do, and it is empty if
    the camera itself commutes with ``T_g``.

    Args:
        model: f.
        prediction: f(x), (B, C, H, W).
        camera: from images to new measurements, with fresh noise; gets no negative values.
        transform: draws ``g`` and applies it.
        generator: source of ``g``.

    Returns:
        0-d, mean over all pixels; its gradient passes through ``prediction``.

    Raises:
        ValueError: ``model`` returns another shape than that of ``prediction``.
    """
    moved = transform(prediction, generator)
    again = model(camera(moved.clamp(min=0)))
    return F.mse_loss(_like(again, moved, "equivariant_imaging: f(camera(..))"), moved)


@dataclass(frozen=True)
class RobustEquivariantImaging:
    """Learning from measurements alone: SURE for what was seen, equivariant imaging for the rest.

    An objective for :func:`eqreg.training.fit` whose "label" is the mask: no clean image comes in.

    Args:
        gamma: grey level of one photon in the measurements.
        alpha: weight of equivariant imaging; 0 leaves SURE alone.
        tau: size of SURE's probe.
        copies: moved copies for each image.
        transform: what pictures are supposed to be invariant under.

    Raises:
        ValueError: ``alpha`` is negative or ``copies`` is not positive.
    """

    gamma: float
    alpha: float = 1.0
    tau: float = 1e-2
    copies: int = 1
    transform: Transform = random_shift

    def __post_init__(self) -> None:
        check_gamma(self.gamma)
        if self.alpha < 0 or self.copies < 1:
            raise ValueError(
                f"RobustEquivariantImaging: expected alpha >= 0 and copies >= 1, got {self.alpha} "
                f"and {self.copies}"
            )

    @typed
    def __call__(
        self,
        model: Map,
        prediction: Tensor,
        x: Tensor,
        mask: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            model: f, called again.
            prediction: f(x).
            x: measurements (B, C, H, W).
            mask: (B, 1, H, W).
            generator: source of probe, shifts and fresh noise.

        Returns:
            0-d.
        """
        generator = _on(x.device, generator)
        loss = poisson_sure(
            lambda t: mask * model(t), x, self.gamma,
            mask=mask, tau=self.tau, hx=mask * prediction, generator=generator,
        ).mean()  # fmt: skip
        if self.alpha:
            imaging = [
                equivariant_imaging(
                    model,
                    prediction,
                    lambda y: measure(y, mask, self.gamma, generator=generator),
                    transform=self.transform,
                    generator=generator,
                )
                for _ in range(self.copies)
            ]
            loss = loss + self.alpha * torch.stack(imaging).mean()
        return loss


def _like(given: Tensor, x: Tensor, what: str) -> Tensor:
    """What would be broadcast against ``x`` has another number of values, and a loss that means nothing."""
    if given.shape != x.shape:
        raise ValueError(f"{what}: expected shape {tuple(x.shape)}, got {tuple(given.shape)}")
    return given


def _on(device: torch.device, generator: torch.Generator | None) -> torch.Generator | None:
    """``generator``, or one on ``device`` that it seeds: fit's lies on the CPU."""
    if generator is None or generator.device.type == device.type:
        return generator
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


def _per_pixel(terms: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return terms.flatten(1).mean(1)
    weights = mask.expand_as(terms).flatten(1)
    return (terms.flatten(1) * weights).sum(1) / weights.sum(1)


def _first_terms(h: Map, x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """What all forms share, before the mean over the pixels, and h(x)."""
    hx = _like(h(x), x, "h(x)")
    return (hx - x).square() - gamma * x, hx


def _unit_vectors(x: Tensor) -> Tensor:
    """One image for each entry, (n, 1, C, H, W)."""
    n = x[0].numel()
    return torch.eye(n, dtype=x.dtype, device=x.device).reshape(n, 1, *x.shape[1:])
