"""Laws of the Reynolds projection on weights, against T_g written out with permutations and turns."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqreg import (
    C2,
    C4,
    C8,
    D4,
    EquivarianceDecay,
    act,
    equivariance_error,
    permute_channels,
    project,
)

GROUPS = st.sampled_from([C2, C4, D4])
FIELDS = st.sampled_from(["1t", "2t", "1r", "2r", "1t + 1r", "1r + 3t"])
SIZES = st.integers(1, 5)
SEEDS = st.integers(0, 2**31)


def random(*shape, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


def moved(w, g, inp, out):
    """T_g W by turning the filters and permuting columns, then rows."""
    return act(permute_channels(w, g, inp).transpose(0, 1), g, out).transpose(0, 1)


@settings(max_examples=40, deadline=None)
@given(group=GROUPS, out=FIELDS, inp=FIELDS, size=SIZES, seed=SEEDS)
def test_it_is_the_mean_of_the_moved_copies(group, out, inp, size, seed):
    out, inp = group.field(out), group.field(inp)
    w = random(out.channels, inp.channels, size, size, seed=seed)
    mean = sum(moved(w, g, inp, out) for g in group.elements) / group.order
    assert torch.allclose(project(w, inp, out), mean, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(group=GROUPS, out=FIELDS, inp=FIELDS, size=SIZES, seed=SEEDS)
def test_it_is_an_orthogonal_projection(group, out, inp, size, seed):
    out, inp = group.field(out), group.field(inp)
    shape = (out.channels, inp.channels, size, size)
    v, w = random(*shape, seed=seed), random(*shape, seed=seed + 1)
    pv, pw = project(v, inp, out), project(w, inp, out)
    assert torch.allclose(project(pw, inp, out), pw, atol=1e-14)
    assert torch.allclose((pv * w).sum(), (v * pw).sum())
    assert torch.allclose(pw.square().sum() + (w - pw).square().sum(), w.square().sum())
    assert torch.allclose(project(2 * v - w, inp, out), 2 * pv - pw, atol=1e-13)
    for g in group.elements:  # fixed points, and every copy of w has the same projection
        assert torch.allclose(moved(pw, g, inp, out), pw, atol=1e-14)
        assert torch.allclose(project(moved(w, g, inp, out), inp, out), pw, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(group=GROUPS, out=FIELDS, inp=FIELDS, size=SIZES, seed=SEEDS)
def test_distances_between_copies_sum_to_the_distance_from_the_subspace(
    group, out, inp, size, seed
):
    out, inp = group.field(out), group.field(inp)
    w = random(out.channels, inp.channels, size, size, seed=seed)
    between = sum((w - moved(w, g, inp, out)).square().sum() for g in group.elements)
    off = (w - project(w, inp, out)).square().sum()
    assert torch.allclose(between, 2 * group.order * off, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(group=GROUPS, out=FIELDS, inp=FIELDS, size=st.sampled_from([1, 3, 5]), seed=SEEDS)
def test_a_projected_layer_is_equivariant(group, out, inp, size, seed):
    out, inp = group.field(out), group.field(inp)
    layer = nn.Conv2d(inp.channels, out.channels, size, padding=size // 2).double()
    with torch.no_grad():
        w = random(out.channels, inp.channels, size, size, seed=seed)
        layer.weight.copy_(project(w, inp, out))
        layer.bias.copy_(project(random(out.channels, seed=seed + 1), None, out))
    z = random(1, inp.channels, 7, 7, seed=seed + 2)
    # every element, so for C4 also one and three turns, which see a wrong sign
    error = equivariance_error(layer, z, group, field_in=inp, field_out=out)
    assert error.max() < 1e-24


@settings(max_examples=15, deadline=None)
@given(out=FIELDS, inp=FIELDS, seed=SEEDS)
def test_single_taps_of_c8(out, inp, seed):
    out, inp = C8.field(out), C8.field(inp)
    w = project(random(out.channels, inp.channels, seed=seed), inp, out)
    z = random(inp.channels, seed=seed + 1)
    for g in C8.elements:
        z_moved, wz_moved = torch.empty_like(z), torch.empty(out.channels, dtype=z.dtype)
        z_moved[list(inp.permutation(g))] = z
        wz_moved[list(out.permutation(g))] = w @ z
        assert torch.allclose(w @ z_moved, wz_moved, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    strength=st.floats(0, 500),
    rates=st.lists(st.floats(0, 0.02), min_size=1, max_size=4),
    seed=SEEDS,
)
def test_the_decay_depends_on_the_sum_of_the_rates_alone(strength, rates, seed):
    layer = nn.Conv2d(1, 4, 3).double()
    with torch.no_grad():
        layer.weight.copy_(random(4, 1, 3, 3, seed=seed))
    w = layer.weight.detach().clone()
    goal = project(w, C4.field("1t"), C4.field("1r"))
    decay = EquivarianceDecay(layer, C4, strength)
    for rate in rates:
        decay.step(rate)
    left = math.exp(-strength * sum(rates))
    assert torch.allclose(layer.weight.detach(), goal + left * (w - goal), atol=1e-13)
