"""The comparison's own operators: the formula's numbers and derivatives, less memory, fewer passes."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from eqreg import C2, C4, D4, EquivarianceRegularizer, act
from eqreg.layers import residual as residuals
from eqreg.layers.residual import Moves, compared, move_of
from eqreg.symmetry.fields import FieldType


def residual(z, moves):
    return compared(z, moves)[1]


CASES = [
    (group, spec, g)
    for group, spec in ((C2, "3r"), (C4, "2t + 2r"), (D4, "1r + 1t + 1r"))
    for g in group.elements
]
ROWS = ((3, 3), (3, 2))  # images, and how many of them are paired


@pytest.mark.parametrize(("group", "spec", "g"), CASES, ids=str)
@pytest.mark.parametrize(("batch", "pairs"), ROWS)
def test_is_the_moved_half_minus_the_turned_half(group, spec, g, batch, pairs):
    field = FieldType(group, spec)
    z = torch.randn(batch + pairs, field.channels, 6, 6)
    ours = residual(z, Moves(move_of(field, g), batch, pairs))
    assert torch.equal(ours, act(z[:pairs], g, field) - z[batch:])


@pytest.mark.parametrize(("group", "spec", "g"), CASES, ids=str)
def test_large_features_are_moved_without_an_index(group, spec, g, monkeypatch):
    field = FieldType(group, spec)
    z = torch.randn(5, field.channels, 6, 6, requires_grad=True)
    moves = Moves(move_of(field, g), 3, 2)
    found = []
    for longest in (2**18, 0):
        monkeypatch.setattr(residuals, "_LONGEST", longest)
        r = residual(z, moves)
        found.append((r, *torch.autograd.grad(r.exp().sum(), z)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_penalty_is_differentiated_twice():
    """The derivative of its gradient along v is that of the quotient of differences."""
    field, v = FieldType(C4, "2r"), torch.randn(4, 8, 5, 5, dtype=torch.float64)
    z = torch.randn(4, 8, 5, 5, dtype=torch.float64, requires_grad=True)
    moves = Moves(move_of(field, C4.elements[3]), 2, 2)

    def slope(at, keep=False):
        return torch.autograd.grad(compared(at, moves)[0], at, create_graph=keep)[0]

    (second,) = torch.autograd.grad((slope(z, True) * v).sum(), z)
    # A mean square is quadratic, so that the quotient is exact.
    expected = slope((z + v).detach().requires_grad_()) - slope(z)
    assert torch.allclose(second, expected, atol=1e-12) and second.abs().sum() > 0


@pytest.mark.parametrize(("group", "spec", "g"), CASES, ids=str)
@pytest.mark.parametrize(("batch", "pairs"), ROWS)
@pytest.mark.parametrize("step", [1, 2])
def test_the_derivative_is_the_transpose(group, spec, g, batch, pairs, step):
    field = FieldType(group, spec)
    z = torch.randn(batch + pairs, field.channels, 5, 5, dtype=torch.float64, requires_grad=True)
    moves = Moves(move_of(field, g), batch, pairs, step, (1, 0) if step > 1 else (0, 0))
    r = residual(z, moves)
    v = torch.randn_like(r)
    (transposed,) = torch.autograd.grad(r, z, v)
    # A is linear, so that <A z, v> = <z, A' v> says all of A'.
    for _ in range(3):
        other = torch.randn_like(z)
        left = (residual(other, moves) * v).sum()
        assert torch.allclose(left, (other * transposed).sum(), rtol=1e-12)


@pytest.mark.parametrize(("group", "spec", "g"), CASES, ids=str)
@pytest.mark.parametrize(("size", "step"), [(6, 2), (7, 2), (6, 3)])
def test_the_subsets_of_pixels_are_the_whole_once(group, spec, g, size, step):
    """Over all offsets every pixel is compared once, with the pixel that g sends it to."""
    field = FieldType(group, spec)
    z = torch.randn(4, field.channels, size, size, dtype=torch.float64)
    whole = residual(z, Moves(move_of(field, g), 2, 2)).square().sum()
    offsets = itertools.product(range(step), repeat=2)
    parts = [residual(z, Moves(move_of(field, g), 2, 2, step, o)).square().sum() for o in offsets]
    assert torch.allclose(sum(parts), whole, rtol=1e-12)


def net(width=8):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
    ).double()  # fmt: skip


X = torch.rand(2, 1, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_the_penalty_of_a_part_of_the_pixels_is_unbiased():
    """Over many draws the mean of penalty and gradient is that over all pixels, within its standard error."""
    model = net()
    whole = EquivarianceRegularizer(model, C4)(X, g=1).penalty
    (slope,) = torch.autograd.grad(whole, model[0].weight)
    part = EquivarianceRegularizer(
        model, C4, pixels=1 / 4, generator=torch.Generator().manual_seed(3)
    )
    values, slopes = [], []
    for _ in range(400):
        penalty = part(X, g=1).penalty
        (grad,) = torch.autograd.grad(penalty, model[0].weight)
        values.append(penalty.detach())
        slopes.append((grad * slope).sum() / slope.square().sum())
    for drawn, expected in ((values, whole.detach()), (slopes, torch.ones(()))):
        drawn = torch.stack(drawn)
        assert drawn.std() > 0  # else the test says nothing
        assert abs(drawn.mean() - expected) < 4 * drawn.std() / len(drawn) ** 0.5


def test_draws_of_pixels_are_reproducible():
    def penalties():
        reg = EquivarianceRegularizer(
            net(), C4, pixels=0.25, generator=torch.Generator().manual_seed(3)
        )
        return [reg(X).penalty.item() for _ in range(5)]

    first = penalties()
    assert first == penalties() and len(set(first)) == 5


@pytest.mark.parametrize("pixels", [0, 0.5, 2, "half"])
def test_a_part_that_is_no_grid_is_refused(pixels):
    with pytest.raises((ValueError, TypeError), match="pixels"):
        EquivarianceRegularizer(net(), C4, pixels=pixels)


def test_a_part_of_the_pixels_needs_a_mean_square():
    with pytest.raises(ValueError, match="needs norm='relative'"):
        EquivarianceRegularizer(net(), C4, pixels=0.25, norm="reference")


def kept(step):
    """Bytes that a step keeps for backward, each storage once, read off its graph."""
    loss = step()
    assert loss.requires_grad
    found, todo, seen = {}, [loss.grad_fn], {None}
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        todo += [n for n, _ in node.next_functions]
        for name in dir(node):
            if name == "saved_tensors" or name.startswith("_saved_"):
                value = getattr(node, name)
                for t in value if isinstance(value, tuple | list) else [value]:
                    if isinstance(t, torch.Tensor):
                        found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(found.values())


def test_of_a_layer_the_residual_alone_is_kept():
    """Beyond the pass over twice the batch: half of the features of each compared layer, or a part of that."""
    model = net(width=16).float()
    x = torch.rand(2, 1, 24, 24)
    both = torch.cat([x, x])
    features = 2 * 16 * both.numel() * 4
    twice = kept(lambda: model(both).square().mean())

    def regularised(pixels):
        reg = EquivarianceRegularizer(model, C4, pixels=pixels)

        def step():
            out = reg(x, g=1)
            return out.y.square().mean() + out.y_g.square().mean() + out.penalty

        return kept(step)

    small = 20_000  # scalars; two halves of the output, kept as two
    assert twice + features / 2 <= regularised(1) <= twice + features / 2 + small
    assert regularised(1 / 16) <= twice + features / 32 + small


def test_under_a_checkpoint_the_gradient_is_the_same():
    class Checkpointed(nn.Sequential):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    grads = []
    for model in (net(), Checkpointed(*net())):
        EquivarianceRegularizer(model, C4)(X, g=1).penalty.backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_compared_in_single(dtype):
    field = FieldType(C4, "2r")
    z = torch.randn(4, 8, 6, 6, dtype=dtype, requires_grad=True)
    r = residual(z, Moves(move_of(field, C4.elements[1]), 2, 2))
    assert torch.equal(r, act(z[:2].float(), 1, field) - z[2:].float())
    r.sum().backward()
    assert z.grad.dtype == dtype


def test_one_layer_s_error_leaves_the_others_without_a_gradient():
    model = net()
    out = EquivarianceRegularizer(model, C4)(X, g=1)
    out.per_layer["0"].backward()
    assert model[0].weight.grad.abs().sum() > 0
    assert model[2].weight.grad is None or model[2].weight.grad.abs().sum() == 0
