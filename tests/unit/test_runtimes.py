"""The regularizer under autocast, torch.compile, gradient checkpointing and two processes."""

import os
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from eqreg import C4, EquivarianceRegularizer


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 1, 3, padding=1),
    )


X = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def loss_of(reg, x=X, g=1):
    out = reg(x, g=g)
    return mse_loss(out.y, x) + mse_loss(out.y_g, out.act(x)) + 0.1 * out.penalty


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def reference_gradients(g=1):
    model = small_net()
    loss_of(EquivarianceRegularizer(model, C4), g=g).backward()
    return gradients(model)


def test_autocast_accumulates_in_float32():
    model = small_net()
    reg = EquivarianceRegularizer(model, C4)
    exact = reg(X, g=1).penalty.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = reg(X, g=1)
    assert out.y.dtype == torch.bfloat16
    assert out.penalty.dtype == torch.float32
    assert out.penalty.item() == pytest.approx(exact, rel=0.05)
    out.penalty.backward()


def test_large_half_precision_features_do_not_overflow():
    conv = nn.Conv2d(1, 4, 1).half()
    nn.init.constant_(conv.weight, 3e3)  # squares beyond float16's 65504
    assert EquivarianceRegularizer(conv, C4)(X.half(), g=1).penalty.isfinite()


class Checkpointed(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return checkpoint(
            self.net[2:], checkpoint(self.net[:2], x, use_reentrant=False), use_reentrant=False
        )


def test_checkpointing_gives_the_same_gradients():
    net = small_net()
    loss_of(EquivarianceRegularizer(Checkpointed(net), C4)).backward()
    assert torch.allclose(gradients(net), reference_gradients(), atol=1e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", ["plain", "regularized"])
def test_compiled_models_give_the_same_gradients(first):
    torch._dynamo.reset()
    net = small_net()
    model = torch.compile(net, backend="aot_eager")
    if first == "plain":
        model(X)
    reg = EquivarianceRegularizer(model, C4)
    assert list(reg.plan.fields) == ["0", "2", "4"]
    for g in (1, 3, 1):
        net.zero_grad()
        loss_of(reg, g=g).backward()
        assert torch.allclose(gradients(net), reference_gradients(g), atol=1e-6)
        with torch.no_grad():
            assert torch.allclose(model(X), net(X), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_models_compiled_in_place_give_the_same_gradients():
    torch._dynamo.reset()
    net = small_net()
    net.compile(backend="aot_eager")
    net(X)
    reg = EquivarianceRegularizer(net, C4)
    for g in (1, 3):
        net.zero_grad()
        loss_of(reg, g=g).backward()
        assert torch.allclose(gradients(net), reference_gradients(g), atol=1e-6)


class Blocks(nn.Module):
    """A convolution and a block, which is compiled in one of the ways there are."""

    def __init__(self, how):
        super().__init__()
        net = small_net()
        self.head, self.body, self.tail = net[0], net[1:4], net[4]
        if how == "a module":
            self.body = torch.compile(self.body, backend="eager")
        if how == "in place":
            self.compile(backend="eager")
        if how == "a function":
            self.run = torch.compile(self.run, backend="eager")

    def run(self, x):
        return self.tail(self.body(self.head(x)))

    def forward(self, x):
        return self.run(x)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, while it traces
@pytest.mark.parametrize("how", ["a module", "in place", "a function"])
def test_parts_that_were_compiled_are_watched_all_the_same(how):
    torch._dynamo.reset()
    expected = EquivarianceRegularizer(Blocks("not at all"), C4)(X, g=1)
    model = Blocks(how)
    model(torch.cat([X, X]))  # traced without hooks, in the size of the paired batch
    with pytest.warns(UserWarning, match="was compiled as a part or in place"):
        reg = EquivarianceRegularizer(model, C4, every=2)
    counts = []
    for _ in range(4):
        out = reg(X, g=1)
        counts.append(len(out.per_layer))
        if counts[-1]:
            assert out.penalty.item() == pytest.approx(2 * expected.penalty.item(), rel=1e-5)
    assert counts == [3, 0, 3, 0]


def test_a_part_that_is_compiled_after_the_plan_is_told():
    model = Blocks("not at all")
    reg = EquivarianceRegularizer(model, C4)
    model.body = torch.compile(model.body, backend="eager")
    with pytest.raises(ValueError, match="no layer 'body.2' any more.*build the regularizer after"):
        reg(X)


@pytest.mark.filterwarnings("ignore")
def test_the_options_of_compile_are_passed_on():
    torch._dynamo.reset()
    seen = []

    def backend(graph, inputs):
        seen.append(any(isinstance(i, int | torch.SymInt) for i in inputs))  # sizes are inputs then
        return graph.forward

    class Broken(Blocks):
        def run(self, x):
            torch._dynamo.graph_break()
            return super().run(x)

    options = {"backend": backend, "dynamic": True, "fullgraph": True}
    EquivarianceRegularizer(torch.compile(Blocks("not at all"), **options), C4)(X, g=1)
    assert seen == [True]
    with pytest.raises(torch._dynamo.exc.Unsupported):
        EquivarianceRegularizer(torch.compile(Broken("not at all"), **options), C4)(X, g=1)


def _worker(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    model = DistributedDataParallel(small_net())
    reg = EquivarianceRegularizer(model, C4)
    assert list(reg.plan.fields) == ["0", "2", "4"]
    loss_of(reg, X[2 * rank : 2 * rank + 2]).backward()
    if rank == 0:
        torch.save(gradients(model), os.path.join(folder, "gradients.pt"))
    dist.destroy_process_group()


def test_two_processes_give_the_gradients_of_one():
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, args=(folder,), nprocs=2)
        ours = torch.load(os.path.join(folder, "gradients.pt"))
    assert torch.allclose(ours, reference_gradients(), atol=1e-6)
    assert reference_gradients().abs().max() > 1e-2
