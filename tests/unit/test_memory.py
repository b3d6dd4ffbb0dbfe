"""Nothing of a graph stays when its results are dropped, whatever was back-propagated of it."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from eqreg import (
    C4,
    D4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    equivariance_error,
    layer_errors,
)


class Token:
    """Lives as long as the graph that it was put into."""


class Witness(torch.autograd.Function):
    """The identity, which leaves a token in the graph."""

    tokens: list[weakref.ref] = []

    @staticmethod
    def forward(ctx, x):
        ctx.token = Token()
        Witness.tokens.append(weakref.ref(ctx.token))
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad


class Net(nn.Module):
    def __init__(self, checkpointed=False):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(1, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Sigmoid(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.tail = nn.Conv2d(8, 1, 3, padding=1)
        self.checkpointed = checkpointed

    def forward(self, x):
        z = Witness.apply(self.head(x))
        z = checkpoint(self.body, z, use_reentrant=False) if self.checkpointed else self.body(z)
        return self.tail(z)


X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def dead_after(use):
    """Run ``use`` and count the tokens that are left."""
    Witness.tokens.clear()
    use()
    gc.collect()
    assert Witness.tokens
    return [ref() for ref in Witness.tokens] == [None] * len(Witness.tokens)


OPTIONS = [
    {},
    {"norm": "reference"},
    {"norm": "scale-free"},
    {"center": True, "norm": "scale-free"},
    {"fraction": 0.5},
    {"every": 2},
]
BACKWARD = {
    "nothing": lambda out: None,
    "the loss alone": lambda out: out.y.square().mean().backward(),
    "the penalty": lambda out: (out.penalty + 0 * out.y.sum()).backward(),
    "one term": lambda out: next(iter(out.per_layer.values()), out.penalty + 0 * out.y.sum()).backward(),
}  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("backward", BACKWARD)
@pytest.mark.parametrize("group", [C4, D4], ids=str)
def test_what_is_not_back_propagated_is_freed(group, backward, options):
    reg = EquivarianceRegularizer(Net(), group, **options)

    def use():
        for _ in range(2):
            BACKWARD[backward](reg(X))

    assert dead_after(use)


def test_also_under_checkpointing_autocast_and_after_an_exception():
    reg = EquivarianceRegularizer(Net(checkpointed=True), C4)
    assert dead_after(lambda: reg(X))
    assert dead_after(lambda: reg(X).y.sum().backward())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dead_after(lambda: reg(X))

    def caught():
        with pytest.raises(FloatingPointError):
            reg(X * torch.nan)

    assert dead_after(caught)


def test_the_other_measures():
    model = Net()
    assert dead_after(lambda: layer_errors(model, X, C4))
    assert dead_after(lambda: equivariance_error(model, X, C4))
    for make in (ProjectionPenalty, EquivarianceDecay):
        part = make(model, C4)
        ref = weakref.ref(part)
        part() if make is ProjectionPenalty else part.step(0.1)
        del part
        gc.collect()
        assert ref() is None


def test_first_and_second_derivatives_are_those_of_the_formula():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    reg = EquivarianceRegularizer(nn.Conv2d(1, 4, 3, padding=1).double(), C4, norm="scale-free")
    weight = reg.model.weight

    def by_hand(w):
        z = nn.functional.conv2d(x, w, reg.model.bias, padding=1)
        z_g = nn.functional.conv2d(torch.rot90(x, 1, (-2, -1)), w, reg.model.bias, padding=1)
        moved = torch.rot90(z, 1, (-2, -1)).roll(1, 1)
        return (moved - z_g).square().mean() / moved.square().mean()

    def hessian_vector(f):
        (grad,) = torch.autograd.grad(f, weight, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum(), weight)
        return grad, second

    ours, expected = hessian_vector(reg(x, g=1).penalty), hessian_vector(by_hand(weight))
    for a, b in zip(ours, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-14)
