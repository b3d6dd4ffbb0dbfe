"""Layers of the library escnn as ours, and back. The only file that imports escnn.

escnn solves the kernel constraint for every group and every representation; here it serves our field
types, on plain tensors.

>>> from eqreg import C8
>>> from eqreg.strict.escnn import EscnnConv2d                         # doctest: +SKIP
>>> EscnnConv2d(C8.field("1t"), C8.field("2r"), 5).to_plain()          # doctest: +SKIP
Conv2d(1, 16, kernel_size=(5, 5), stride=(1, 1), padding=(2, 2))
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.util
import io
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import outside_autocast
from ..files import cache_folder, private_folder
from ..symmetry.fields import FieldType
from ..symmetry.groups import Group
from ..typed import typed
from ._base import check_arguments, check_input, plain_conv

_WIGNER = "lie_learn.representations.SO3.wigner_d"
_INSTALL = (
    "this part of eqreg needs escnn. It asks for a Fortran compiler and an old numpy, of which nothing "
    "here makes use: pip install scipy joblib, then pip install --no-deps escnn==1.0.11"
)


@cache
def load() -> ModuleType:
    """The package escnn, imported so that its planar layers work beside newer libraries.

    Three of its habits are set aside:

    * It imports compiled code for rotations in space (lie_learn), whose wheel crashes on numpy 2.
      Where it does not load, an empty module stands in for it: nothing in the plane calls it.
    * It computes null spaces by ``sklearn.utils.extmath.randomized_svd``, which refuses
      ``np.matrix`` since scikit-learn 1.7 and draws random numbers. Without it, escnn takes scipy's
      SVD.
    * It keeps intermediate results as pickles inside its own package, which may be read-only, or
      writable for others, whose pickles would run here. They go to ``escnn`` in the cache folder, if that
      is the user's alone, or else to a temporary one; computing them anew takes up to 5 s. An escnn that
      was imported before keeps its habit.

    Raises:
        ImportError: if escnn is not installed, with the lines that install it.
    """
    if importlib.util.find_spec("escnn") is None:
        raise ImportError(_INSTALL)
    with warnings.catch_warnings():
        # It warns that py3nj is missing and, being older than this Python, of its own syntax.
        warnings.simplefilter("ignore")
        _stand_in_for_lie_learn()
        try:
            with _pickles_in(_private()):
                package = importlib.import_module("escnn")
                importlib.import_module("escnn.nn")
        except ImportError as error:
            raise ImportError(
                f"escnn is installed but does not load ({error}); {_INSTALL}"
            ) from error
    vars(importlib.import_module("escnn.group._numerical"))["randomized_svd"] = None
    return package


@typed
def gspace(group: Group) -> Any:
    """The gspace of escnn, a group acting on the plane, that is ours."""
    spaces = load().gspaces
    if group.n == 1:
        return spaces.flip2dOnR2() if group.has_flips else spaces.trivialOnR2()
    return spaces.flipRot2dOnR2(group.n) if group.has_flips else spaces.rot2dOnR2(group.n)


@typed
def to_escnn(field: FieldType) -> Any:
    """Our field type as one of escnn's: same channels in the same order."""
    space = gspace(field.group)
    kinds = {"t": space.trivial_repr, "r": space.regular_repr}
    fields = [kinds[kind] for count, kind in field.terms for _ in range(count)]
    return load().nn.FieldType(space, fields)


@typed
def from_escnn(field_type: Any, group: Group) -> FieldType:
    """A field type of escnn as ours.

    Args:
        field_type: an ``escnn.nn.FieldType`` of trivial and regular fields.
        group: our name of its group.

    Raises:
        ValueError: if it belongs to another group, or holds other fields: we have no word for those.
    """
    space = gspace(group)
    if field_type.gspace != space:
        raise ValueError(f"expected fields of {group} ({space}), got fields of {field_type.gspace}")
    letters = {space.trivial_repr: "t", space.regular_repr: "r"}
    unknown = sorted({r.name for r in field_type.representations} - {r.name for r in letters})
    if unknown:
        raise ValueError(f"expected trivial and regular fields, got {', '.join(unknown)}")
    return FieldType(group, " + ".join(f"1{letters[r]}" for r in field_type.representations))


class EscnnConv2d(nn.Module):
    """An ``escnn.nn.R2Conv`` on plain tensors, with the arguments of our own layers.

    Building one solves the kernel constraint and takes from milliseconds to seconds. In training mode
    every call expands the kernel from escnn's basis; ``to_plain()`` stops that. The basis is this layer's
    own: escnn shares one between all layers of equal types in a process, so that ``.double()`` of one
    breaks the others.

    Args:
        in_field: type of the input, of any C_n or D_n.
        out_field: type of the output, same group.
        kernel_size: K, side of the square kernel in pixels.
        stride: exact only if it divides H + 2P - K, and only for the exact elements.
        padding: zeros on every side; ``(K - 1) // 2`` if not given.
        bias: add a learned bias.
        **options: passed to R2Conv, for example ``frequencies_cutoff``, or ``recompute=False`` for escnn's
            shared basis.

    Raises:
        ImportError: without escnn.
        ValueError: if the groups differ, or a size is out of range.

    Reference: Weiler & Cesa, General E(2)-Equivariant Steerable CNNs, NeurIPS 2019.
    Taught in: notebooks/05.
    """

    @typed
    def __init__(
        self,
        in_field: FieldType,
        out_field: FieldType,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = True,
        **options: Any,
    ) -> None:
        check_arguments(in_field, out_field, kernel_size, stride, padding)
        super().__init__()
        self.in_field, self.out_field = in_field, out_field
        padding = (kernel_size - 1) // 2 if padding is None else padding
        types = to_escnn(in_field), to_escnn(out_field)
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)  # escnn mixes types otherwise
        try:
            self.conv = load().nn.R2Conv(
                *types,
                kernel_size,
                padding=padding,
                stride=stride,
                bias=bias,
                **{"recompute": True, **options},
            )
        finally:
            torch.set_default_dtype(default)
        self.to(default)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the kernel that escnn expands."""
        check_input(x, self.in_field)
        result: Tensor = self.conv(self.conv.in_type(x)).tensor
        return result

    def train(self, mode: bool = True) -> EscnnConv2d:
        """Set the mode of this layer, and keep escnn's own in training mode.

        In evaluation mode escnn's layer changes the keys of its state_dict and cannot be copied.
        """
        self.training = mode
        return self

    def reset_parameters(self) -> None:
        """Draw the weights as escnn does (generalised He initialisation), and no bias."""
        init = importlib.import_module("escnn.nn.init")
        init.generalized_he_init(self.conv.weights.data, self.conv.basisexpansion)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def to_plain(self) -> nn.Conv2d:
        """The same map as an ordinary ``nn.Conv2d``, at the cost of one."""
        # Not conv.export(), which would leave escnn's layer in evaluation mode.
        with outside_autocast(self.conv.weights):  # its products would be in half precision
            weight, bias = self.conv.expand_parameters()
        return plain_conv(weight, bias, self.conv.stride, self.conv.padding).train(self.training)


def _private() -> Path:
    folder = cache_folder() / "escnn"
    if private_folder(folder):
        return folder
    temporary = tempfile.TemporaryDirectory(prefix="eqreg-escnn-")
    atexit.register(temporary.cleanup)
    return Path(temporary.name)


@contextlib.contextmanager
def _pickles_in(folder: Path) -> Iterator[None]:
    """While this is open, what asks joblib for a cache on disk gets one in ``folder``."""
    joblib: Any = importlib.import_module("joblib")
    usual = joblib.Memory
    joblib.Memory = lambda location=None, **options: usual(folder, **options)
    try:
        yield
    finally:
        joblib.Memory = usual


def _stand_in_for_lie_learn() -> None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # numpy 2 prints a page about the crash
            importlib.import_module(_WIGNER)
    except Exception:
        parts = _WIGNER.split(".")
        for i in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:i]), ModuleType(parts[i - 1]))
        sys.modules[_WIGNER].wigner_D_matrix = _no_wigner  # type: ignore[attr-defined]


def _no_wigner(*args: Any, **kwargs: Any) -> Any:
    raise ImportError("rotations in space need lie_learn, which does not load beside this numpy")
