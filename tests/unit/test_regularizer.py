"""EquivarianceRegularizer: values, structures, options, and that it leaves the model alone."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from eqreg import C2, C4, C8, D4, Element, EquivarianceRegularizer, act, layer_errors, rotate


def small_net(width=8, inplace=True, channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(inplace=inplace),
        nn.Conv2d(width, channels, 3, padding=1),
    )


X = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_three_lines():
    model = small_net()
    reg = EquivarianceRegularizer(model, C4)
    out = reg(X)
    loss = mse_loss(out.y, X) + mse_loss(out.y_g, out.act(X)) + 0.1 * out.penalty
    loss.backward()
    assert torch.allclose(out.y, model(X), atol=1e-6)
    assert torch.allclose(out.y_g, model(rotate(X, out.g)), atol=1e-6)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("group", [C2, C4, D4], ids=repr)
def test_penalty_is_the_formula(group):
    model = small_net(inplace=False)
    fields = {"0": group.field("1r" if group is D4 else f"{8 // group.order}r")}
    g = group.elements[-1]
    out = EquivarianceRegularizer(model, group, layers="0", fields=fields)(X, g=g)
    f, f_g = model[0](X), model[0](rotate(X, g, group))
    expected = (act(f, g, fields["0"]) - f_g).square().mean() / f.square().mean()
    assert out.penalty.item() == pytest.approx(expected.item(), rel=1e-5)
    assert out.per_layer["0"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_has_a_detached_denominator():
    conv = nn.Conv2d(1, 4, 3, padding=1).double()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    EquivarianceRegularizer(conv, C4)(x, g=1).penalty.backward()
    ours = conv.weight.grad.clone()
    conv.zero_grad()
    f = conv(x)
    error = (act(f, 1, C4.field("1r")) - conv(rotate(x, 1))).square().mean()
    (error / f.detach().square().mean()).backward()
    assert torch.allclose(ours, conv.weight.grad, rtol=1e-12)


def test_reference_norm_is_the_released_code_s_number():
    """Sum over layers of || rot(y, k) - roll(y', -k) ||_2 over the half batch, written out with view and roll."""
    model = small_net(inplace=False)
    layers = ["0", "2"]
    for k in (1, 2, 3):
        out = EquivarianceRegularizer(model, C4, layers=layers, norm="reference")(X, g=k)
        y, y_g, total = X, torch.rot90(X, k, (2, 3)), 0.0
        for i, layer in enumerate(model):
            y, y_g = layer(y), layer(y_g)
            if str(i) in layers:
                back = y_g.view(4, 2, 4, 12, 12).roll(-k, 2).view_as(y_g)
                total += (torch.rot90(y, k, (2, 3)) - back).norm(2).item()
        assert out.penalty.item() == pytest.approx(total, rel=1e-5)


def test_reference_norm_of_an_equivariant_layer_has_a_finite_gradient():
    conv = nn.Conv2d(1, 4, 3, padding=1)
    nn.init.constant_(conv.weight, 0.1)
    nn.init.zeros_(conv.bias)
    EquivarianceRegularizer(conv, C4, norm="reference")(
        torch.ones(1, 1, 5, 5), g=1
    ).penalty.backward()
    assert conv.weight.grad.isfinite().all()


@pytest.mark.parametrize("group", [C2, C4, D4], ids=repr)
def test_layer_errors_agree_with_the_penalty(group):
    model = small_net().double()
    reg = EquivarianceRegularizer(model, group)
    x = X.double()
    mean = {name: 0.0 for name in reg.plan.fields}
    for g in group.elements[1:]:
        for name, value in reg(x, g=g).per_layer.items():
            mean[name] += value.item() / (group.order - 1)
    assert layer_errors(model, x, group) == pytest.approx(mean, rel=1e-12)


def test_about_two_at_random_initialisation_whatever_the_width_and_size():
    for width, size in itertools.product((32, 128), (8, 24)):
        conv = nn.Conv2d(8, width, 3, padding=1, bias=False)
        x = torch.randn(4, 8, size, size)
        out = EquivarianceRegularizer(conv, C4, layers=nn.Conv2d)(x, g=1)
        assert out.penalty.item() == pytest.approx(2.0, abs=0.25)


def test_centering_takes_the_field_mean_out_of_the_denominator():
    conv = nn.Conv2d(1, 4, 3, padding=1)
    nn.init.constant_(conv.bias, 100.0)
    x = torch.rand(2, 1, 8, 8)
    plain = EquivarianceRegularizer(conv, C4)(x, g=1).penalty
    centred = EquivarianceRegularizer(conv, C4, center=True)(x, g=1).penalty
    f = conv(x)
    assert (plain / centred).item() == pytest.approx(
        ((f - f.mean()).square().mean() / f.square().mean()).item(), rel=1e-3
    )


def test_invariant_share_shows_collapse():
    conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
    x = torch.randn(2, 1, 8, 8)
    assert EquivarianceRegularizer(conv, C4)(x, g=1).invariant_share == {}  # unless asked for
    free = EquivarianceRegularizer(conv, C4, shares=True)(x, g=1).invariant_share["(model)"]
    with torch.no_grad():  # every channel of a field the same, turn-symmetric filter: zero penalty
        kernel = torch.randn(2, 1, 1, 3, 3)
        kernel = sum(rotate(kernel, k) for k in range(4)).expand(2, 4, 1, 3, 3)
        conv.weight.copy_(kernel.reshape(8, 1, 3, 3))
    out = EquivarianceRegularizer(conv, C4, shares=True)(x, g=1)
    assert out.penalty.item() < 1e-10
    assert out.invariant_share["(model)"].item() == pytest.approx(1.0, abs=1e-5)
    assert free.item() < 0.7


def test_fraction_pairs_the_first_images_only():
    model = small_net()
    out = EquivarianceRegularizer(model, C4, fraction=0.3)(X, g=1)
    assert out.y.shape[0] == 4
    assert out.y_g.shape[0] == 2
    assert torch.equal(out.act(X), rotate(X[:2], 1))
    assert torch.allclose(out.y_g, model(rotate(X[:2], 1)), atol=1e-6)


def test_every_skips_calls_and_keeps_the_scale():
    model = small_net()
    reg = EquivarianceRegularizer(model, C4, every=3)
    full = EquivarianceRegularizer(model, C4)(X, g=1)
    outs = [reg(X, g=1) for _ in range(6)]
    penalties = [out.penalty.item() for out in outs]
    assert penalties == pytest.approx([3 * full.penalty.item(), 0, 0] * 2, rel=1e-6)
    # On a step left out, the loss of the three lines is twice the plain loss.
    assert outs[1].y_g is outs[1].y
    assert outs[1].act(X) is not None and torch.equal(outs[1].act(X), X)
    assert outs[1].g == C4.identity
    assert outs[1].per_layer == {}


def test_draws_are_reproducible_and_leave_out_the_identity():
    model = small_net()

    def draws():
        reg = EquivarianceRegularizer(model, C4, generator=torch.Generator().manual_seed(7))
        return [reg(X[:1]).g for _ in range(30)]

    first = draws()
    assert first == draws()
    assert set(first) == {Element(1), Element(2), Element(3)}


class Two(nn.Module):
    """Several inputs, a reused layer, a dict output with a scalar."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, mask, scale, *, bias=None):
        z = self.shared(self.shared(self.conv(x * mask) * scale[:, None, None, None]).relu())
        return {"image": z[:, :3], "pair": (z, z.mean((1, 2, 3))), "loss": z.mean(), "bias": bias}


def test_several_inputs_and_nested_outputs():
    model = Two()
    mask = (torch.rand(1, 1, 12, 12) > 0.3).float()
    out = EquivarianceRegularizer(model, C4)(X, mask, torch.arange(4.0), bias="b", g=3)
    alone = model(rotate(X, 3), rotate(mask, 3), torch.arange(4.0))
    assert torch.allclose(out.y_g["image"], alone["image"], atol=1e-5)
    assert torch.allclose(out.y_g["pair"][1], alone["pair"][1], atol=1e-5)
    assert out.y["loss"].ndim == 0
    assert out.y["bias"] == "b"
    assert list(out.per_layer) == ["conv", "shared", "shared#2"]
    turned = out.act({"image": X, "label": torch.arange(4)})
    assert torch.equal(turned["image"], rotate(X, 3))
    assert torch.equal(turned["label"], torch.arange(4))


def test_batchnorm_and_strides():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 2, stride=2),
    )
    reg = EquivarianceRegularizer(model, C4, layers=["*"], fields={"2": "2r"})
    assert list(reg.plan.fields) == ["0", "1", "2", "3"]
    assert "(model)" not in [row.name for row in reg.plan.rows]
    out = reg(X)
    assert out.per_layer["1"].item() > 0
    out.penalty.backward()


def test_in_place_activations_do_not_change_the_numbers():
    a, b = small_net(inplace=True), small_net(inplace=False)
    out_a, out_b = (EquivarianceRegularizer(m, C4)(X, g=1) for m in (a, b))
    out_a.penalty.backward()
    out_b.penalty.backward()
    assert out_a.penalty.item() == out_b.penalty.item()
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_angles_between_the_grid_are_compared_inside_the_mask():
    model = nn.Conv2d(1, 8, 3, padding=1)
    x = torch.rand(1, 1, 16, 16)
    out = EquivarianceRegularizer(model, C8)(x, g=1)
    assert out.penalty.item() > 0
    assert torch.equal(out.act(x), rotate(x, 1, C8))


def snapshot(model):
    return [(name, sorted(vars(m)), len(m._forward_hooks)) for name, m in model.named_modules()]


def test_nothing_is_stored_on_the_model():
    model = small_net()
    before, keys = snapshot(model), list(model.state_dict())
    reg = EquivarianceRegularizer(model, C4)
    reg(X).penalty.backward()
    assert snapshot(model) == before
    assert list(model.state_dict()) == keys
    twin = copy.deepcopy(model)
    assert snapshot(twin) == before
    assert torch.equal(twin(X), model(X))


def test_hooks_are_gone_after_an_exception():
    class Fails(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            self.conv(x)
            raise KeyError("from inside")

    model = Fails()
    reg = EquivarianceRegularizer(model, C4)
    for _ in range(2):  # the second call shows that the first left no trace
        with pytest.raises(KeyError, match="from inside"):
            reg(X)
        assert not model.conv._forward_hooks


def test_two_regularizers_one_after_the_other():
    model = small_net()
    first = EquivarianceRegularizer(model, C4, layers="0")
    second = EquivarianceRegularizer(model, C2, layers="2")
    assert list(first(X).per_layer) == ["0"]
    assert list(second(X).per_layer) == ["2"]


def test_scale_free_has_the_same_value_and_no_pull_on_the_size():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False))
    model, x = model.double(), torch.rand(4, 1, 12, 12, dtype=torch.float64)
    weight, pull = model[2].weight, {}
    for norm in ("relative", "scale-free"):
        out = EquivarianceRegularizer(model, C4, norm=norm)(x, g=1)
        (gradient,) = torch.autograd.grad(out.penalty, weight)
        pull[norm] = float((weight.detach() * gradient).sum())
        assert torch.isclose(out.penalty, sum(out.per_layer.values()) / 2)
    # The last of two layers is homogeneous in its weight: twice its error, over two; or nothing.
    assert pull["relative"] == pytest.approx(float(out.per_layer["2"].detach()), rel=1e-9)
    assert abs(pull["scale-free"]) < 1e-12
