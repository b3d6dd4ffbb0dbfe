"""Several processes, half precision, accumulation, layouts, compilation: the same training."""

import os
import socket
import time

import pytest
import torch
import torch.multiprocessing as mp
from flat import flat
from torch import nn
from torch.utils.checkpoint import checkpoint

from eqreg import C4, EquivarianceDecay, EquivarianceRegularizer
from eqreg.models import ResidualNet
from eqreg.training import fit
from eqreg.training.scale import make_fabric

CPU = torch.device("cpu")
CLEAN = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
NOISY = CLEAN + 0.3 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))
BATCH = 4
METHODS = {
    "plain": {},
    "augmentation": {"augment": C4},
    "EQ-Reg": {"lam": 0.1},
    "EQ-Reg, half of the batch": {"lam": 0.1, "fraction": 0.5},
    "decay": {"strength": 100.0},
    "accumulated": {"accumulate": 2},
}


def batch(generator):
    i = torch.randint(8, (BATCH,), generator=generator)
    return NOISY[i], CLEAN[i]


def trained(fabric=None, steps=5, wrap=lambda model: model, lam=None, strength=None, **settings):
    """Weights, the gradient of the first step, and the history."""
    torch.manual_seed(0)
    core = ResidualNet(width=8, depth=3)
    model = wrap(core)
    if fabric is not None:
        model = fabric.setup_module(model)
    if lam is not None:
        settings["lam"] = lam
        settings["regularizer"] = EquivarianceRegularizer(
            model, C4, generator=torch.Generator().manual_seed(2),
            fraction=settings.pop("fraction", 1.0), every=settings.pop("every", 1),
        )  # fmt: skip
    if strength is not None:
        settings["decay"] = EquivarianceDecay(model, C4, strength)
    first = []

    def on_step(step, history):
        if step == 1:
            first.append(torch.cat([p.grad.flatten() for p in core.parameters()]))

    history = fit(
        model, settings.pop("sample", batch), steps=steps, lr=2e-3, fabric=fabric,
        generator=torch.Generator().manual_seed(3), on_step=on_step, **flat(clip=1e9, **settings),
    )  # fmt: skip
    weights = torch.cat([p.detach().flatten() for p in core.parameters()])
    return weights, first[0], history


def apart(a, b):
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


# ---- several processes


def _process(rank, port, folder):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
        "GROUP_RANK": "0",
    }  # fmt: skip
    torch.set_num_threads(1)
    fabric = make_fabric(CPU)
    assert (fabric.global_rank, fabric.world_size) == (rank, 2)
    found = {name: trained(fabric, **settings) for name, settings in METHODS.items()}
    refused = None
    try:
        trained(fabric, sample=lambda g: (NOISY[:3], CLEAN[:3]))
    except ValueError as error:
        refused = str(error)
    found = {name: (w, g, h.loss, h.images) for name, (w, g, h) in found.items()}
    answers = iter([False, rank == 1])  # only the second process is told to stop
    told = trained(fabric, steps=30, stop=lambda: next(answers))[2]
    stopped = len(told.loss), told.finished
    torch.save((found, refused, stopped), folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each of two processes found, why an odd batch was refused, and where they stopped."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Fabric and torch take seconds to import: once in the server, from which both are forked.
    mp.get_context("forkserver").set_forkserver_preload(["lightning_fabric", "eqreg.training"])
    mp.start_processes(_process, args=(port, folder), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_as_one(processes, method):
    weights, gradient, _ = trained(**METHODS[method])
    assert gradient.abs().max() > 1e-2
    for found, _, _ in processes:
        assert apart(found[method][1], gradient) < 1e-6
        assert (found[method][0] - weights).abs().max() < 1e-6


def test_every_process_knows_the_loss_and_the_cost_of_the_whole_batch(processes):
    _, _, history = trained(**METHODS["EQ-Reg"])
    for found, _, _ in processes:
        _, _, loss, images = found["EQ-Reg"]
        assert loss == pytest.approx(history.loss, rel=1e-5)
        assert images == history.images == 5 * 2 * BATCH


def test_processes_stop_together(processes):
    assert [stopped for _, _, stopped in processes] == [(11, False)] * 2


def test_a_batch_that_cannot_be_shared_is_refused(processes):
    assert processes[1][1] == "fit: 2 processes need a batch that 2 divides, got 3 images"


# ---- half precision


@pytest.fixture
def fabric_of():
    """A Fabric of one process on the CPU; float16 is there only if it is asked for by hand."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    def make(precision):
        how = (
            {"plugins": MixedPrecision("16-mixed", "cpu")}
            if precision == "16-mixed"
            else {"precision": "32-true" if precision == "32" else precision}
        )
        fabric = Fabric(accelerator="cpu", devices=1, **how)
        fabric.launch()
        return fabric

    return make


def test_bfloat16_trains_nearly_alike(fabric_of):
    weights, gradient, history = trained(fabric_of("bf16-mixed"), lam=0.1)
    expected = trained(lam=0.1)
    assert weights.dtype == torch.float32  # parameters and their updates keep all bits
    assert torch.cosine_similarity(gradient, expected[1], dim=0) > 0.995
    # bfloat16 has 8 significant bits, 2 ** -9 is its largest relative rounding error.
    assert history.loss == pytest.approx(expected[2].loss, rel=8 * 2**-9)
    assert history.penalty == pytest.approx(expected[2].penalty, rel=8 * 2**-9)


def test_float16_is_scaled_and_unscaled(fabric_of):
    fabric = fabric_of("16-mixed")
    fabric.strategy.precision.scaler._init_scale = 2.0**10
    weights, gradient, history = trained(fabric, lam=0.1)
    expected = trained(lam=0.1)
    assert fabric.strategy.precision.scaler.get_scale() == 2.0**10  # nothing overflowed
    assert torch.cosine_similarity(gradient, expected[1], dim=0) > 0.9999
    # 11 significant bits
    assert history.loss == pytest.approx(expected[2].loss, rel=8 * 2**-12)
    assert history.penalty == pytest.approx(expected[2].penalty, rel=8 * 2**-12)
    assert (weights - expected[0]).abs().max() < 5 * 2e-3  # five steps of Adam, whatever the signs


def test_an_overflow_skips_the_step_and_halves_the_scale(fabric_of):
    fabric = fabric_of("16-mixed")
    fabric.strategy.precision.scaler._init_scale = 2.0**40  # no float16 gradient survives this
    start, _, _ = trained(steps=1, fabric=fabric_of("32"), lam=0.0)
    weights, _, history = trained(fabric, steps=1, lam=0.0)
    torch.manual_seed(0)
    first = torch.cat([p.detach().flatten() for p in ResidualNet(width=8, depth=3).parameters()])
    assert torch.equal(weights, first) and not torch.equal(start, first)
    assert fabric.strategy.precision.scaler.get_scale() == 2.0**39
    assert len(history.loss) == 1


def test_float16_runs_resume_with_their_scale(fabric_of, tmp_path):
    whole, _, _ = trained(fabric_of("16-mixed"), steps=6, lam=0.1)
    asked = iter([False, False, True])
    here = {"checkpoint": tmp_path / "c", "lam": 0.1, "steps": 6}
    _, _, history = trained(fabric_of("16-mixed"), stop=lambda: next(asked), **here)
    assert not history.finished and len(history.loss) == 3
    fabric = fabric_of("16-mixed")
    torch.manual_seed(0)
    model = fabric.setup_module(ResidualNet(width=8, depth=3))
    regularizer = EquivarianceRegularizer(model, C4, generator=torch.Generator())
    fit(
        model, batch, steps=6, lr=2e-3, fabric=fabric, generator=torch.Generator(),
        **flat(clip=1e9, regularizer=regularizer, lam=0.1, checkpoint=tmp_path / "c"),
    )  # fmt: skip
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), whole)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("64", "expected one of 32, bf16-mixed, 16-mixed, got '64'"),
        ("16-mixed", "16-mixed needs a GPU"),
    ],
)
def test_precisions_that_do_not_exist_here(precision, message):
    with pytest.raises(ValueError, match=message):
        make_fabric(CPU, precision)


@pytest.mark.parametrize(
    ("world", "local", "message"),
    [
        ("two", "1", "WORLD_SIZE: expected a number of processes, at least 1, got 'two'"),
        ("0", "1", "WORLD_SIZE: expected a number of processes, at least 1, got '0'"),
        ("2", "-1", "LOCAL_WORLD_SIZE: expected a number of processes, at least 1, got '-1'"),
        ("2", "3", "expected LOCAL_WORLD_SIZE to divide WORLD_SIZE, got 3 and 2"),
    ],
)
def test_numbers_of_processes_that_cannot_be(monkeypatch, world, local, message):
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    with pytest.raises(ValueError, match=message):
        make_fabric(torch.device("cpu"))


def test_one_process_in_float32_needs_no_fabric():
    assert make_fabric(CPU) is None


# ---- the same step in other words


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_parts_of_a_batch_have_the_task_gradient_of_the_whole(parts):
    whole, gradient, history = trained()
    weights, pieces, again = trained(accumulate=parts)
    assert apart(pieces, gradient) < 1e-6
    assert (weights - whole).abs().max() < 1e-6
    assert again.loss == pytest.approx(history.loss, rel=1e-5)
    assert again.images == history.images


def test_parts_of_a_batch_have_the_mean_of_their_own_penalties():
    _, gradient, history = trained(lam=0.1, steps=1)
    _, pieces, again = trained(lam=0.1, steps=1, accumulate=2)
    assert again.loss == pytest.approx(history.loss, rel=1e-5)
    # A mean of ratios is no ratio of means: close, and measurably not the same.
    assert 1e-6 < apart(pieces, gradient) < 0.1
    assert again.penalty == pytest.approx(history.penalty, rel=0.1)
    x, _ = batch(torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    model = ResidualNet(width=8, depth=3)
    g = EquivarianceRegularizer(model, C4, generator=torch.Generator().manual_seed(2)).draw()
    with torch.no_grad():
        halves = [EquivarianceRegularizer(model, C4)(half, g=g).penalty for half in x.split(2)]
    assert again.penalty[0] == pytest.approx(float(sum(halves)) / 2, rel=1e-5)


def test_lazy_penalties_do_not_come_in_parts():
    with pytest.raises(ValueError, match="accumulate= cannot be combined with"):
        trained(lam=0.1, every=2, accumulate=2)


@pytest.mark.parametrize("method", ["plain", "EQ-Reg", "decay"])
def test_channels_last_trains_alike(method):
    def last(model):
        return model.to(memory_format=torch.channels_last)

    def sample(generator):
        return tuple(t.contiguous(memory_format=torch.channels_last) for t in batch(generator))

    weights, gradient, _ = trained(wrap=last, sample=sample, **METHODS[method])
    expected = trained(**METHODS[method])
    assert apart(gradient, expected[1]) < 1e-5
    assert (weights - expected[0]).abs().max() < 1e-5


class Checkpointed(nn.Module):
    """Keeps the input of two stretches of layers and computes the rest again."""

    def __init__(self, core):
        super().__init__()
        self.core = core

    def forward(self, x):
        first = checkpoint(self.core.body[:3], x, use_reentrant=False)
        return x + checkpoint(self.core.body[3:], first, use_reentrant=False)


@pytest.mark.parametrize("method", ["plain", "EQ-Reg", "decay"])
def test_activation_checkpointing_trains_alike(method):
    weights, gradient, _ = trained(wrap=Checkpointed, **METHODS[method])
    expected = trained(**METHODS[method])
    assert apart(gradient, expected[1]) < 1e-6
    assert (weights - expected[0]).abs().max() < 1e-6


@pytest.mark.filterwarnings("ignore")  # of the compiler, about Python features it looks through
@pytest.mark.slow
@pytest.mark.parametrize("method", ["plain", "EQ-Reg"])
def test_compiled_models_train_alike(method):
    torch._dynamo.reset()

    def compiled(model):
        return torch.compile(model, backend="aot_eager")

    weights, gradient, _ = trained(wrap=compiled, steps=2, **METHODS[method])
    expected = trained(steps=2, **METHODS[method])
    assert apart(gradient, expected[1]) < 1e-6
    assert (weights - expected[0]).abs().max() < 1e-6


# ---- waiting for data


def test_time_in_the_sampler_counts_as_waiting():
    def slow(generator):
        time.sleep(0.02)
        return batch(generator)

    _, _, slowly = trained(sample=slow)
    _, _, quickly = trained()
    assert 0.1 <= slowly.waiting < slowly.seconds
    assert 0 < quickly.waiting < 0.5 * slowly.waiting


def test_mixed_precision_leaves_the_input_of_a_residual_network_alone():
    """Fabric's own rounds it to 8 bits of mantissa: then ``x + 0`` is off by .002, 61 dB."""
    fabric = make_fabric(CPU, "bf16-mixed")
    seen = []

    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Conv2d(1, 1, 3, padding=1)
            torch.nn.init.zeros_(self.body.weight)
            torch.nn.init.zeros_(self.body.bias)

        def forward(self, x):
            seen.append(self.body(x).dtype)
            return x + self.body(x)

    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fabric.setup_module(Residual())(x), x)
    assert seen == [torch.bfloat16]  # the convolution did run in mixed precision
