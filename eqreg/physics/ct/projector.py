"""Line integrals of images and their adjoint, through one eighth of the scanner.

The views of the second quarter of the circle see the image as those of the first see the image turned
back by 90 degrees, and the second half of a quarter sees it as the first half sees its mirror image. So one
sparse matrix of ``views/8`` views serves the whole circle: the operator takes an eighth of the memory, and it
is exactly equivariant, because turning or mirroring the image only changes which of the eight numbers in a row
is computed first. Where the views do not fall into eighths, quarters, halves or the whole circle take their place.

Taught in: notebooks/14
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...extras import require
from ...typed import typed
from ._matrix import CSR, backprojector, joseph
from ._strips import MASKS, SPARSE, csr_tensor, cut, sparse_rays
from .cache import cache_folder, cached
from .geometry import Geometry
from .units import check_images, check_sinograms

# Images that go through the matrix together, forwards and back. More of them read it less often; on a
# processor their pixels then leave its cache, which costs more: a ray crosses the whole image.
_TOGETHER = {"cpu": (1, 2), "cuda": (8, 8)}


class QuarterOperator:
    """A linear map between images and sinograms, given by its matrix for the first views.

    Args:
        geometry: of the scanner.
        matrix: a CSR triple; rows are cells, once or several times over, and columns pixels, or with
            ``by_pixels`` the reverse.
        by_pixels: which of the two.
        scale: a factor of all values.
        device, dtype: where and in which precision the matrix is held; float32 or float64.

    Both directions are differentiable, batched, and the exact transposes of each other (the second one
    is built when it is first asked for). Several operators may share one CSR triple.
    """

    @typed
    def __init__(
        self,
        geometry: Geometry,
        matrix: CSR,
        *,
        by_pixels: bool = False,
        scale: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(f"a projector computes in float32 or float64, got {dtype}")
        self.geometry = geometry
        self.device = torch.device(device or "cpu")
        self.dtype = dtype
        self._scale = scale
        self._turns = geometry.turns
        self._mirrors = 2 if geometry.mirrored else 1
        self._shape = (geometry.part * geometry.bins, geometry.size**2)
        self._by_pixels = by_pixels
        self._csr = matrix
        # The matrix with rows of cells, and that with rows of pixels.
        self._matrices: dict[bool, Tensor] = {}
        self._cut: list[Tensor] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.geometry!r}, device={str(self.device)!r})"

    @property
    def stored(self) -> int:
        """How many numbers the matrix holds; the whole circle has eight times as many if the views allow it."""
        return len(self._csr.values)

    def project(self, x: Tensor) -> Tensor:
        """Sinograms (..., views, bins) of images (..., size, size).

        Raises:
            TypeError, ValueError: not a float tensor of this size on this device.
        """
        check_images(x, self.geometry, "project")
        return _Apply.apply(self._prepared(x, "project"), self, False)

    def backproject(self, y: Tensor) -> Tensor:
        """The transpose: images (..., size, size) of sinograms (..., views, bins).

        Raises:
            TypeError, ValueError: not a float tensor of this size on this device.
        """
        check_sinograms(y, self.geometry, "backproject")
        return _Apply.apply(self._prepared(y, "backproject"), self, True)

    def _prepared(self, t: Tensor, name: str) -> Tensor:
        if t.device.type != self.device.type:
            raise ValueError(f"{name}: the projector is on {self.device}, the tensor on {t.device}")
        return t.to(self.dtype)

    def _apply(self, t: Tensor, back: bool) -> Tensor:
        lead = t.shape[:-2]
        t = t.reshape(-1, *t.shape[-2:])
        sides = (self.geometry.size,) * 2 if back else (self.geometry.views, self.geometry.bins)
        result = t.new_empty((len(t), *sides))
        together = _TOGETHER.get(self.device.type, (1, 1))[back]
        ways: list[tuple[Callable[[Tensor], Tensor], list[int], int]]
        if back:
            ways = [(self._backward_chunk, list(range(len(t))), together)]
        else:
            few = [n <= SPARSE * t[0].numel() for n in t.count_nonzero((-2, -1)).tolist()]
            ways = [
                (self._forward_chunk, [i for i, sparse in enumerate(few) if not sparse], together),
                (self._sparse_chunk, [i for i, sparse in enumerate(few) if sparse], MASKS),
            ]
        for step, which, size in ways:
            for i in range(0, len(which), size):
                some = which[i : i + size]
                result[some] = step(t[some])
        return result.mul_(self._scale).reshape(*lead, *sides)

    def _copies(self, x: Tensor) -> Tensor:
        """(mirrors * turns * images, n, n); part q of the views sees the image turned back by q parts of the circle."""
        step, parts = 4 // self._turns, range(self._turns)
        turned = torch.stack([torch.rot90(x, -q * step, (-2, -1)) for q in parts])
        if self._mirrors == 2:
            turned = torch.cat([turned, _mirrored(turned)])
        return turned.flatten(0, -3)

    def _forward_chunk(self, x: Tensor) -> Tensor:
        columns = self._copies(x).flatten(1).T.contiguous()
        rays = self._matrix(by_pixels=False) @ columns
        if len(rays) > self._shape[0]:  # a ray's strips
            rays = rays.reshape(-1, self._shape[0], rays.shape[-1]).sum(0)
        return self._sinograms(rays.T)

    def _sinograms(self, rays: Tensor) -> Tensor:
        y = rays.reshape(self._mirrors, self._turns, -1, self.geometry.part, self.geometry.bins)
        halves = [y[0], *(half.flip(-2, -1) for half in y[1:])]
        return torch.cat(halves, -2).transpose(0, 1).reshape(y.shape[2], self.geometry.views, -1)

    def _sparse_chunk(self, x: Tensor) -> Tensor:
        if self._cut is None:
            self._cut = cut(self._matrix(by_pixels=False), self._shape[0])
        return self._sinograms(sparse_rays(self._copies(x), self._cut))

    def _backward_chunk(self, y: Tensor) -> Tensor:
        n, step = self.geometry.size, 4 // self._turns
        sectors = y.reshape(len(y), self._turns, -1, self.geometry.bins).transpose(0, 1)
        halves = list(sectors.split(self.geometry.part, -2))
        halves[1:] = [half.flip(-2, -1) for half in halves[1:]]
        columns = torch.stack(halves).reshape(-1, self._shape[0]).T.contiguous()
        pixels = self._matrix(by_pixels=True) @ columns
        parts = pixels.T.reshape(self._mirrors, self._turns, len(y), n, n)
        found = []
        for i, half in enumerate(parts):
            images = _mirrored(half) if i else half
            turned = [torch.rot90(part, q * step, (-2, -1)) for q, part in enumerate(images)]
            # Opposite parts first: turning or mirroring the sinogram then changes the order of no sum.
            while len(turned) > 1:
                middle = len(turned) // 2
                turned = [a + b for a, b in zip(turned[:middle], turned[middle:], strict=True)]
            found += turned
        return found[0] + found[1] if len(found) > 1 else found[0]

    def _matrix(self, *, by_pixels: bool) -> Tensor:
        if by_pixels not in self._matrices:
            csr = self._csr if by_pixels == self._by_pixels else self._transposed()
            self._matrices[by_pixels] = self._tensor(csr, self._shape[not by_pixels])
        return self._matrices[by_pixels]

    def _transposed(self) -> CSR:
        sparse = require("scipy.sparse", extra="tasks")
        pointers, columns, values = self._csr
        shape = (len(pointers) - 1, self._shape[not self._by_pixels])
        turned = sparse.csr_matrix((values, columns, pointers), shape=shape).T.tocsr()
        if not self._by_pixels:
            turned.indices %= self._shape[0]  # the strips of a ray are one ray again
        return CSR(turned.indptr, turned.indices, turned.data)

    def _tensor(self, csr: CSR, width: int) -> Tensor:
        pointers, columns, values = (torch.from_numpy(array) for array in csr)
        size = (len(pointers) - 1, width)
        return csr_tensor(pointers, columns, values.to(self.dtype), size).to(self.device)


def _mirrored(images: Tensor) -> Tensor:
    """(..., n, n) with rows and columns exchanged, both from the end: its own inverse."""
    return images.transpose(-2, -1).flip(-2, -1)


class _Apply(torch.autograd.Function):
    """One direction forwards is the other one backwards, whatever the order of the derivative."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, t: Tensor, *how: object) -> Tensor:
        operator, back = how
        ctx.operator, ctx.back = operator, back  # type: ignore[attr-defined]
        return operator._apply(t, back)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor) -> tuple[object, ...]:
        operator, back = ctx.operator, ctx.back  # type: ignore[attr-defined]
        return _Apply.apply(grads[0], operator, not back), None, None


class Projector(QuarterOperator):
    """Line integrals of images in cm times the unit of the image, by Joseph's method.

    ``project`` is the forward model, ``backproject`` its exact transpose, as an iterative method or a
    network needs it. (The transpose is *not* what filtered back-projection uses: see the module ``fbp``.)

    Args:
        geometry: of the scanner.
        device, dtype: where and in which precision; float32 by default.
        cache: folder for large matrices. True: ``EQREG_CACHE`` or the user's cache folder; False:
            keep nothing.

    Raises:
        TypeError: a precision other than float32 and float64.

    >>> from eqreg.physics.ct import ParallelBeam
    >>> a = Projector(ParallelBeam(size=8, views=4, bins=11))
    >>> a.project(torch.ones(1, 8, 8)).shape
    torch.Size([1, 4, 11])
    """

    @typed
    def __init__(
        self,
        geometry: Geometry,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        cache: bool | str | Path = True,
    ) -> None:
        matrix = cached("joseph", geometry, joseph, _folder(cache))
        super().__init__(geometry, matrix, scale=geometry.pixel, device=device, dtype=dtype)


class PixelDriven(QuarterOperator):
    """The back-projection of filtered back-projection: every pixel looks up every view.

    Args:
        geometry: of the scanner.
        power: of the weight R/U, depth from the source; 0 for none.
        device, dtype: where and in which precision; float32 by default.

    Its matrix is not kept on disk: building it is as fast as reading it.
    """

    @typed
    def __init__(
        self,
        geometry: Geometry,
        power: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(
            geometry,
            backprojector(geometry, power),
            by_pixels=True,
            scale=geometry.span / geometry.views,
            device=device,
            dtype=dtype,
        )


def _folder(cache: bool | str | Path) -> Path | None:
    if isinstance(cache, bool):
        return cache_folder() if cache else None
    return Path(cache)
