"""Weights under the group: projection, distance, penalty and decay."""

import copy
import importlib.util
import itertools
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, mse_loss
from torch.nn.utils import parametrizations

from eqreg import (
    C1,
    C2,
    C4,
    C8,
    D4,
    EquivarianceDecay,
    ProjectionPenalty,
    equivariance_distance,
    equivariance_error,
    equivariant_init_,
    layer_errors,
    project,
)
from eqreg.models import ResidualNet
from eqreg.soft import remainders
from eqreg.strict import GroupConv2d, equivariant, escnn, to_plain


def small_net(width=8, depth=3, channels=1, norm=None, seed=0):
    """Convolution, (norm,) ReLU, ..., convolution, in float64, with biases of all sizes."""
    torch.manual_seed(seed)
    widths = [channels, *[width] * (depth - 1), channels]
    layers = []
    for c_in, c_out in itertools.pairwise(widths):
        layers.append(nn.Conv2d(c_in, c_out, 3, padding=1))
        if len(layers) < 3 * (depth - 1):
            layers += [norm(c_out)] if norm else []
            layers.append(nn.ReLU())
    net = nn.Sequential(*layers[:-1] if isinstance(layers[-1], nn.ReLU) else layers).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


def image(size=12, channels=1, batch=2):
    return torch.rand(batch, channels, size, size).double()


def distances(model, group=C4, **options):
    return list(equivariance_distance(model, group, **options).values())


def parameters(model):
    return [p.detach().clone() for p in model.parameters()]


# ---- project ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "out", "inp", "size", "free"),
    [
        (C4, "1r", "1r", 3, 36),
        (C4, "2r", "1t", 3, 18),
        (C4, "1t", "2r", 5, 50),
        (C2, "1r", "1r", 3, 18),
        (C2, "2r", "1t", 3, 18),
        (C4, "1t", "1t", 3, 3),
        (C4, "1t", "1t", 5, 7),
        (D4, "1t", "1t", 3, 3),
        (D4, "1t", "1t", 5, 6),
        (D4, "1r", "1r", 3, 72),
        (C8, "1r", "2r", 1, 16),
    ],
)
def test_dimension_is_the_trace(group, out, inp, size, free):
    out, inp = group.field(out), group.field(inp)
    shape = (out.channels, inp.channels, size, size)
    units = torch.eye(math.prod(shape), dtype=torch.float64).reshape(-1, *shape)
    trace = sum(float(project(u, inp, out).flatten() @ u.flatten()) for u in units)
    assert trace == pytest.approx(free, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_and_layout_are_kept(dtype):
    w = torch.randn(8, 4, 3, 3).to(dtype)
    expected = project(w.double(), C4.field("1r"), C4.field("2r"))
    for given in (w, w.to(memory_format=torch.channels_last), w.transpose(2, 3).mT):
        out = project(given, C4.field("1r"), C4.field("2r"))
        assert out.dtype == dtype and out.shape == w.shape
        assert torch.allclose(out.double(), expected, atol=4 * torch.finfo(dtype).eps)


def test_a_vector_becomes_the_mean_over_each_field():
    b = torch.arange(6.0)
    expected = [0.0, 1.0, 3.5, 3.5, 3.5, 3.5]
    assert project(b, None, C4.field("2t + 1r")).tolist() == expected


def test_a_matrix_becomes_circulant():
    w = project(torch.randn(4, 4), C4.field("1r"), C4.field("1r"))
    for i, j in itertools.product(range(4), range(4)):
        assert w[i, j] == pytest.approx(w[0, (j - i) % 4].item(), abs=1e-6)


def test_kernels_that_are_not_square_can_turn_by_180_degrees():
    w = torch.randn(2, 1, 1, 3)
    out = project(w, C2.field("1t"), C2.field("1r"))
    assert torch.allclose(out[1], out[0].flip(-1, -2))


def test_gradient_is_the_projected_gradient():
    w = torch.randn(4, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    field = C4.field("1r")
    a = torch.randn_like(w)
    (project(w, field, field) * a).sum().backward()
    assert torch.allclose(w.grad, project(a, field, field))

    small = torch.randn(4, 1, 1, 2, dtype=torch.float64, requires_grad=True)

    def cube(w):
        return project(w, C2.field("1t"), C2.field("2r")) ** 3

    assert torch.autograd.gradcheck(cube, small)
    assert torch.autograd.gradgradcheck(cube, small)


@pytest.mark.parametrize(
    ("groups", "shape"), [(1, (8, 8, 3, 3)), (2, (8, 4, 3, 3)), (8, (8, 1, 3, 3))]
)
def test_groups_that_keep_the_fields_apart_or_single(groups, shape):
    field = C4.field("2r")
    w = project(torch.randn(shape, dtype=torch.float64), field, field, groups=groups)
    z = torch.randn(1, 8, 9, 9, dtype=torch.float64)

    def layer(z):
        return conv2d(z, w, padding=1, groups=groups)

    assert equivariance_error(layer, z, C4, field_in=field, field_out=field).max() < 1e-24


@pytest.mark.parametrize(
    ("weight", "fields", "options", "error", "message"),
    [
        (torch.ones(1, 1, 3, 3).long(), ("1t", "1t"), {}, TypeError, "floating.*got torch.int64"),
        ([1.0], ("1t", "1t"), {}, TypeError, "weight must be a tensor, got list"),
        (torch.ones(4, 2, 3, 3), ("1t", "1r"), {}, ValueError,
         r"1t -> 1r with groups=1 needs a weight \(4, 1\[, K, K\]\), got shape \(4, 2, 3, 3\)"),
        (torch.ones(3), (None, "1r"), {}, ValueError, r"needs a weight \(4\), got shape \(3,\)"),
        (torch.ones(4, 1, 3), ("1t", "1r"), {}, ValueError, r"got shape \(4, 1, 3\)"),
        (torch.ones(4, 1, 1, 3), ("1t", "1r"), {}, ValueError, "needs square kernels, got 1x3"),
        (torch.ones(8, 2, 3, 3), ("2r", "2r"), {"groups": 4}, ValueError,
         "groups=4 cuts through the fields 2r -> 2r of C4"),
    ],
)  # fmt: skip
def test_what_cannot_be_projected(weight, fields, options, error, message):
    inp, out = (None if f is None else C4.field(f) for f in fields)
    with pytest.raises(error, match=message):
        project(weight, inp, out, **options)


def test_fields_of_two_groups_and_kernels_turned_by_45_degrees():
    with pytest.raises(ValueError, match=r"fields must belong to one group, got C2.*C4"):
        project(torch.ones(4, 1, 3, 3), C2.field("1t"), C4.field("1r"))
    with pytest.raises(ValueError, match=r"45 degrees, and 3x3 kernels .* strict.FourierConv2d"):
        project(torch.ones(8, 1, 3, 3), C8.field("1t"), C8.field("1r"))


# ---- which layers ------------------------------------------------------------------------------


def test_the_plan_can_be_read():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 10, 3), nn.Conv2d(10, 3, 3)
    )
    text = str(EquivarianceDecay(net, C4, in_fields={"4": "10t"}).plan)
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["layer", "type", "C4", "in", "out", "why"]
    assert rows[1][:4] == ["0", "Conv2d", "3t", "2r"]
    assert rows[2][:4] == ["1", "BatchNorm2d", "-", "2r"]
    assert rows[3][:5] == ["3", "Conv2d", "-", "left", "free"]
    assert rows[4][:4] == ["4", "Conv2d", "10t", "3t"]
    assert "10 channels are not a multiple of 4" in text


def test_concatenations_ask_for_their_type_and_take_it():
    net = nn.ModuleDict({"first": nn.Conv2d(3, 8, 3), "second": nn.Conv2d(11, 8, 3)})
    plan = EquivarianceDecay(net, C4).plan
    assert list(plan.tied) == ["first"]
    assert "give in_fields={'second': ...} for its 11 input channels" in str(plan)
    tied = EquivarianceDecay(net, C4, in_fields={"second": "3t + 2r"}).plan.tied
    assert tied["second"].in_field == C4.field("3t + 2r")


def test_before_pixel_shuffle_nothing_is_tied():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3), nn.PixelShuffle(2))
    plan = EquivarianceDecay(net, C4).plan
    assert list(plan.tied) == ["0"]
    assert "sub-pixel channels are in raster order" in str(plan)


def test_parametrized_weights_are_left_alone_and_say_so():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.Conv2d(8, 1, 3)
    )
    decay = EquivarianceDecay(net, C4, math.inf)
    assert list(decay.plan.tied) == ["0", "2"]
    assert "1      ParametrizedConv2d  -      left free  its weight is computed" in str(decay.plan)
    before = parameters(net[1])
    decay.step(1.0)
    assert all(map(torch.equal, before, net[1].parameters()))
    with pytest.raises(ValueError, match="'1' cannot be tied: its weight is computed from others"):
        EquivarianceDecay(net, C4, layers="1")


def test_a_glob_may_match_what_holds_no_weights_and_a_name_may_not():
    body = nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Sequential(body, nn.ReLU()), nn.Conv2d(8, 1, 3))
    assert list(EquivarianceDecay(net, C4, layers="1.*").plan.tied) == ["1.0.0", "1.0.2"]
    assert list(EquivarianceDecay(net, C4, layers=iter(["1.*"])).plan.tied) == ["1.0.0", "1.0.2"]
    with pytest.raises(ValueError, match="'1.0' cannot be compared"):
        EquivarianceDecay(net, C4, layers=["1.*", "1.0"])
    with pytest.raises(ValueError, match="no layer to compare under C4"):
        EquivarianceDecay(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), C4, layers="1*")


def test_strict_layers_are_left_alone():
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), GroupConv2d(C4.field("2r"), C4.field("2r"), 3)
    )
    decay = EquivarianceDecay(net, C4, math.inf, layers=["0", "2"])
    assert list(decay.plan.tied) == ["0"]
    assert "strict: equivariant whatever its weights" in str(decay.plan)
    before = parameters(net[2])
    decay.step(1.0)
    assert all(map(torch.equal, before, net[2].parameters()))


def test_a_linear_layer_is_tied_if_it_is_named():
    net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Linear(8, 4))
    assert list(equivariance_distance(net, C4)) == ["0"]
    assert list(equivariance_distance(net, C4, layers=nn.Linear)) == ["1"]
    EquivarianceDecay(net, C4, math.inf, layers=["1"]).step(1.0)
    w = net[1].weight
    assert torch.allclose(w[:, :4], w[:, :4].roll((1, 1), (0, 1)), atol=1e-6)


def test_frozen_parameters_do_not_move():
    net = small_net()
    net[0].weight.requires_grad_(False)
    before = parameters(net)
    EquivarianceDecay(net, C4, math.inf).step(1.0)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved[:2] == [False, True] and moved[2]


def test_shared_weights_are_shrunk_once():
    net = small_net(depth=4)
    net[4].weight = net[2].weight
    decay = EquivarianceDecay(net, C4, 1.0)
    assert "4      Conv2d  2r     2r   shares its weight with an earlier layer" in str(decay.plan)
    w, field = net[2].weight.detach().clone(), C4.field("2r")
    decay.step(1.0)
    expected = w + (1 - math.exp(-1.0)) * (project(w, field, field) - w)
    assert torch.allclose(net[4].weight, expected, rtol=1e-12)


def test_a_module_that_is_used_twice_is_one_layer():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), conv, nn.ReLU(), conv)
    assert list(EquivarianceDecay(net, C4).strengths) == ["0", "1"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strength": -1}, ValueError, "strength of layer '0' must be at least 0, got -1"),
        ({"strength": math.nan}, ValueError, "must be at least 0, got nan"),
        ({"strength": {"q": 1}}, ValueError, r"expected names among \['0', '2', '4'\], got 'q'"),
        ({"strength": {"2": -1}}, ValueError, "strength of layer '2' must be at least 0, got -1"),
        ({"layers": "convolution"}, ValueError, "layers: no layer .* 'convolution'"),
        ({"layers": nn.Linear}, ValueError, "layers=Linear: the model has no such module"),
        ({"layers": "1"}, ValueError, "layer '1' cannot be compared: it does not say"),
        ({"layers": 3}, TypeError, "not iterable|layers takes names"),
        ({"fields": {"0": "3r"}}, ValueError, "has 12 channels, but layer '0' puts out 8"),
        ({"fields": {"0": C2.field("4r")}}, ValueError, "is a field of C2"),
        ({"in_fields": {"q": "1t"}}, ValueError, "in_fields: no layer .* 'q'"),
        ({"in_fields": {"2": "1t"}}, ValueError, "has 1 channels, but layer '2' takes in 8"),
        ({"in_fields": {"2": C2.field("4r")}}, TypeError, r"in_fields\['2'\] must be a field of C4"),
        ({"in_fields": {"2": 8}}, TypeError, "or a string like .* got 8"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(options, error, message):
    for make in (EquivarianceDecay, ProjectionPenalty, equivariance_distance, equivariant_init_):
        if make is EquivarianceDecay or "strength" not in options:
            with pytest.raises(error, match=message):
                make(small_net(), C4, **options)


def test_models_without_anything_to_tie():
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        EquivarianceDecay(3, C4)
    with pytest.raises(TypeError, match="group must be a Group such as C4, got 4"):
        EquivarianceDecay(small_net(), 4)
    with pytest.raises(ValueError, match="C1 holds the identity alone"):
        EquivarianceDecay(small_net(), C1)
    with pytest.raises(ValueError, match="Linear holds no convolution"):
        EquivarianceDecay(nn.Linear(3, 3), C4)
    with pytest.raises(ValueError, match=r"no parameters to tie under C8:(.|\n)*45 degrees"):
        EquivarianceDecay(small_net(), C8)
    with pytest.raises(ValueError, match=r"no parameters to tie under C4:(.|\n)*strict"):
        EquivarianceDecay(equivariant(ResidualNet(8, 8, 3), C4), C4)


@pytest.mark.parametrize("lr", [-1e-3, math.inf, math.nan])
def test_learning_rates_out_of_range(lr):
    with pytest.raises(ValueError, match=f"lr must be at least 0 and finite, got {lr}"):
        EquivarianceDecay(small_net(), C4).step(lr)


# ---- networks become equivariant ---------------------------------------------------------------


@pytest.mark.parametrize("group", [C2, C4, D4], ids=repr)
def test_projected_networks_are_equivariant(group):
    net = small_net()
    assert equivariance_error(net, image(), group).min() > 1e-3
    EquivarianceDecay(net, group, math.inf).step(1.0)
    assert equivariance_error(net, image(), group).max() < 1e-24
    assert max(layer_errors(net, image(), group).values()) < 1e-24
    assert max(distances(net, group)) < 1e-28


def test_c8_on_single_taps():
    net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1)).double()
    EquivarianceDecay(net, C8, math.inf).step(1.0)
    z, field = image(), C8.field("2r")
    for g in range(8):
        shifted = net[2](net[0](z).unflatten(1, (1, 8)).roll(g, 2).flatten(1, 2))
        expected = net[2](net[0](z)).unflatten(1, (2, 8)).roll(g, 2).flatten(1, 2)
        assert torch.allclose(shifted, expected, atol=1e-12)
    assert field.channels == 16


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (nn.Conv2d(8, 8, 3, padding=2, dilation=2), 9),
        (nn.Conv2d(8, 8, 3, padding=1, stride=2), 9),
        (nn.Conv2d(8, 8, 2, stride=2), 8),
        (nn.Conv2d(8, 4, 5, padding=2, padding_mode="reflect"), 9),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 9),
        (nn.Conv2d(8, 16, 3, padding=1, groups=2), 9),
        (nn.Conv2d(8, 8, 1, bias=False), 9),
        (nn.ConvTranspose2d(8, 4, 2, stride=2), 6),
        (nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1), 6),
        (nn.ConvTranspose2d(8, 16, 3, padding=1, groups=2), 6),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:strided layers")  # exact at this size
def test_kinds_of_convolutions(layer, size):
    layer = copy.deepcopy(layer).double()
    channels = {"fields": {"(model)": f"{layer.out_channels // 4}r"}}
    decay = EquivarianceDecay(layer, C4, math.inf, in_fields={"(model)": "2r"}, **channels)
    types = {"field_in": C4.field("2r"), "field_out": C4.field(f"{layer.out_channels // 4}r")}
    z = torch.randn(2, 8, size, size).double()
    assert equivariance_error(layer, z, C4, **types).min() > 0.1
    decay.step(1.0)
    assert equivariance_error(layer, z, C4, **types).max() < 1e-24


def test_groups_that_cut_through_fields():
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=4))
    plan = EquivarianceDecay(net, C4).plan
    assert list(plan.tied) == ["0"]
    assert "groups=4 cuts through the fields 2r -> 2r of C4" in str(plan)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda c: nn.GroupNorm(2, c)])
def test_normalisation_follows(norm):
    net = small_net(norm=norm)
    assert equivariance_error(net, image(), C4).min() > 1e-4
    EquivarianceDecay(net, C4, math.inf).step(1.0)
    batch = torch.cat([torch.rot90(image(), k, (2, 3)) for k in range(4)])
    net.train()  # batch statistics of a closed batch; the running ones are per channel
    errors = net(torch.rot90(batch, 1, (2, 3))) - torch.rot90(net(batch), 1, (2, 3))
    assert errors.abs().max() < 1e-12
    assert net[1].weight.detach()[:4].std() < 1e-12
    free = EquivarianceDecay(net, C4, layers=nn.Conv2d)
    assert all(isinstance(row.module, nn.Conv2d) for row in free.plan.tied.values())


def test_strict_networks_have_no_distance():
    twin = to_plain(equivariant(ResidualNet(width=8, depth=4), C4))
    assert max(distances(twin)) < 1e-12
    twin = to_plain(equivariant(ResidualNet(width=16, depth=3), D4))
    assert max(distances(twin, D4)) < 1e-12
    # Under the rotations alone a field of D4 is two fields of C4, in this order of channels.
    assert max(distances(twin, C4)) < 1e-12
    twin = to_plain(equivariant(ResidualNet(width=16, depth=3), C4))
    assert max(distances(twin, D4)) > 0.1


@pytest.mark.parametrize("group", [C2, C4], ids=repr)
def test_escnn_agrees(group, unavailable):
    if importlib.util.find_spec("escnn") is None:
        unavailable("escnn is not installed: pip install --no-deps escnn==1.0.11")
    torch.manual_seed(0)
    inp, out = group.field("1t + 2r"), group.field("1r + 2t")
    layer = escnn.EscnnConv2d(inp, out, 3).to_plain()
    nn.init.zeros_(layer.bias)
    types = {"fields": {"(model)": out}, "in_fields": {"(model)": inp}}
    weight = layer.weight.detach()
    assert (project(weight, inp, out) - weight).norm() < 1e-5 * weight.norm()
    assert max(distances(layer, group, **types)) < 1e-10


# ---- equivariance_distance and equivariant_init_ -----------------------------------------------


@pytest.mark.parametrize(("group", "share"), [(C2, 0.5), (C4, 0.75), (D4, 0.875)])
def test_share_of_random_weights(group, share):
    torch.manual_seed(0)
    net = ResidualNet(width=32, depth=3)
    assert equivariance_distance(net.body[2], group, fields={"(model)": f"{32 // group.order}r"},
                                 in_fields={"(model)": f"{32 // group.order}r"}
                                 )["(model)"] == pytest.approx(share, abs=0.01)  # fmt: skip


def test_biases_count():
    layer = nn.Conv2d(1, 4, 1)
    nn.init.constant_(layer.weight, 1.0)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([2.0, 0.0, 0.0, 0.0]))
    # energy 4 + 4; the bias keeps 1 of its 4 in the mean
    assert equivariance_distance(layer, C4)["(model)"] == pytest.approx(3 / 8)


def test_zero_weights_have_distance_zero():
    layer = nn.Conv2d(1, 4, 3)
    for p in layer.parameters():
        nn.init.zeros_(p)
    assert equivariance_distance(layer, C4) == {"(model)": 0.0}
    assert ProjectionPenalty(layer, C4)().item() == 0.0


def test_equivariant_start():
    net = small_net(norm=nn.BatchNorm2d)
    norms = [p.norm() for p in net.parameters() if p.ndim > 1]
    assert equivariant_init_(net, C4) is net
    assert max(distances(net)) < 1e-28
    after = [p.norm() for p in net.parameters() if p.ndim > 1]
    assert torch.allclose(torch.stack(norms), torch.stack(after), rtol=1e-12)
    net.eval()  # running statistics of a new BatchNorm are those of all channels
    assert equivariance_error(net, image(), C4).max() < 1e-24


# ---- the penalty -------------------------------------------------------------------------------


def test_penalty_is_about_two_for_random_weights():
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(32, 32, 3, bias=False) for _ in range(3)))
    types = dict.fromkeys("012", "8r")
    for group in (C2, C4, D4):
        types = dict.fromkeys("012", f"{32 // group.order}r")
        penalty = ProjectionPenalty(net, group, fields=types, in_fields=types)
        assert penalty().item() == pytest.approx(2.0, abs=0.03)
        assert penalty().item() == pytest.approx(
            sum(v.item() for v in penalty.per_layer().values()) / 3
        )


def test_gradient_of_the_penalty():
    net = small_net()
    penalty = ProjectionPenalty(net, C4)
    penalty().backward()
    fields = {"0": ("1t", "2r"), "2": ("2r", "2r"), "4": ("2r", "1t")}
    for name, (inp, out) in fields.items():
        layer = net[int(name)]
        w, b, out = layer.weight.detach(), layer.bias.detach(), C4.field(out)
        factor = 2 * (2 * 4 / 3) / (w.square().sum() + b.square().sum()) / 3
        off, bias_off = w - project(w, C4.field(inp), out), b - project(b, None, out)
        assert torch.allclose(layer.weight.grad, factor * off, rtol=1e-10, atol=1e-14)
        assert torch.allclose(layer.bias.grad, factor * bias_off, rtol=1e-10, atol=1e-14)


def test_penalty_is_the_features_penalty_on_white_noise():
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular", bias=False).double()
    types = {"fields": {"(model)": "2r"}}
    z = torch.randn(400, 8, 8, 8, dtype=torch.float64)
    predicted = ProjectionPenalty(layer, C4, in_fields={"(model)": "2r"}, **types)().item()
    inp = {"field_in": C4.field("2r"), "field_out": C4.field("2r")}
    power = layer(z).square().sum((1, 2, 3))
    measured = equivariance_error(layer, z, C4, **inp) * power
    assert (measured.mean() / power.mean()).item() == pytest.approx(predicted, rel=0.01)


def test_compiled_models():
    net = small_net()
    compiled = torch.compile(net, backend="eager")
    for make in (ProjectionPenalty, EquivarianceDecay):
        assert list(make(compiled, C4).plan.tied) == ["0", "2", "4"]
    assert equivariance_distance(compiled, C4) == equivariance_distance(net, C4)


def test_data_parallel_models(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        net = small_net()
        parallel = nn.parallel.DistributedDataParallel(net)
        decay = EquivarianceDecay(parallel, C4, math.inf)
        assert list(decay.strengths) == ["0", "2", "4"]
        decay.step(1.0)
        assert max(distances(net)) < 1e-28
    finally:
        torch.distributed.destroy_process_group()


# ---- the decay ---------------------------------------------------------------------------------


def test_strength_zero_and_rate_zero_change_no_bit():
    net = small_net()
    before = parameters(net)
    EquivarianceDecay(net, C4, 0.0).step(1.0)
    EquivarianceDecay(net, C4, 40.0).step(0.0)
    assert all(map(torch.equal, before, net.parameters()))


def test_one_step_is_the_formula():
    net = small_net()
    twin = copy.deepcopy(net)
    EquivarianceDecay(twin, C4, math.inf).step(1e-3)
    before, target = parameters(net), parameters(twin)
    EquivarianceDecay(net, C4, 40.0).step(1e-3)
    for old, goal, new in zip(before, target, net.parameters(), strict=True):
        expected = goal + math.exp(-0.04) * (old - goal)
        assert torch.allclose(new, expected, rtol=1e-12, atol=1e-15)


def test_two_half_steps_are_one():
    one, two = small_net(), small_net()
    EquivarianceDecay(one, C4, 40.0).step(0.01)
    decay = EquivarianceDecay(two, C4, 40.0)
    decay.step(0.004)
    decay.step(0.006)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-15)


def test_a_strength_for_each_layer():
    net = small_net()
    before = parameters(net)
    decay = EquivarianceDecay(net, C4, {"2": math.inf})
    assert decay.strengths == {"0": 0.0, "2": math.inf, "4": 0.0}
    decay.step(1.0)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved == [False, False, True, True, False, False]
    decay.set_strength(3)
    assert decay.strengths == {"0": 3.0, "2": 3.0, "4": 3.0}
    decay.strengths["4"] = 0.0
    last = parameters(net)[-2]
    decay.step(1.0)
    assert torch.equal(last, net[4].weight) and not torch.equal(before[0], net[0].weight)
    assert repr(decay) == "EquivarianceDecay(C4, 3 layers)"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes_and_moves_after_construction(dtype):
    net = small_net().float()
    decay = EquivarianceDecay(net, C4, math.inf)
    decay.step(1.0)
    net.to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    decay.step(1.0)
    for layer, (inp, out) in {0: ("1t", "2r"), 2: ("2r", "2r")}.items():
        w = net[layer].weight.detach()
        assert w.dtype == dtype
        left = w - project(w, C4.field(inp), C4.field(out))
        assert left.abs().max() <= 4 * torch.finfo(dtype).eps * w.abs().max()


def test_the_device_is_followed():
    net = small_net()
    decay = EquivarianceDecay(net, C4, 40.0)
    decay.step(1e-3)
    net.to("meta")
    decay.step(1e-3)  # meta tensors fail where an index is left on another device
    assert net[0].weight.is_meta


def test_the_model_is_left_as_it_is():
    net = small_net(norm=nn.BatchNorm2d)
    attributes = [(n, sorted(vars(m))) for n, m in net.named_modules()]
    keys, statistics = list(net.state_dict()), net[1].running_var.clone()
    decay, penalty = EquivarianceDecay(net, C4, 40.0), ProjectionPenalty(net, C4)
    penalty().backward()
    grads = [p.grad.clone() for p in net.parameters()]
    decay.step(1e-2)
    equivariance_distance(net, C4)
    assert [(n, sorted(vars(m))) for n, m in net.named_modules()] == attributes
    assert list(net.state_dict()) == keys
    assert torch.equal(net[1].running_var, statistics)
    assert all(map(torch.equal, grads, (p.grad for p in net.parameters())))
    assert all(p.is_leaf and p.requires_grad for p in net.parameters())


def test_three_lines_in_a_training_loop():
    net = small_net().float()
    x = image().float()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    free, tied = copy.deepcopy(net), net
    for model, strength in ((free, 0.0), (tied, 200.0)):
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        decay = EquivarianceDecay(model, C4, strength)
        for _ in range(10):
            optimizer.zero_grad()
            mse_loss(model(x), x).backward()
            optimizer.step()
            decay.step(1e-2)
    assert min(distances(free)) > 0.2 and max(distances(tied)) < 0.02


def test_projecting_after_sgd_is_training_a_strict_network_at_a_quarter_of_the_rate():
    torch.manual_seed(0)
    strict = equivariant(ResidualNet(width=8, depth=3), C4).double()
    plain = to_plain(strict)
    x = image()
    quarter = torch.optim.SGD(strict.parameters(), 0.05 / 4)
    full = torch.optim.SGD(plain.parameters(), 0.05)
    decay = EquivarianceDecay(plain, C4, math.inf)
    # The last layer writes an image: its bias stands in one place only, as in the plain network.
    quarter.add_param_group({"params": [], "lr": 0.05})
    last = [p for n, p in strict.named_parameters() if n.startswith("body.4") and "bias" in n]
    quarter.param_groups[0]["params"] = [p for p in strict.parameters() if p is not last[0]]
    quarter.param_groups[1]["params"] = last
    for _ in range(5):
        for model, optimizer in ((strict, quarter), (plain, full)):
            optimizer.zero_grad()
            mse_loss(model(x), 2 * x).backward()
            optimizer.step()
        decay.step(0.05)
    assert torch.allclose(strict(x), plain(x), atol=1e-12)


def test_old_weight_norm_is_left_alone():
    """It computes ``weight`` before each call: shrinking that would do nothing, silently."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        normed = nn.utils.weight_norm(nn.Conv2d(8, 8, 3))
    net = nn.Sequential(nn.Conv2d(1, 8, 3), normed, nn.Conv2d(8, 1, 3))
    assert "1" not in EquivarianceDecay(net, C4).plan.tied


def test_frozen_models_can_be_measured():
    net = small_net()
    expected = equivariance_distance(net, C4)
    net.requires_grad_(False)
    assert equivariance_distance(net, C4) == pytest.approx(expected)


def test_after_a_strict_layer_features_are_no_image():
    net = nn.Sequential(GroupConv2d(C4.field("1t"), C4.field("2r"), 3), nn.Conv2d(8, 8, 3))
    assert EquivarianceDecay(net, C4).plan.tied["1"].in_field == C4.field("2r")


def test_a_start_from_weights_whose_projection_is_zero():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Conv2d(1, 4, 1))
    with torch.no_grad():  # a saddle: quarter turns take it to its negative
        saddle = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
        net[0].weight.copy_(5 * saddle[None, None])
    assert equivariant_init_(net, C4)[0].weight.isfinite().all()


def test_fields_of_one_layer_do_not_name_all_the_others():
    normed = parametrizations.weight_norm(nn.Conv2d(8, 8, 3))
    net = nn.Sequential(nn.Conv2d(1, 8, 3), normed, nn.Conv2d(8, 1, 3))
    assert list(EquivarianceDecay(net, C4, fields={"0": "2r"}).plan.tied) == ["0", "2"]


def test_a_shared_weight_does_not_free_the_bias():
    net = small_net(depth=4)
    net[4].weight = net[2].weight
    EquivarianceDecay(net, C4, math.inf).step(1.0)
    assert net[4].bias.detach().unflatten(0, (2, 4)).std(1).max() < 1e-12


def test_slopes_of_prelu_are_tied():
    net = small_net()
    net[1] = nn.PReLU(8).double()
    nn.init.uniform_(net[1].weight)
    EquivarianceDecay(net, C4, math.inf).step(1.0)
    assert equivariance_error(net, image(), C4).max() < 1e-24


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide(groups):
    with pytest.raises(ValueError, match=f"groups={groups} .*divide"):
        project(torch.ones(8, 2, 3, 3), C4.field("2r"), C4.field("2r"), groups=groups)


@pytest.mark.parametrize("at_once", [2**20, 300, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_are_alike_shrink_together_as_each_alone(at_once, dtype, monkeypatch):
    """To the bit, whatever fits at once; each with its own strength, the frozen ones not at all."""
    monkeypatch.setattr(remainders, "_AT_ONCE", at_once)

    def net():
        torch.manual_seed(0)
        convs = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)]
        return nn.Sequential(nn.Conv2d(1, 8, 3), *convs, nn.Conv2d(8, 1, 1)).to(dtype)

    model, strengths = net(), {"1": 3.0, "2": 3.0, "3": 5.0, "4": 3.0}
    model[4].weight.requires_grad_(False)
    decay = EquivarianceDecay(model, C4, strengths)
    for _ in range(2):
        decay.step(0.1)
    for i in range(6):
        alone = net()
        alone[4].weight.requires_grad_(False)
        one = EquivarianceDecay(alone, C4, {str(i): strengths.get(str(i), 0.0)})
        for _ in range(2):
            one.step(0.1)
        assert torch.equal(model[i].weight, alone[i].weight)
        assert torch.equal(model[i].bias, alone[i].bias)
        moved = str(i) in strengths and i != 4
        assert torch.equal(model[i].weight, net()[i].weight) != moved
