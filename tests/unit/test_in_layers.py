"""Metrics of what goes on inside a trained network."""

import pytest
import torch
from torch import nn

from eqreg import C2, C4, layer_errors
from eqreg.models import ResidualNet
from eqreg.strict import equivariant
from eqreg.tasks._layers import in_layers


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ResidualNet(width=8, depth=4).eval()


def test_they_are_the_layers_errors_image_by_image(net):
    x = torch.rand(2, 1, 16, 16)
    found = in_layers(net, x, C4)
    assert set(found) == {"layers_C4", "invariant_share_C4"}
    for i in range(2):
        errors = layer_errors(net, x[i : i + 1], C4).values()
        assert float(found["layers_C4"][i]) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert 0 < float(found["invariant_share_C4"].max()) < 1


def test_copies_in_all_channels_are_seen(net):
    with torch.no_grad():
        for layer in net.body:
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(
                    layer.weight[:1].abs().mean((-2, -1), keepdim=True).expand_as(layer.weight)
                )
                layer.bias.zero_()
    found = in_layers(net, torch.rand(1, 1, 16, 16), C4)
    assert float(found["invariant_share_C4"]) == pytest.approx(1, abs=1e-5)


def test_a_strict_network_has_fields_of_its_own_group_only(net):
    x, twin = torch.rand(1, 1, 16, 16), equivariant(net, C2).eval()
    assert float(in_layers(twin, x, C2)["layers_C2"]) < 1e-10
    assert in_layers(twin, x, C4) == {}


def test_a_network_without_layers_or_fields_has_none():
    x = torch.rand(1, 1, 16, 16)
    assert in_layers(nn.Identity(), x, C4) == {}
    assert set(in_layers(nn.Conv2d(1, 1, 3, padding=1), x, C4)) == {"layers_C4"}
