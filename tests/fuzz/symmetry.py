"""Groups, fields, actions and what is measured: oracles in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import eqreg
from eqreg.soft import schedules

from .values import GROUPS, QUARTERS, SEEDS, close, images, tensor

Target = tuple[Callable[..., Any], Callable[[st.DrawFn], dict[str, Any]], Callable[..., bool]]


def moved(x: np.ndarray, g: eqreg.Element, group: Any) -> np.ndarray:
    """The picture turned by numpy, for quarter turns."""
    x = x[..., ::-1] if g.flip else x
    return np.rot90(x, 4 * g.turns // group.n, (-2, -1))


def permuted(z: np.ndarray, g: eqreg.Element, field: Any) -> np.ndarray:
    """Channels permuted by the group table, one by one."""
    group, out, start = field.group, np.empty_like(z), 0
    for count, kind in field.terms:
        for _ in range(count):
            if kind == "t":
                out[..., start, :, :] = z[..., start, :, :]
                start += 1
                continue
            for i, h in enumerate(group.elements):
                # gh, by the product of the matrices of turn and mirror
                turns = g.turns + (-h.turns if g.flip else h.turns)
                j = (g.flip ^ h.flip) * group.n + turns % group.n
                out[..., start + j, :, :] = z[..., start + i, :, :]
            start += group.order
    return out


def _draw_g(draw: st.DrawFn, group: Any) -> Any:
    return draw(st.sampled_from(group.elements) | st.integers(-9, 9))


def _is_quarter(g: eqreg.Element, group: Any) -> bool:
    return 4 * g.turns % group.n == 0


def _rotate(draw: st.DrawFn) -> dict[str, Any]:
    group = draw(GROUPS)
    return {"x": draw(images(square=False)), "g": _draw_g(draw, group), "group": group}


def _rotate_right(r: Any, x: Any, g: Any, group: Any = eqreg.C4) -> bool:
    g = group.element(g)
    if _is_quarter(g, group):
        return close(
            r,
            moved(
                x.detach().float().numpy() if x.dtype == torch.bfloat16 else x.detach().numpy(),
                g,
                group,
            ).copy(),
        )
    return r.shape == x.shape and (
        not x.numel()
        or not bool(torch.isfinite(x).all())
        or float(r.abs().max()) <= float(x.abs().max()) * 1.001
    )


def _act(draw: st.DrawFn) -> dict[str, Any]:
    group = draw(QUARTERS)
    field = group.field(draw(st.sampled_from(["1t", "2r", "1t + 1r", "1r + 2t + 1r"])))
    return {"z": draw(images(field.channels)), "g": _draw_g(draw, group), "field": field}


def _act_right(r: Any, z: Any, g: Any, field: Any) -> bool:
    g = field.group.element(g)
    values = z.detach().to(torch.complex128).numpy()
    if not _is_quarter(g, field.group):
        return r.shape == z.shape
    return close(r, moved(permuted(values, g, field), g, field.group).copy())


def _permute_right(r: Any, z: Any, g: Any, field: Any) -> bool:
    return close(
        r, permuted(z.detach().to(torch.complex128).numpy(), field.group.element(g), field)
    )


def _mask(draw: st.DrawFn) -> dict[str, Any]:
    group = draw(GROUPS)
    return {
        "size": draw(st.tuples(st.integers(1, 9), st.integers(1, 9))),
        "g": _draw_g(draw, group),
        "group": group,
        "margin": draw(st.sampled_from([0, 0.5, 1, 2])),
    }


def _mask_right(r: Any, size: Any, g: Any, group: Any = eqreg.C4, margin: float = 0.0) -> bool:
    g, (h, w) = group.element(g), size
    if _is_quarter(g, group):
        v, u = np.abs(np.arange(h) - (h - 1) / 2)[:, None], np.abs(np.arange(w) - (w - 1) / 2)
        inside = (v <= (h - 1) / 2 - margin + 1e-9) & (u <= (w - 1) / 2 - margin + 1e-9)
        return close(r, moved(inside, g, group).copy())
    ones = eqreg.rotate(torch.ones(h, w, dtype=torch.float64), g, group)
    return tuple(r.shape) == (h, w) and bool((ones[r] > 1 - 1e-6).all())


def _spec(draw: st.DrawFn) -> dict[str, Any]:
    text = st.sampled_from(
        ["3t + 8r", "1r", "0t", "2t+2t", "t", "1x", "1 r", " 4r ", "-1t", "1t++1r", "1.5r", "٣t"]
    )
    return {"group": draw(GROUPS), "spec": draw(text)}


def _spec_right(r: Any, group: Any, spec: Any) -> bool:
    counts = [(int(p.strip()[:-1]), p.strip()[-1]) for p in spec.split("+")]
    order = len(group.elements)
    return r.channels == sum(n * (order if k == "r" else 1) for n, k in counts) and sorted(
        r.permutation(1)
    ) == list(range(r.channels))


def _group_right(r: Any, n: Any, g: Any, h: Any) -> bool:
    def matrix(e: Any) -> np.ndarray:
        angle = 2 * math.pi * e[0] / n
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return turn @ (np.diag([-1, 1]) if e[1] else np.eye(2))

    g, h = ((e, 0) if isinstance(e, int | np.integer) else e for e in (g, h))
    return bool(np.allclose(matrix(r), matrix(g) @ matrix(h)))


def _compose(n: Any, g: Any, h: Any) -> Any:
    return eqreg.DihedralGroup(n).compose(g, h)


RAMP = torch.linspace(0.5, 1.5, 9)


def _ramped(x: Any) -> Any:
    return x * RAMP[: x.shape[-1]].to(x.device)


def _error(draw: st.DrawFn) -> dict[str, Any]:
    return {"f": _ramped, "x": draw(images(draw(st.integers(1, 3)))), "group": draw(QUARTERS)}


def _error_right(
    r: Any,
    f: Any,
    x: Any,
    group: Any,
    elements: Any = None,
    margin: float = 0,
    field_in: Any = None,
    field_out: Any = None,
) -> bool:
    def g_of(t: Any, g: Any, field: Any) -> np.ndarray:
        t = t.detach().to(torch.complex128).numpy()
        return moved(permuted(t, g, field) if field else t, g, group)

    chosen = group.elements[1:] if elements is None else [group.element(g) for g in elements]
    if not all(_is_quarter(g, group) for g in chosen):
        return r.shape == (len(x),)
    errors = []
    with torch.no_grad():
        y = f(x)
        for g in chosen:
            turned = torch.from_numpy(g_of(x, g, field_in).copy())
            z = f(turned.to(x.dtype)).to(torch.complex128).numpy()
            expected = g_of(y, g, field_out) if y.ndim == 4 else y.to(torch.complex128).numpy()
            d = (np.abs(z - expected) ** 2).reshape(len(x), -1).sum(1)
            errors.append(
                d
                / np.maximum(
                    (np.abs(y.to(torch.complex128).numpy()) ** 2).reshape(len(x), -1).sum(1), 1e-38
                )
            )
    low = x.dtype in (torch.float16, torch.bfloat16)
    return close(r, np.mean(errors, 0), 0.05 if low else 1e-3)


def _regularize(model: Any, x: Any, group: Any, g: Any, **options: Any) -> Any:
    return eqreg.EquivarianceRegularizer(model, group, **options)(x, g=g)


def _regularizer(draw: st.DrawFn) -> dict[str, Any]:
    torch.manual_seed(draw(SEEDS))
    group = draw(QUARTERS)
    return {
        "model": nn.Conv2d(1, 2 * group.order, 3, padding=1),
        "x": draw(images(least=3)),
        "group": group,
        "g": draw(st.sampled_from(group.elements)),
        "fraction": draw(st.sampled_from([1.0, 0.5])),
        "every": draw(st.integers(1, 2)),
        "norm": draw(st.sampled_from(["relative", "scale-free", "reference"])),
    }


def _regularizer_right(
    r: Any,
    model: Any,
    x: Any,
    group: Any,
    g: Any,
    fraction: float = 1.0,
    every: int = 1,
    norm: str = "relative",
    **_: Any,
) -> bool:
    if not isinstance(model, nn.Conv2d):
        return bool(r.penalty.isfinite())
    g = group.element(g) if g is not None else r.g
    n = math.ceil(fraction * len(x))
    with torch.no_grad():
        z = model(x).double().numpy()[:n]
        turned = torch.from_numpy(moved(x.detach().numpy(), g, group)[:n].copy())
        z_g = model(turned).double().numpy()
    expected = moved(permuted(z, g, r_field(model, group)), g, group)
    if norm == "reference":
        return close(r.penalty, every * np.sqrt(((expected - z_g) ** 2).sum()), 1e-3)
    return close(r.penalty, every * ((expected - z_g) ** 2).mean() / (expected**2).mean(), 1e-3)


def r_field(model: nn.Conv2d, group: Any) -> Any:
    return group.field(f"{model.out_channels // group.order}r")


def _schedule(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(st.integers(1, 50))
    return {"step": draw(st.integers(0, steps)), "steps": steps}


def _warm_up_right(r: Any, step: Any, steps: Any, share: float = 0.1) -> bool:
    return close(r, min(1.0, step / (share * steps)) if share > 0 else 1.0)


SYMMETRY: dict[str, Target] = {
    "rotate": (eqreg.rotate, _rotate, _rotate_right),
    "act": (eqreg.act, _act, _act_right),
    "permute_channels": (eqreg.permute_channels, _act, _permute_right),
    "valid_mask": (eqreg.valid_mask, _mask, _mask_right),
    "FieldType": (eqreg.FieldType, _spec, _spec_right),
    "compose": (
        _compose,
        lambda draw: {
            "n": draw(st.integers(1, 9)),
            "g": draw(st.integers(-9, 9)),
            "h": (draw(st.integers(0, 9)), draw(st.integers(0, 1))),
        },
        _group_right,
    ),
    "equivariance_error": (eqreg.equivariance_error, _error, _error_right),
    "EquivarianceRegularizer": (_regularize, _regularizer, _regularizer_right),
    "constant": (schedules.constant, _schedule, lambda r, step, steps: r == 1.0),
    "decreasing": (
        schedules.decreasing,
        _schedule,
        lambda r, step, steps: close(r, math.cos(math.pi * step / steps / 2) ** 2),
    ),
    "warm_up": (schedules.warm_up, _schedule, _warm_up_right),
    "lie_error": (
        eqreg.lie_error,
        lambda draw: {
            "f": nn.Identity(),
            "x": draw(images(least=3)),
            "margin": draw(st.integers(0, 1)),
        },
        lambda r, f, x, margin=0, about="center": (
            not isinstance(f, nn.Identity) or close(r, torch.zeros(len(x)))
        ),
    ),
}
__all__ = ["SYMMETRY", "tensor"]
