"""What goes in and comes out: inputs that turn and others, features as inputs, nested outputs, parts of images."""

from collections import OrderedDict, UserDict
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from eqreg import (
    C2,
    C4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    act,
    equivariance_error,
    layer_errors,
    rotate,
)

X = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


class Conditioned(nn.Module):
    """An image, tokens of text (B, N, D), a time (1,), and a mask (H, W) for all images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.text = nn.Linear(5, 8)

    def forward(self, x, text, time, mask=None):
        z = self.conv(x) + self.text(text).mean(1)[:, :, None, None] + time
        return z if mask is None else z * mask


TEXT, TIME = torch.rand(4, 6, 5), torch.tensor([0.3])
MASK = (torch.rand(12, 12) > 0.5).float()


@pytest.mark.parametrize(
    "turn", ["x", 0, ["x"], [0], lambda name, t: name == "x", lambda name, t: t.ndim == 4]
)
def test_inputs_that_do_not_turn(turn):
    model = Conditioned()
    with pytest.raises(ValueError, match=r"cannot tell whether shape \(4, 6, 5\).*turn="):
        EquivarianceRegularizer(model, C4)(X, TEXT, TIME)
    reg = EquivarianceRegularizer(model, C4, turn=turn, fraction=0.5)
    out = reg(X, TEXT, TIME, mask=MASK, g=1)
    assert torch.allclose(out.y, model(X, TEXT, TIME, MASK), atol=1e-6)
    alone = model(rotate(X[:2], 1), TEXT[:2], TIME, MASK)
    assert torch.allclose(out.y_g, alone, atol=1e-6)
    by_name = reg(x=X, text=TEXT, time=TIME, g=1)
    assert torch.allclose(by_name.y_g, model(rotate(X[:2], 1), TEXT[:2], TIME), atol=1e-6)


def test_a_map_turns_if_it_is_said():
    class Depth(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x, depth):
            return self.conv(x) * depth[:, None]

    depth = torch.rand(4, 12, 12)
    model = Depth()
    out = EquivarianceRegularizer(model, C4, turn=["x", "depth"])(X, depth, g=3)
    assert torch.allclose(out.y_g, model(rotate(X, 3), rotate(depth, 3)), atol=1e-6)
    with pytest.raises(ValueError, match=r"turn: expected images .* got shape \(4, 12\)"):
        EquivarianceRegularizer(model, C4, turn=["x", "depth"])(X, depth[:, 0], g=3)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"turn": "y"}, ValueError, "turn: expected inputs among 'x', 'text', 'time', got 'y'"),
        ({"turn": "x", "in_fields": {7: "3t"}}, ValueError, "in_fields: expected inputs.* got 7"),
        ({"turn": "x", "in_fields": "2r"}, ValueError, r"2r.*does not fit .*\(4, 3, 12, 12\)"),
        ({"turn": "x", "in_fields": C2.field("3t")}, ValueError, "does not fit .* under C4"),
        ({"turn": "x", "in_fields": {0: ["3t"]}}, ValueError, "got 1 fields.* got a Tensor"),
        ({"turn": [0.5]}, TypeError, "turn takes names or positions .* got 0.5"),
        ({"in_fields": 3}, TypeError, "in_fields takes a field .* got 3"),
    ],
)
def test_wrong_turn_and_in_fields(kwargs, error, message):
    with pytest.raises(error, match=message):
        EquivarianceRegularizer(Conditioned(), C4, **kwargs)(X, TEXT, TIME)


def tied_autoencoder():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "encoder": nn.Conv2d(3, 8, 3, padding=1),
            "decoder": nn.Sequential(
                nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)
            ),
        }
    ).double()
    EquivarianceDecay(model, C4, float("inf")).step(1.0)
    return model


def test_a_decoder_on_regular_features():
    """As part of a tied network it is equivariant, but only for input that turns as features do."""
    model = tied_autoencoder()
    z = model["encoder"](X.double())
    as_image = EquivarianceRegularizer(model["decoder"], C4)(z, g=1)
    assert as_image.penalty > 0.1
    for given in ("2r", C4.field("2r"), {0: "2r"}, {"input": "2r"}):
        reg = EquivarianceRegularizer(model["decoder"], C4, in_fields=given)
        for g in (1, 2, 3):
            out = reg(z, g=g)
            assert out.penalty < 1e-25
            assert torch.allclose(out.y_g, rotate(out.y, g), atol=1e-12)
    errors = layer_errors(model["decoder"], z, C4, in_fields="2r")
    assert max(errors.values()) < 1e-25


def test_a_decoder_that_takes_a_list_of_features():
    class Joins(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(11, 8, 1)

        def forward(self, parts):
            return self.conv(torch.cat(parts, 1))

    model, z = Joins(), torch.rand(4, 8, 12, 12)
    out = EquivarianceRegularizer(model, C4, in_fields={0: ["3t", "2r"]})([X, z], g=1)
    expected = model([rotate(X, 1), act(z, 1, C4.field("2r"))])
    assert torch.allclose(out.y_g, expected, atol=1e-6)


def test_label_maps_are_turned():
    out = EquivarianceRegularizer(nn.Conv2d(3, 4, 1), C4)(X, g=1)
    for labels in (torch.randint(9, (4, 12, 12)), torch.rand(4, 12, 12) > 0.5):
        assert torch.equal(out.act(labels), rotate(labels, 1))
    with pytest.raises(ValueError, match="cannot tell whether shape"):
        out.act(torch.rand(4, 12, 12))


@dataclass
class Found:
    logits: torch.Tensor
    parts: dict
    name: str = "a"


@dataclass(frozen=True)
class Frozen:
    logits: torch.Tensor
    parts: dict
    name: str = "a"


@dataclass
class AsMapping(OrderedDict):
    """As Hugging Face's ModelOutput: a dataclass that is a dict too."""

    logits: torch.Tensor = None
    parts: dict = None
    name: str = "a"

    def __post_init__(self):
        for key in ("logits", "parts", "name"):
            super().__setitem__(key, getattr(self, key))

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self):
        return type(self), (self.logits, self.parts, self.name)


class AsUserDict(UserDict):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)

    def __getattr__(self, name):
        return self.__dict__["data"][name]


@pytest.mark.parametrize("kind", [Found, Frozen, AsMapping, AsUserDict])
def test_outputs_of_any_class_are_split(kind):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, x):
            z = self.conv(x)
            return kind(logits=z, parts={"mean": [z.mean((1, 2, 3))]}, name="b")

    model = Model()
    out = EquivarianceRegularizer(model, C4, fraction=0.5)(X, g=1)
    assert type(out.y) is type(out.y_g) is kind
    assert out.y.logits.shape[0] == 4 and out.y_g.logits.shape[0] == 2
    assert torch.allclose(out.y_g.logits, model(rotate(X[:2], 1)).logits, atol=1e-6)
    assert out.y.parts["mean"][0].shape == (4,) and out.y_g.parts["mean"][0].shape == (2,)
    assert out.y.name == "b"
    if kind is AsMapping:
        assert out.y["logits"] is out.y.logits


def test_a_map_that_changes_its_input_is_measured_rightly():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 3, 3, padding=1)

    def careless(x):
        return conv(x.sub_(0.5).mul_(3))

    expected = equivariance_error(lambda x: careless(x.clone()), X, C4)
    kept = X.clone()
    assert torch.equal(equivariance_error(careless, X, C4), expected)
    assert torch.equal(X, kept)


def test_a_map_that_reuses_its_output_is_measured_rightly():
    torch.manual_seed(0)
    conv, memory = nn.Conv2d(3, 3, 3, padding=1), torch.empty(4, 3, 12, 12)
    found = equivariance_error(lambda x: memory.copy_(conv(x)), X, C4)
    assert torch.equal(found, equivariance_error(conv, X, C4))


@pytest.mark.parametrize(
    ("f", "x", "error", "message"),
    [
        (lambda x: (x, x), X, TypeError, r"returned a tuple of 2, expected one tensor.*model\(x\)\[0\]"),
        (lambda x: [x], X, TypeError, "returned a list of 1, expected one tensor"),
        (lambda x: x, [X, X], TypeError, r"expected x of type Tensor, got \[torch.float32 of shape"),
        (lambda x: x[..., :6], X, ValueError, r"turned is \(4, 3, 6, 12\), but \(4, 3, 12, 6\)"),
    ],
)  # fmt: skip
def test_error_of_what_is_no_tensor(f, x, error, message):
    with pytest.raises(error, match=message):
        equivariance_error(f, x, C4)


class Quadrants(nn.Module):
    """The encoder runs on parts of the image, as in the first stages of MPRNet."""

    def __init__(self, halves=False):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.encoder = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.halves = halves

    def forward(self, x):
        z = self.first(x)
        h, w = (s // 2 for s in z.shape[-2:])
        rows = [z[..., :h, :], z[..., h:, :]]
        if not self.halves:
            rows = [
                torch.cat([self.encoder(r[..., :w]), self.encoder(r[..., w:])], 3) for r in rows
            ]
        else:
            rows = [self.encoder(r) for r in rows]
        return self.norm(torch.cat(rows, 2))


def test_parts_of_the_image_are_never_compared():
    model = Quadrants()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    reg = EquivarianceRegularizer(model, C4)
    with pytest.raises(ValueError, match="layer 'encoder' runs on parts .* its upper left alone"):
        reg(X, g=2)
    # The look at the parts itself leaves no trace: one training pass counted, hooks and modes as before.
    assert model.norm.training and not model.encoder._forward_hooks
    assert int(model.norm.num_batches_tracked) == int(before["norm.num_batches_tracked"]) + 1
    out = EquivarianceRegularizer(model, C4, layers="first")(X)
    assert list(out.per_layer) == ["first"]
    with pytest.raises(ValueError, match="layer 'encoder' put out features of 6 x 12: a part of"):
        EquivarianceRegularizer(Quadrants(halves=True), C4)(X, g=1)
    with pytest.raises(ValueError, match="sees its upper left and upper right alone"):
        EquivarianceRegularizer(Quadrants(halves=True), C4)(X, g=2)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_layer_that_runs_twice_on_the_whole_image_is_compared(refuses):
    """Also where the look at parts of the image, in eval mode, is not possible."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.refuses = refuses
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x, t):
            if self.refuses and not self.training:
                raise RuntimeError("for training only")
            return self.conv(self.conv(x).relu() * t[:, None, None, None])

    out = EquivarianceRegularizer(Twice(), C4)(torch.rand(2, 4, 8, 8), torch.rand(2))
    assert list(out.per_layer) == ["conv", "conv#2"]
