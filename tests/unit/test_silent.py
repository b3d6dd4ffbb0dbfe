"""Weights without effect are found, and a run that ends with some says so."""

import json

import pytest
import torch
from torch import nn

from eqreg.experiments import comparison
from eqreg.experiments.runs import Run, train
from eqreg.experiments.silent import silent_weights
from eqreg.models import ResidualNet
from eqreg.tasks.rain import Rain
from eqreg.training import fit


def sample(generator):
    x = torch.rand(2, 1, 8, 8, generator=generator)
    return x, x / 2


def look(model):
    generator = torch.Generator().manual_seed(0)
    return silent_weights(model, sample, nn.functional.mse_loss, generator=generator)


def shut(net):
    """A ReLU after the second layer that lets nothing through."""
    with torch.no_grad():
        net.body[2].bias.fill_(-1e3)
    return net


def test_a_shut_relu_silences_what_lies_before_it_and_what_reads_it():
    torch.manual_seed(0)
    net = ResidualNet(width=4, depth=3)
    assert look(net) == []
    assert look(shut(net)) == ["body.0.weight", "body.2.weight", "body.4.weight"]
    # The last bias still learns, so the network's loss still falls.
    history = fit(net, sample, steps=30, lr=1e-2, generator=torch.Generator().manual_seed(0))
    assert history.loss[-1] < history.loss[0]
    assert look(net) == ["body.0.weight", "body.2.weight", "body.4.weight"]


def test_frozen_weights_and_unused_layers():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1))
    net.unused = nn.Linear(2, 2)
    net.forward = lambda x: net[1](net[0](x))
    net[0].weight.requires_grad_(False)
    assert look(net) == ["unused.weight"]


def test_the_network_is_left_as_it_was():
    net = ResidualNet(width=4, depth=2)
    net.body[1].eval()
    net.body[0].weight.grad = before = torch.ones_like(net.body[0].weight)
    look(net)
    assert net.training and not net.body[1].training
    assert net.body[0].weight.grad is before and net.body[2].weight.grad is None
    with torch.no_grad():
        assert look(net) == []


def test_a_run_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(
        Rain, "model", lambda self, preset: shut(ResidualNet(width=4, depth=3)), raising=True
    )
    run = Run("rain", "quick", "plain", 0, 1e-4, steps=2)
    with pytest.warns(
        UserWarning, match="plain 0 of rain: 3 weights have no effect any more, body.0"
    ):
        result = train(run, tmp_path)
    assert result["silent"] == ["body.0.weight", "body.2.weight", "body.4.weight"]
    content = comparison.collect(tmp_path, "rain", "quick")
    assert content["rows"]["plain"]["silent"] == [3]
    path = run.folder(tmp_path) / "result.json"  # as an earlier version left it
    older = {k: v for k, v in json.loads(path.read_text()).items() if k != "silent"}
    path.write_text(json.dumps(older))
    assert comparison.collect(tmp_path, "rain", "quick")["rows"]["plain"]["silent"] == [None]
