"""The integrations whose frameworks are among our own packages, run for real; the others are in tests/zoo."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader

from eqreg import (
    C4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    equivariance_distance,
    equivariance_error,
)
from eqreg.extras import require
from eqreg.training.integrations.optimizer import attach

X = torch.rand(6, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))


def distance(model):
    return max(equivariance_distance(model, C4).values())


def step(model, optimizer, n=1):
    for _ in range(n):
        mse_loss(model(X), X).backward()
    optimizer.step()
    optimizer.zero_grad()


def test_an_attached_decay_follows_the_steps_and_their_rate():
    ours, theirs = net(), net()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours, theirs)]
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 1, 0.5) for o in optimizers]
    decay = EquivarianceDecay(ours, C4, 2.0)
    handle = attach(EquivarianceDecay(theirs, C4, 2.0), optimizers[1])
    for _ in range(3):
        rate = optimizers[0].param_groups[0]["lr"]
        step(ours, optimizers[0], 2)  # accumulated gradients
        decay.step(rate)
        step(theirs, optimizers[1], 2)
        for s in schedulers:
            s.step()
    assert all(
        torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)
    )
    handle.remove()
    before = distance(theirs)
    step(theirs, optimizers[1])
    assert distance(theirs) > before


def test_a_step_that_the_scaler_leaves_out_decays_nothing():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attach(EquivarianceDecay(model, C4, math.inf), optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    before = copy.deepcopy(model.state_dict())
    scaler.scale(mse_loss(model(X), X) * math.inf).backward()
    scaler.step(optimizer)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(mse_loss(model(X), X)).backward()
    scaler.step(optimizer)
    assert distance(model) < 1e-12


def test_attaching_to_another_optimizer_or_to_mixed_rates():
    model, other = net(), net()
    decay = EquivarianceDecay(model, C4)
    with pytest.raises(ValueError, match="trains none of the decay's parameters"):
        attach(decay, torch.optim.SGD(other.parameters(), lr=0.1))
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.2}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    attach(decay, optimizer)
    with pytest.raises(ValueError, match=r"one learning rate .* got \[0.1, 0.2\]"):
        step(model, optimizer)


def test_a_loop_in_the_manner_of_basicsr():
    """A class with networks, optimizers and optimize_parameters, as its SRModel."""

    class Model:
        def __init__(self):
            self.net_g = net()
            self.optimizer_g = torch.optim.Adam(self.net_g.parameters(), lr=1e-2)
            self.reg = EquivarianceRegularizer(self.net_g, C4)
            attach(EquivarianceDecay(self.net_g, C4, 40), self.optimizer_g)

        def feed_data(self, data):
            self.lq, self.gt = data["lq"], data["gt"]

        def optimize_parameters(self):
            self.optimizer_g.zero_grad()
            out = self.reg(self.lq)
            self.output = out.y
            loss = mse_loss(out.y, self.gt) + mse_loss(out.y_g, out.act(self.gt))
            (loss + 1e-2 * out.penalty).backward()
            self.optimizer_g.step()
            return float(loss.detach())

    model = Model()
    before, errors = distance(model.net_g), []
    for _ in range(30):
        model.feed_data({"lq": X + 0.1, "gt": X})
        errors.append(model.optimize_parameters())
    assert errors[-1] < 0.5 * errors[0]
    assert distance(model.net_g) < 0.1 * before
    assert model.output.shape == X.shape


def test_torchmetrics():
    require("torchmetrics", extra="tasks")
    from eqreg.training.integrations.torchmetrics import EquivarianceError

    model, metric = net(), EquivarianceError(C4)
    metric.update(model, X[:4])
    metric.update(model, X[4:])
    expected = equivariance_error(model, X, C4).mean()
    assert torch.allclose(metric.compute(), expected, rtol=1e-5)
    assert torch.allclose(pickle.loads(pickle.dumps(metric)).compute(), expected, rtol=1e-5)
    assert not metric.state_dict() and not list(metric.parameters())
    metric.reset()
    metric.update(model, X[:1])
    assert torch.allclose(metric.compute(), equivariance_error(model, X[:1], C4)[0], rtol=1e-5)


class Wrapped(nn.Module):
    """As deepinv calls a reconstruction network."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, y, physics, **kwargs):
        return self.net(y)


@pytest.mark.filterwarnings("ignore")  # deepinv's own
def test_deepinv_trainer(tmp_path):
    deepinv = require("deepinv", extra="tasks")
    from eqreg.training.integrations.deepinv import EquivarianceLoss, EquivarianceMetric

    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.05))
    data = DataLoader(list(X), batch_size=3)
    errors = {}
    for weight in (0.0, 1.0):
        model = Wrapped()
        losses = [
            deepinv.loss.MCLoss(),
            deepinv.loss.EILoss(deepinv.transform.Rotate(n_trans=1, multiples=90)),
            EquivarianceLoss(C4, weight=weight),
        ]
        trainer = deepinv.Trainer(
            model, physics, torch.optim.Adam(model.parameters(), lr=1e-2), train_dataloader=data,
            online_measurements=True, epochs=20, losses=losses, metrics=[EquivarianceMetric(C4)],
            save_path=None, plot_images=False, verbose=False, show_progress_bar=False, device="cpu",
        )  # fmt: skip
        torch.manual_seed(0)
        trainer.train()
        results = trainer.test(data)
        errors[weight] = results["EquivarianceMetric"]
        with torch.no_grad():
            measured = EquivarianceMetric(C4)(x_net=X, x=X, y=X, physics=physics, model=model)
        expected = equivariance_error(model.net, X, C4)
        assert torch.allclose(measured, expected)
    assert errors[1.0] < 0.3 * errors[0.0]


@pytest.mark.parametrize("kind", ["noise", "mask", "symmetric mask", "blur"])
def test_deepinv_physics_that_does_not_commute_is_told(kind, recwarn):
    """A mask that stays while the measurement turns makes the penalty compare two different questions."""
    deepinv = require("deepinv", extra="tasks")
    from eqreg.training.integrations.deepinv import EquivarianceLoss, EquivarianceMetric

    size = X.shape[-1]
    mask = (torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) > 0.3).float()
    symmetric = torch.stack([torch.rot90(mask, k, (2, 3)) for k in range(4)]).amin(0)
    physics = {
        "noise": lambda: deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.05)),
        "mask": lambda: deepinv.physics.Inpainting((1, size, size), mask=mask[0]),
        "symmetric mask": lambda: deepinv.physics.Inpainting((1, size, size), mask=symmetric[0]),
        "blur": lambda: deepinv.physics.Blur(torch.ones(1, 1, 3, 3) / 9, padding="circular"),
    }[kind]()

    model, y, calls = Wrapped(), physics.A(X), []
    physics.A = lambda x, A=physics.A: calls.append(1) or A(x)
    recwarn.clear()
    for asked in (EquivarianceLoss(C4), EquivarianceMetric(C4)):
        for _ in range(2):  # told once
            asked(x_net=X, x=X, y=y, physics=physics, model=model)
    assert len(calls) <= 2 * 4  # asked once by each, not at every step
    told = [str(w.message) for w in recwarn if "does not commute" in str(w.message)]
    assert len(told) == (2 if kind == "mask" else 0)
    for message, name in zip(told, ("EquivarianceLoss", "EquivarianceMetric"), strict=False):
        part = (mask * X - torch.rot90(mask, 1, (2, 3)) * X).norm() / (mask * X).norm()
        assert message.startswith(f"{name}: Inpainting does not commute with the turns of C4")
        assert 0.5 * part < float(message.split(" by ")[1].split()[0]) < 2 * part


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.onnx uses what torch deprecates
def test_export_of_a_tied_network(tmp_path):
    """What is trained towards the symmetry is a plain network: it exports as one."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = net()
    EquivarianceRegularizer(model, C4)(X).penalty.backward()
    EquivarianceDecay(model, C4, math.inf).step(1.0)
    model.eval()
    with torch.no_grad():
        expected = model(X)
    program = torch.export.export(model, (X,))
    assert torch.equal(program.module()(X), expected)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (X,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    assert np.abs(found - expected.numpy()).max() <= 1e-5
    turned = torch.rot90(X, 1, (2, 3)).numpy()
    (found_g,) = session.run(None, {session.get_inputs()[0].name: turned})
    assert np.abs(found_g - np.rot90(found, 1, (2, 3))).max() <= 1e-5
