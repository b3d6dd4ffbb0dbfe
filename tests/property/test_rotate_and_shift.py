"""The law f(rotate(x, k)) = roll(rotate(f(x), k), +k) in float64, and a checker that can fail."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqreg import C4, D4, equivariance_error, layer_errors
from eqreg.strict import GroupConv2d


def p4_network(fields=3, depth=3, group=C4, kernel_size=3):
    hidden = group.field(f"{fields}r")
    layers = [GroupConv2d(group.field("1t"), hidden, kernel_size), nn.LeakyReLU()]
    for _ in range(depth - 1):
        layers += [GroupConv2d(hidden, hidden, kernel_size), nn.LeakyReLU()]
    return nn.Sequential(*layers).double()


@torch.no_grad()
def law_error(net, x, k, sign=1, fields=3):
    """Relative error of the law, with the roll written out on the (field, group) layout."""
    y = torch.rot90(net(x), k, (2, 3)).unflatten(1, (fields, 4)).roll(sign * k, 2).flatten(1, 2)
    return float((net(torch.rot90(x, k, (2, 3))) - y).norm() / y.norm())


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(5, 14),
    fields=st.integers(1, 4),
    kernel_size=st.sampled_from([1, 3, 5]),
    k=st.sampled_from([1, 3]),
)
def test_law_holds_to_rounding(seed, size, fields, kernel_size, k):
    torch.manual_seed(seed)
    net = p4_network(fields, kernel_size=kernel_size)
    x = torch.randn(2, 1, size, size, dtype=torch.float64)
    assert law_error(net, x, k, fields=fields) < 1e-12


def test_wrong_sign_is_seen_at_one_and_three_turns_only():
    torch.manual_seed(0)
    net = p4_network()
    x = torch.randn(2, 1, 12, 12, dtype=torch.float64)
    assert law_error(net, x, 1, sign=-1) > 0.3
    assert law_error(net, x, 3, sign=-1) > 0.3
    assert law_error(net, x, 2, sign=-1) < 1e-12


def test_wrong_layout_is_seen():
    torch.manual_seed(0)
    net = p4_network()
    x = torch.randn(2, 1, 12, 12, dtype=torch.float64)
    y = net(x).detach()
    swapped = torch.rot90(y, 1, (2, 3)).unflatten(1, (4, 3)).roll(1, 1).flatten(1, 2)
    assert (net(torch.rot90(x, 1, (2, 3))) - swapped).norm() / y.norm() > 0.3


@pytest.mark.parametrize("group", [C4, D4], ids=repr)
def test_checker_passes_strict_and_fails_plain_networks(group):
    torch.manual_seed(0)
    x = torch.randn(4, 1, 12, 12, dtype=torch.float64)
    strict = p4_network(2, group=group)
    plain = nn.Sequential(
        *(
            layer.to_plain() if isinstance(layer, GroupConv2d) else nn.LeakyReLU()
            for layer in strict
        )
    ).double()
    field = group.field("2r")
    assert equivariance_error(strict, x, group, field_out=field).max() < 1e-24
    assert (
        equivariance_error(plain, x, group, field_out=field).max() < 1e-12
    )  # same weights, untied
    with torch.no_grad():
        for p in plain.parameters():
            p.copy_(torch.randn_like(p))
    assert equivariance_error(plain, x, group, field_out=field).min() > 0.5
    assert min(layer_errors(plain, x, group, fields={"0": field}).values()) > 0.5


@pytest.mark.parametrize("broken", [0, 2, 4])
def test_checker_finds_the_one_broken_layer(broken):
    torch.manual_seed(0)
    net = p4_network()
    net[broken] = net[broken].to_plain().double()
    with torch.no_grad():
        net[broken].weight[0] += 0.1 * torch.randn_like(net[broken].weight[0])
    errors = layer_errors(net, torch.randn(2, 1, 12, 12, dtype=torch.float64), C4)
    assert [name for name, e in errors.items() if e > 1e-20] == [
        n for n in errors if int(n) >= broken
    ]
