"""The classifier and its strict twins: invariant logits, at every size."""

import pytest
import torch
from torch import nn

from eqreg import (
    C2,
    C4,
    C8,
    D4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    equivariance_error,
    layer_errors,
    rotate,
)
from eqreg.data import digits, turn
from eqreg.models import Classifier
from eqreg.models.classifier import halve
from eqreg.strict import equivariant
from eqreg.strict import escnn as adapter

HEAD = {"head": "10t"}


def images(size, seed=0, n=3):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))


def change(model, x, group):
    """Largest change of the logits under the group, relative to their size."""
    with torch.no_grad():
        y = model(x)
        turned = [model(rotate(x, g, group)) for g in group.elements]
    return max(float((t - y).abs().max()) for t in turned) / float(y.abs().max())


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(0)
    return Classifier(width=16, depth=3)


def test_shapes_and_parameters(plain):
    assert plain(images(28)).shape == (3, 10)
    # 5 x 5 kernels 1 -> 16 -> 16 -> 32 and biases, then 32 -> 10.
    expected = (25 + 1) * 16 + (25 * 16 + 1) * (16 + 32) + (32 + 1) * 10
    assert sum(p.numel() for p in plain.parameters()) == expected == 19_994
    small = Classifier(channels=3, classes=2, width=4, depth=1, kernel_size=3)
    assert small(torch.rand(5, 3, 7, 9)).shape == (5, 2)


@pytest.mark.parametrize("size", [28, 15, 14, 13])
@pytest.mark.parametrize("match", ["width", "parameters"])
@pytest.mark.parametrize("group", [C2, C4, D4], ids=str)
def test_the_twin_is_exactly_invariant_at_every_size(plain, group, match, size):
    twin = equivariant(plain, group, match=match)
    assert change(twin, images(size), group) <= 1e-5
    assert equivariance_error(twin, images(size), group).max() < 1e-9


def test_the_plain_network_is_not(plain):
    assert change(plain, images(28), C4) > 1e-2


@pytest.mark.parametrize("size", [20, 21])
def test_the_twin_of_eight_turns_is_exact_at_quarter_turns_and_near_between(plain, size):
    torch.manual_seed(0)
    twin = equivariant(plain, C8)
    x = digits("val", size=size).images[:6]
    assert change(twin, x, C4) <= 1e-5

    def moved(model):
        """Energy of the change by odd eighths of a turn, relative to the logits'."""
        with torch.no_grad():
            y = model(turn(x, 0))
            far = torch.stack([model(turn(x, 45.0 * k)) - y for k in (1, 3)])
        return float(far.square().mean() / y.square().mean())

    assert moved(twin) < 0.5 * moved(plain)


@pytest.mark.parametrize("group", [C4, D4], ids=str)
def test_the_twin_of_escnn_is_invariant(group):
    pytest.importorskip("escnn")
    small = Classifier(classes=3, width=group.order, depth=2, kernel_size=3)
    twin = equivariant(small, group, layer=adapter.EscnnConv2d)
    for size in (16, 13):
        assert change(twin, images(size), group) <= 1e-5
    layers = [layer.to_plain() for layer in [*twin.body, twin.head]]
    assert all(isinstance(layer, nn.Conv2d) for layer in layers)


def test_width_and_parameters_of_the_twins(plain):
    def count(model):
        return sum(p.numel() for p in model.parameters())

    width, parameters = (equivariant(plain, C4, match=m) for m in ("width", "parameters"))
    assert 0.24 < count(width) / count(plain) < 0.27
    assert 0.9 < count(parameters) / count(plain) < 1.1
    assert width.body[1].out_field == C4.field("4r") and width.head.out_field == C4.field("10t")


@pytest.mark.parametrize("layer", ["plain", "group", "fourier", "escnn"])
def test_initial_layers_double_the_power_and_relu_halves_it(layer):
    torch.manual_seed(0)
    model = Classifier(width=32, depth=2)
    if layer == "escnn":
        pytest.importorskip("escnn")
        model = equivariant(model, C4, layer=adapter.EscnnConv2d)
    elif layer != "plain":
        model = equivariant(model, C4 if layer == "group" else C8)
    with torch.no_grad():
        for convolution, channels in zip(model.body, (1, 32), strict=True):
            z = convolution(torch.randn(8, channels, 32, 32))
            assert 1.2 < float(z.square().mean()) < 2.8
            for name, parameter in convolution.named_parameters():
                assert not name.endswith("bias") or parameter.count_nonzero() == 0


def test_halve_is_the_mean_over_centred_windows():
    x = torch.arange(5.0).reshape(1, 1, 1, 5)
    # Odd: windows (0, 1), (1, 2, 3), (3, 4) in a row; the single row stays.
    assert halve(x).flatten().tolist() == [0.5, 2.0, 3.5]
    x = torch.arange(6.0).reshape(1, 1, 1, 6)
    assert halve(x).flatten().tolist() == [0.5, 2.5, 4.5]
    for size in range(1, 12):
        y = images(size)
        for k in (1, 3):
            assert torch.allclose(halve(rotate(y, k)), rotate(halve(y), k), atol=1e-6)
        assert halve(y).shape[-1] == (size + 1) // 2


def test_the_soft_methods_find_the_layers(plain):
    regularizer = EquivarianceRegularizer(plain, C4, fields=HEAD)
    assert list(regularizer.plan.fields) == ["body.0", "body.1", "body.2", "head"]
    out = regularizer(images(16), g=1)
    labels = torch.tensor([1, 2, 3])
    assert out.y.shape == out.y_g.shape == (3, 10) and torch.equal(out.act(labels), labels)
    decay = EquivarianceDecay(plain, C4, fields=HEAD)
    head = decay.plan.tied["head"]
    assert head.in_field == C4.field("8r") and head.out_field == C4.field("10t")


def test_full_decay_makes_it_invariant():
    torch.manual_seed(0)
    model = Classifier(width=8, depth=2)
    EquivarianceDecay(model, C4, float("inf"), fields=HEAD).step(1.0)
    assert change(model, images(16), C4) <= 1e-5
    assert max(layer_errors(model, images(16), C4, fields=HEAD).values()) < 1e-10


def test_it_learns():
    torch.manual_seed(0)
    x, y = digits("train", size=12)
    twin = equivariant(Classifier(width=16, depth=2), C4)
    optimizer = torch.optim.Adam(twin.parameters(), 1e-2)
    for step in range(40):
        rows = torch.arange(32) + 32 * (step % 30)
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(x[rows]), y[rows]).backward()
        optimizer.step()
    test = digits("test", size=12)
    with torch.no_grad():
        assert (twin(test.images).argmax(1) == test.labels).float().mean() > 0.3
    assert change(twin, test.images, C4) <= 1e-5


def test_it_says_what_it_expects():
    for name in ("channels", "classes", "width", "depth"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            Classifier(**{name: 0})
    with pytest.raises(ValueError, match="kernel_size must be odd, got 4"):
        Classifier(kernel_size=4)
    with pytest.raises(ValueError, match="6 channels, which the 4 elements of C4 do not divide"):
        equivariant(Classifier(width=6), C4)
