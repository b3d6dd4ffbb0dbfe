"""The plan: which layers are compared, with which field, and why others are not."""

import pytest
import torch
from torch import nn

from eqreg import C1, C2, C4, C8, EquivarianceRegularizer
from eqreg.strict import GroupConv2d


def net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.Conv2d(16, 18, 3, padding=1),
        nn.Conv2d(18, 12, 3, padding=1),
        nn.PixelShuffle(2),
        nn.Conv2d(3, 1, 1),
        nn.Conv2d(1, 3, 1),
    )


def plan(model, group=C4, **kwargs):
    return EquivarianceRegularizer(model, group, **kwargs).plan


def test_automatic_plan_and_its_reasons():
    rows = {row.name: row for row in plan(net()).rows}
    assert {n: str(r.field) for n, r in rows.items()} == {
        "0": "4r", "1": "None", "2": "None", "4": "1t", "5": "3t",
    }  # fmt: skip
    assert rows["1"].reason == "18 channels are not a multiple of 4"
    assert "PixelShuffle" in rows["2"].reason
    assert "as many channels as the input" in rows["5"].reason


def test_plan_prints_a_table():
    text = str(plan(net())).splitlines()
    assert text[0].split() == ["layer", "type", "channels", "C4", "field", "why"]
    assert text[2].split()[:4] == ["1", "Conv2d", "18", "skipped"]
    assert len(text) == 6


def test_last_layer_of_four_channels_is_an_image_if_the_input_is():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 4, 3))
    assert [str(f) for f in plan(model).fields.values()] == ["2r", "4t"]


def test_scores_of_four_classes_are_an_output_and_no_regular_field():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    rows = plan(model).rows
    assert [str(r.field) for r in rows] == ["2r", "4t"]
    assert "an output, which is trivial unless fields= says otherwise" in rows[1].reason
    assert str(plan(model, fields={"2": "1r"}).fields["2"]) == "1r"
    # Not where linear layers follow, as in classifiers.
    model.append(nn.Linear(4, 10))
    assert [str(r.field) for r in plan(model).rows] == ["2r", "1r"]


def test_strict_layers_keep_their_own_field():
    model = nn.Sequential(GroupConv2d(C4.field("1t"), C4.field("1t + 2r"), 3), nn.Conv2d(9, 1, 1))
    assert [str(f) for f in plan(model).fields.values()] == ["1t + 2r", "1t"]
    assert "belongs to C4" in plan(model, C2).rows[0].reason


@pytest.mark.parametrize(
    "layers",
    [
        "body.*",
        ["body.0", "body.1"],
        lambda name, m: name.startswith("body."),
        [nn.ConvTranspose2d, "body.0"],
    ],
)
def test_selectors(layers):
    model = nn.Module()
    model.head = nn.Conv2d(1, 4, 3)
    model.body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ConvTranspose2d(8, 4, 2))
    assert list(plan(model, layers=layers).fields) == ["body.0", "body.1"]


def test_fields_override_and_add_layers():
    model = nn.Sequential(nn.Conv2d(3, 35, 3), nn.Sequential(nn.ReLU()))
    fields = plan(model, fields={"0": "3t + 8r", "1": C4.field("35t")}).fields
    assert {n: str(f) for n, f in fields.items()} == {"0": "3t + 8r", "1": "35t"}


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"layers": "bodi"}, ValueError, "layers: no layer .* matches 'bodi'; did you mean 'body'"),
        ({"layers": "head.*"}, ValueError, "matches 'head"),
        ({"layers": nn.Linear}, ValueError, "layers=Linear: the model has no such module"),
        (
            {"layers": [3]},
            TypeError,
            r"names, globs, module types or a predicate\(name, module\), got 3",
        ),
        ({"layers": []}, ValueError, "no layer to compare under C4"),
        ({"layers": nn.ReLU}, ValueError, "no layer to compare under C4"),
        (
            {"layers": "act"},
            ValueError,
            "layer 'act' cannot be compared: it does not say how many channels",
        ),
        (
            {"layers": ["body", "odd"]},
            ValueError,
            "layer 'odd' cannot be compared: 18 channels are not",
        ),
        ({"fields": {"tail": "1r"}}, ValueError, "fields: no layer .* 'tail'"),
        (
            {"fields": {"body": C8.field("1r")}},
            ValueError,
            "is a field of C8, but the regularizer's group is C4",
        ),
        ({"fields": {"body": "3r"}}, ValueError, r"has 12 channels, but layer 'body' puts out 8"),
        ({"fields": {"body": 8}}, TypeError, r"must be a FieldType or a string like"),
        ({"fields": {"body": "eight"}}, ValueError, "cannot read field type 'eight'"),
        ({"group": C1}, ValueError, "C1 holds the identity alone"),
        ({"group": "C4"}, TypeError, "group must be a Group such as C4, got 'C4'"),
        ({"norm": "l2"}, ValueError, "norm must be one of .* got 'l2'"),
        ({"fraction": 0}, ValueError, r"fraction must lie in \(0, 1\], got 0"),
        ({"every": 1.5}, ValueError, "every must be an int >= 1, got 1.5"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    model = nn.Module()
    model.body, model.act, model.odd = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 18, 3)
    with pytest.raises(error, match=message):
        EquivarianceRegularizer(model, **{"group": C4, **kwargs})


def test_models_without_a_layer_that_fits():
    with pytest.raises(
        ValueError, match="multiple of 4.*\n.*\n.*18 channels are not a multiple of 4"
    ):
        plan(nn.Conv2d(1, 18, 3))
    with pytest.raises(ValueError, match="Linear holds no convolution"):
        plan(nn.Linear(3, 4))
    with pytest.raises(TypeError, match="must be a torch.nn.Module, got function"):
        plan(lambda x: x)


def test_wrong_field_found_at_the_first_call():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Sequential(nn.Identity()))
    reg = EquivarianceRegularizer(model, C4, fields={"1": "1r"})
    with pytest.raises(ValueError, match=r"layer '1' put out 8 channels, but its field .* has 4"):
        reg(torch.rand(1, 1, 8, 8))
