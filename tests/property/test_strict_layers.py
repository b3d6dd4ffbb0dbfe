"""Strict layers commute with every element; a plain convolution of the same shape does not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from eqreg import C2, C4, C8, D4, equivariance_error
from eqreg.strict import FourierConv2d, GroupConv2d, to_plain

SPECS = st.sampled_from(["1t", "3t", "1r", "2t + 1r", "2r", "1r + 1t + 1r"])


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    group=st.sampled_from([C2, C4, D4]),
    kind=st.sampled_from([GroupConv2d, FourierConv2d]),
    specs=st.tuples(SPECS, SPECS, SPECS),
    kernel_size=st.sampled_from([1, 3, 5]),
    size=st.integers(5, 12),
)
def test_error_is_rounding(seed, group, kind, specs, kernel_size, size):
    torch.manual_seed(seed)
    fields = [group.field(spec) for spec in specs]
    net = nn.Sequential(
        kind(fields[0], fields[1], kernel_size), nn.Tanh(), kind(fields[1], fields[2], kernel_size)
    ).double()
    x = torch.randn(2, fields[0].channels, size, size, dtype=torch.float64)
    types = {"field_in": fields[0], "field_out": fields[2]}
    plain = to_plain(net)
    assert equivariance_error(net, x, group, **types).max() < 1e-24
    assert equivariance_error(plain, x, group, **types).max() < 1e-24
    assert equivariance_error(net.float(), x.float(), group, **types).max() < 1e-10


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), group=st.sampled_from([C2, C4, D4]))
def test_the_same_check_fails_for_free_weights(seed, group):
    torch.manual_seed(seed)
    layer = nn.Conv2d(1, 2 * group.order, 3, padding=1).double()
    x = torch.randn(2, 1, 10, 10, dtype=torch.float64)
    assert equivariance_error(layer, x, group, field_out=group.field("2r")).min() > 0.1


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_c8_is_exact_at_quarter_turns_and_not_between(kernel_size):
    torch.manual_seed(0)
    field = C8.field("2r")
    layer = FourierConv2d(C8.field("1t"), field, kernel_size).double()
    x = torch.randn(2, 1, 16, 16, dtype=torch.float64)

    def error(k):
        return equivariance_error(layer, x, C8, field_out=field, elements=[k], margin=4)

    assert max(error(k).max() for k in (2, 4, 6)) < 1e-24
    assert min(error(k).min() for k in (1, 3, 5, 7)) > 1e-6
