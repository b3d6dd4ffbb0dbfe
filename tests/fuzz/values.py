"""Arguments: those that fit, and those that do not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import eqreg
from eqreg import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup

GROUPS = st.sampled_from([C1, C2, C4, C8, D4, CyclicGroup(3), DihedralGroup(1), DihedralGroup(2)])
QUARTERS = st.sampled_from([C2, C4, D4, DihedralGroup(1)])
SEEDS = st.integers(0, 2**16)


def tensor(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@st.composite
def images(draw: st.DrawFn, channels: int = 1, square: bool = True, least: int = 1) -> Tensor:
    """Ordinary images, in an ordinary or less ordinary layout."""
    batch, h = draw(st.integers(1, 3)), draw(st.integers(least, least + 8))
    w = h if square else draw(st.integers(least, least + 8))
    x = tensor(draw(SEEDS), batch, channels, h, w)
    layout = draw(st.sampled_from(["usual", "channels_last", "expanded", "strided"]))
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == "expanded":
        x = x[:1].expand(batch, -1, -1, -1)
    elif layout == "strided":
        x = torch.stack([x, x], -1)[..., 0]
    return x


def _odd_tensors() -> list[Any]:
    x = tensor(0, 2, 3, 6, 6)
    return [
        x.double(),
        x.half(),
        x.bfloat16(),
        (255 * x).byte(),
        x.to(torch.int16),
        x > 0.5,
        x + 1j,
        x[:0],
        x[..., :0],
        x[..., :4],
        x[0],
        x[0, 0],
        x[0, 0, 0],
        torch.tensor(0.5),
        x[None],
        x[:, :0],
        x * math.nan,
        x.masked_fill(x > 0.9, math.inf),
        x.masked_fill(x > 0.95, math.nan),
        -x,
        x * 1e30,
        x * 0,
        x[:, :, :1, :1],
        x[:1, :1],
        x.to("meta"),
        x.to_sparse(),
        x.clone().requires_grad_(),
        x.numpy(),
        x.tolist(),
    ]


ODD_TENSORS = _odd_tensors()
ODD_NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    5,
    7,
    0.5,
    1.5,
    -0.1,
    math.nan,
    math.inf,
    -math.inf,
    1e30,
    1e-30,
    True,
    10**6,
    np.float64(0.5),
    np.int64(2),
]
ODD_OBJECTS = [
    None,
    "C4",
    "0",
    "",
    "8r",
    "3t + 8r",
    b"0",
    [],
    (),
    {},
    [1, 2],
    (1, 2),
    (3, 5),
    {"0": "1r"},
    object(),
    int,
    len,
    C4,
    C8.field("1r"),
    C4.field("1t"),
    eqreg.Element(1, 0),
    eqreg.Element(1, 1),
    nn.Conv2d(1, 4, 3),
    nn.Identity(),
    torch.Generator(),
    torch.float16,
    torch.device("cpu"),
    lambda *a, **k: None,
    1 + 1j,
]
ODD = st.one_of(
    st.sampled_from(ODD_TENSORS), st.sampled_from(ODD_NUMBERS), st.sampled_from(ODD_OBJECTS)
)
SMALL_ODD = st.one_of(
    st.sampled_from([n for n in ODD_NUMBERS if n != 10**6]),
    st.sampled_from(ODD_OBJECTS),
    st.sampled_from(ODD_TENSORS),
)


def finite(t: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(t)).all())


def close(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Equal up to rounding; NaN where the other is NaN, the same infinities."""
    a, b = (torch.as_tensor(t).detach().to(torch.complex128) for t in (a, b))
    if a.shape != b.shape:
        return False
    return bool(torch.isclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True).all())
