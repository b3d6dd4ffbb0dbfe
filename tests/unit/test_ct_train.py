"""``eqreg ct train``: the seed decides the weights, and a stopped or killed training goes on."""

import json

import pytest
import torch

from eqreg.data.metal import make as making
from eqreg.data.metal.protocol import Metal, Recipe
from eqreg.experiments import campaign, ct_cli, ct_train
from eqreg.experiments.cli import main
from eqreg.experiments.ct_train import train_on
from eqreg.experiments.stopping import Stopped
from eqreg.physics.ct import small_fan
from eqreg.training.checkpoint import CheckpointError, load_weights


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "set"
    recipe = Recipe(small_fan(48, views=40), metal=Metal(("clips",)))
    plan = making.Plan(("phantoms:3",), test=0.34)
    making.make(plan, root, recipe, report=lambda line: None, progress=False)
    return root


def trained(data, out, **how):
    train_on(data, out, preset="quick", **{"steps": 3, "progress": False, **how})
    return load_weights(out)[0]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_seed_decides_the_weights_whatever_was_drawn_before(data, tmp_path):
    torch.manual_seed(5)
    first = trained(data, tmp_path / "a.safetensors")
    assert torch.initial_seed() == 5, "the caller's random numbers are left alone"
    torch.rand(9)
    assert equal(trained(data, tmp_path / "b.safetensors"), first)
    tiny = {"steps": 1, "lr": 1e-30}  # the untrained weights, to rounding
    a, b = (trained(data, tmp_path / f"{s}.safetensors", seed=s, **tiny) for s in (0, 1))
    assert not equal(a, b)


def test_a_stopped_training_goes_on_to_the_same_weights(data, tmp_path, capsys, monkeypatch):
    want = trained(data, tmp_path / "want.safetensors")
    out = tmp_path / "net.safetensors"
    asked = iter([False, True])
    with pytest.raises(Stopped, match="stopped after 2 of 3 steps; call again to go on"):
        trained(data, out, stop=lambda: next(asked))
    assert not out.exists()
    with pytest.raises(CheckpointError, match="belongs to another run: .*lr was 0.001 and is now"):
        trained(data, out, lr=2e-3)
    with pytest.raises(CheckpointError, match="belongs to another run: .*seed was 0 and is now 1"):
        trained(data, out, seed=1)
    assert equal(trained(data, out), want)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.safetensors", "want.safetensors"]


def test_a_killed_training_goes_on_from_its_last_checkpoint(data, tmp_path, monkeypatch):
    monkeypatch.setattr(ct_train, "_EVERY", 1)
    want = trained(data, tmp_path / "want.safetensors")
    out = tmp_path / "net.safetensors"

    def killed(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="killed"):
        patched.setattr(ct_train, "save_weights", killed)
        trained(data, out)
    assert equal(trained(data, out), want)


def test_a_signal_stops_the_command(data, tmp_path, capsys, monkeypatch):
    class Asked:
        def __enter__(self):
            return lambda: True

        def __exit__(self, *_):
            pass

    command = ["ct", "train", str(data), "--out", str(tmp_path / "net.safetensors")]
    command += ["--preset", "quick", "--steps", "2"]
    with monkeypatch.context() as patched:
        patched.setattr(ct_cli, "Stop", Asked)
        assert main(command) == campaign.STOPPED
    assert "eqreg: stopped after 1 of 2 steps; call again to go on" in capsys.readouterr().err
    assert main(command) == 0
    about = load_weights(tmp_path / "net.safetensors")[1]
    assert about["run"]["seed"] == 0 and json.dumps(about["data"])
