"""Weights, strict layers, models and settings: oracles by the definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import eqreg
from eqreg import models, strict
from eqreg.training.settings import Keeping, Optimisation, Symmetry

from .symmetry import Target, moved, permuted
from .values import QUARTERS, SEEDS, close, images, tensor


def _n(t: Any) -> np.ndarray:
    return t.detach().double().numpy()


def _mean(w: np.ndarray, in_field: Any, out_field: Any) -> np.ndarray:
    """The mean over the group of moved copies of a kernel (O, I, K, K)."""
    copies = []
    for g in out_field.group.elements:
        moved_taps = moved(w, g, out_field.group)
        by_out = permuted(moved_taps.transpose(1, 0, 2, 3), g, out_field).transpose(1, 0, 2, 3)
        copies.append(permuted(by_out, g, in_field))
    return np.mean(copies, 0)


def _project(draw: st.DrawFn) -> dict[str, Any]:
    group = draw(QUARTERS)
    a, b = (group.field(draw(st.sampled_from(["1t", "1r", "1r + 2t"]))) for _ in range(2))
    k = draw(st.integers(1, 3))
    return {
        "weight": tensor(draw(SEEDS), b.channels, a.channels, k, k),
        "in_field": a,
        "out_field": b,
        "groups": 1,
    }


def _project_right(r: Any, weight: Any, in_field: Any, out_field: Any, groups: int = 1) -> bool:
    if groups != 1:
        return r.shape == weight.shape
    if in_field is None:
        values = np.broadcast_to(_n(weight)[:, None, None, None], (len(weight), 1, 1, 1))
        return close(r, _mean(values, out_field.group.field("1t"), out_field).ravel())
    w = _n(weight)
    w = w if w.ndim == 4 else w[..., None, None]
    return close(
        r,
        _mean(w, in_field, out_field).reshape(weight.shape),
        0.01 if weight.dtype.itemsize == 2 else 1e-4,
    )


def _decayed(seed: int, group: Any, strength: Any, lr: Any, dtype: Any) -> Any:
    torch.manual_seed(seed)
    conv = nn.Conv2d(1, 2 * group.order, 3, bias=False).to(dtype)
    before = conv.weight.detach().clone()
    eqreg.EquivarianceDecay(conv, group, strength, layers="(model)").step(lr)
    return before, conv.weight


def _decay(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "seed": draw(SEEDS),
        "group": draw(QUARTERS),
        "strength": draw(st.sampled_from([0.0, 1, 40.0, math.inf])),
        "lr": draw(st.sampled_from([0, 1e-3, 0.1])),
        "dtype": draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16])),
    }


def _decay_right(r: Any, seed: int, group: Any, strength: Any, lr: Any, dtype: Any) -> bool:
    dtype, (before, after) = r[0].dtype, map(_n, r)
    strength = strength.get("(model)", 0.0) if isinstance(strength, dict) else strength
    share = 0.0 if lr == 0 else 1 - math.exp(-float(strength) * float(lr))
    mean = _mean(before, group.field("1t"), group.field("2r"))
    return close(
        after,
        before + share * (mean - before),
        0.01 if dtype in (torch.float16, torch.bfloat16) else 1e-5,
    )


def _conv(draw: st.DrawFn, groups: Any = QUARTERS) -> dict[str, Any]:
    group = draw(groups)
    return {
        "in_field": group.field("1t + 1r"),
        "out_field": group.field("1r + 1t"),
        "kernel_size": draw(st.sampled_from([1, 3, 5])),
        "stride": 1,
        "padding": draw(st.sampled_from([None, 0, 1])),
        "bias": draw(st.booleans()),
    }


def _conv_right(
    r: Any,
    in_field: Any,
    out_field: Any,
    kernel_size: Any,
    stride: Any = 1,
    padding: Any = None,
    bias: Any = True,
) -> bool:
    group = in_field.group
    x = tensor(0, 1, in_field.channels, 9, 9)
    with torch.no_grad():
        y = r(x)
        same = close(r.to_plain()(x), y)
        if stride != 1:
            return same
        laws = []
        for g in group.elements:
            turned = r(torch.from_numpy(moved(permuted(x.numpy(), g, in_field), g, group).copy()))
            laws.append(
                close(turned, moved(permuted(y.numpy(), g, out_field), g, group).copy(), 1e-3)
            )
    return same and all(laws)


def _distance_right(r: Any, model: Any, group: Any) -> bool:
    if not isinstance(model, nn.Sequential):
        return all(0 <= v <= 1 for v in r.values())
    w = _n(model[0].weight)
    mean = _mean(w, group.field("1t"), group.field(f"{len(w) // group.order}r"))
    b = _n(model[0].bias)
    field = group.field(f"{len(w) // group.order}r")
    flat = _mean(b[:, None, None, None], group.field("1t"), field).ravel()
    return close(
        r["0"], (((w - mean) ** 2).sum() + ((b - flat) ** 2).sum()) / ((w**2).sum() + (b**2).sum())
    )


def _net(draw: st.DrawFn) -> dict[str, Any]:
    torch.manual_seed(draw(SEEDS))
    group = draw(QUARTERS)
    width = 2 * group.order
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1)
    )
    return {"model": net, "group": group}


def _started_right(r: Any, model: Any, group: Any) -> bool:
    return all(v < 1e-5 for v in eqreg.equivariance_distance(r, group).values())


def _suggest(draw: st.DrawFn) -> dict[str, Any]:
    w = tensor(draw(SEEDS), 2, 1, 1, 6, 6)
    x = tensor(draw(SEEDS), draw(st.integers(1, 4)), 1, 6, 6)
    return {
        "pilots": [lambda x, w=w[0]: w * x, lambda x, w=w[1]: w * x],
        "x": x,
        "group": draw(QUARTERS),
        "share": draw(st.sampled_from([0.5, 1])),
    }


def _suggest_right(r: Any, pilots: Any, x: Any, group: Any, share: Any = 0.5) -> bool:
    d = []
    for f in pilots:
        x = x.float()
        y = f(x)
        d.append(
            np.stack(
                [
                    _n(f(torch.from_numpy(moved(x.detach().float().numpy(), g, group).copy())))
                    - moved(_n(y), g, group)
                    for g in group.elements[1:]
                ]
            )
        )
    return close(r.asymmetry, np.mean([(e**2).mean() for e in d]), 2e-2) and 0 <= r.shrink <= 1


def _made(kind: Any, sizes: Any, x: Any) -> Any:
    return kind(**sizes)(x)


def _model(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from([models.ResidualNet, models.UNet, models.Classifier]))
    sizes = {"channels": draw(st.integers(1, 3)), "width": draw(st.integers(1, 5))}
    key = draw(
        st.sampled_from(
            ["channels", "width", "kernel_size", "depth" if kind is not models.UNet else "levels"]
        )
    )
    if draw(st.booleans()):
        sizes[key] = draw(st.sampled_from([0, -1, 1, 2, 3, 1.5, "3", None, True, math.nan, [3]]))
    return {
        "kind": kind,
        "sizes": sizes,
        "x": draw(
            images(
                sizes["channels"]
                if isinstance(sizes["channels"], int) and 0 < sizes["channels"] < 4
                else 1,
                least=8,
            )
        ),
    }


def _model_right(r: Any, kind: Any, sizes: Any, x: Any) -> bool:
    return r.shape == (len(x), 10) if kind is models.Classifier else r.shape == x.shape


def _optimisation(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "warmup": draw(st.integers(0, 50)),
        "clip": draw(st.sampled_from([0.1, 1.0])),
        "accumulate": draw(st.integers(1, 4)),
    }


NETWORKS: dict[str, Target] = {
    "project": (eqreg.project, _project, _project_right),
    "EquivarianceDecay": (_decayed, _decay, _decay_right),
    "equivariance_distance": (eqreg.equivariance_distance, _net, _distance_right),
    "equivariant_init_": (eqreg.equivariant_init_, _net, _started_right),
    "ProjectionPenalty": (
        lambda model, group: eqreg.ProjectionPenalty(model, group)(),
        _net,
        lambda r, model, group: 0 <= float(r) <= 2 * group.order / (group.order - 1) + 1e-4,
    ),
    "suggest_strength": (eqreg.suggest_strength, _suggest, _suggest_right),
    "AgreementStrength": (
        lambda kappa, rate, bounds: eqreg.AgreementStrength(
            eqreg.EquivarianceDecay(nn.Conv2d(1, 4, 3), eqreg.C4, layers="(model)"),
            kappa=kappa,
            rate=rate,
            bounds=bounds,
        ),
        lambda draw: {"kappa": 0.75, "rate": 0.05, "bounds": (0.5, 2000.0)},
        lambda r, kappa, rate, bounds: (
            0 < r.kappa <= 1 and r.rate > 0 and 0 < r.bounds[0] <= r.bounds[1] < math.inf
        ),
    ),
    "GroupConv2d": (strict.GroupConv2d, _conv, _conv_right),
    "FourierConv2d": (strict.FourierConv2d, _conv, _conv_right),
    "equivariant": (
        strict.equivariant,
        lambda draw: {**_net(draw), "match": draw(st.sampled_from(["width", "parameters"]))},
        lambda r, model, group, match="width": (
            float(eqreg.equivariance_error(r, tensor(0, 1, 1, 8, 8), group).max()) < 1e-6
        ),
    ),
    "to_plain": (
        strict.to_plain,
        lambda draw: {"module": strict.equivariant(**_net(draw))},
        lambda r, module: isinstance(r, nn.Module),
    ),
    "models": (_made, _model, _model_right),
    "Optimisation": (
        Optimisation,
        _optimisation,
        lambda r, **a: 0 <= r.rate(0, 10) <= 1 and r.accumulate >= 1,
    ),
    "Symmetry": (
        Symmetry,
        lambda draw: {"augment": draw(QUARTERS), "lam": 0.0},
        lambda r, **a: r.lam == 0.0,
    ),
    "Keeping": (
        Keeping,
        lambda draw: {"checkpoint": None, "every": draw(st.integers(1, 9))},
        lambda r, **a: r.every >= 1,
    ),
    "layer_errors": (
        eqreg.layer_errors,
        lambda draw: {**_net(draw), "x": draw(images(least=3))},
        lambda r, model, x, group: (
            all(0 <= v for v in r.values()) or not bool(torch.isfinite(x).all())
        ),
    ),
}
