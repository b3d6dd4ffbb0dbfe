"""The unfolded dictionary network: its steps are gradient steps, its twin is equivariant."""

import pytest
import torch

from eqreg import C4, C8, EquivarianceRegularizer, equivariance_error, layer_errors, rotate
from eqreg.models.dicdnet import DICDNet, MapNet

SMALL = {"stages": 2, "maps": 8, "width": 8, "blocks": 1, "dictionary_size": 5}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def case():
    """ma, li and metal: (2, 1, 12, 12)."""
    ma, li = torch.rand(2, 2, 1, 12, 12, generator=seeded(), dtype=torch.float64)
    metal = torch.zeros(2, 1, 12, 12, dtype=torch.float64)
    metal[0, 0, 3:5, 7:9] = 1
    return ma, li, metal


@pytest.mark.parametrize("strict", [None, C4, C8], ids=str)
def test_the_gradients_are_those_of_the_objective(case, strict):
    model = DICDNet(**SMALL, strict=strict).double()
    y, x, metal = case
    m = torch.randn(2, 8, 12, 12, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    x = x.clone().requires_grad_()
    by_autograd = torch.autograd.grad(model.objective(x, m, y, 1 - metal), (x, m))
    for ours, theirs in zip(model.gradients(x, m, y, 1 - metal), by_autograd, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_each_stage_takes_the_steps_of_the_problem(case):
    # With proximal maps that do nothing, a stage is a gradient step in M and one in X.
    model = DICDNet(**SMALL).double()
    for net in (*model.map_nets, *model.image_nets):
        net.refine = lambda h: h
    with torch.no_grad():
        for net in model.map_nets:
            net.threshold.zero_()
        for net in model.image_nets:
            net.read.weight.zero_()
    y, li, metal = case
    outside = 1 - metal
    x, m = li.clone(), torch.zeros(2, 8, 12, 12, dtype=torch.float64)
    values = [model.objective(x, m, y, outside).item()]
    for _ in range(2):
        m = m.detach().requires_grad_()
        (step,) = torch.autograd.grad(model.objective(x, m, y, outside), m)
        m = (m - 0.5 * step).detach()
        x = x.detach().requires_grad_()
        (step,) = torch.autograd.grad(model.objective(x, m, y, outside), x)
        x = (x - 0.5 * step).detach()
        values.append(model.objective(x, m, y, outside).item())
    assert torch.allclose(model(y, li, metal), x, atol=1e-12)
    assert values[0] > values[1] > values[2], "steps of this length descend"


def test_the_metal_is_left_to_the_prior(case):
    model = DICDNet(**SMALL).double()
    y, li, metal = case
    other = y + 5 * metal
    assert torch.equal(model(y, li, metal), model(other, li, metal))


@pytest.mark.parametrize("strict", [None, C4], ids=str)
def test_the_dictionary_has_norm_one(strict):
    torch.manual_seed(0)
    model = DICDNet(**SMALL, strict=strict)
    m = torch.randn(1, 8, 40, 40, generator=seeded())
    with torch.no_grad():
        for _ in range(150):
            a = model.dictionary(m)
            outside = torch.ones_like(a)
            _, m = model.gradients(torch.zeros_like(a), m, torch.zeros_like(a), outside)
            norm = m.norm()
            m = m / norm
    assert 0.9 < float(norm) < 1.001


def test_maps_become_sparse():
    net = MapNet(4, 1, 3, None)
    with torch.no_grad():
        net.threshold.fill_(0.3)
    net.refine = lambda h: h
    m = torch.tensor([-1.0, -0.2, 0.1, 0.5]).reshape(1, 4, 1, 1)
    out = net(m, torch.zeros_like(m)).flatten()
    assert torch.allclose(out, torch.tensor([-0.7, 0.0, 0.0, 0.2]))


def test_it_starts_near_a_repair_of_its_input():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 24, 24)
    with torch.no_grad():
        y = DICDNet(4, 8, 8, 1)(x, x, torch.zeros_like(x))
    assert (y - x).std() < 0.5 * x.std()


@pytest.mark.parametrize("strict", [None, C4], ids=str)
def test_every_part_learns(strict):
    model = DICDNet(**SMALL, strict=strict, every_stage=True)
    ma, li = torch.rand(2, 2, 1, 12, 12, generator=seeded())
    out = model(ma, li, torch.zeros(2, 1, 12, 12, dtype=torch.bool))
    assert out.shape == (2, 2, 12, 12)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_last_stage_is_the_result(case):
    torch.manual_seed(0)
    every = DICDNet(**SMALL, every_stage=True).double()
    last = DICDNet(**SMALL).double()
    last.load_state_dict(every.state_dict())
    assert torch.equal(every(*case)[:, -1:], last(*case))


# ---- symmetry


def test_the_twin_is_equivariant_and_the_plain_one_is_not(case):
    torch.manual_seed(0)
    plain = DICDNet(**SMALL).double()
    ma, li, metal = case
    for model, low, high in ((plain, 1e-7, 1), (plain.twin(C4).double(), 0, 1e-24)):
        for k in (1, 3):
            y = rotate(model(ma, li, metal), k)
            y_g = model(rotate(ma, k), rotate(li, k), rotate(metal, k))
            assert low <= ((y - y_g).square().sum() / y.square().sum()).item() <= high


def test_the_image_nets_can_be_regularised_alone(case):
    torch.manual_seed(0)
    model = DICDNet(**SMALL).double()
    reg = EquivarianceRegularizer(model, C4, layers="image_nets.*")
    out = reg(*case)
    assert out.per_layer and all(name.startswith("image_nets.") for name in out.per_layer)
    out.penalty.backward()
    assert out.y.shape == (2, 1, 12, 12)


def test_its_strict_image_nets_have_no_error():
    torch.manual_seed(0)
    net = DICDNet(**SMALL, strict=C4).double().image_nets[0]

    class OnImages(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x, 0 * x, x.new_zeros(len(x), 8, *x.shape[-2:]))[0]

    x = torch.rand(1, 1, 12, 12, generator=seeded(), dtype=torch.float64)
    assert equivariance_error(OnImages(), x, C4).max() < 1e-24
    assert max(layer_errors(OnImages(), x, C4).values()) < 1e-24


@pytest.mark.parametrize("group", [C4, C8], ids=str)
def test_sizes_of_the_twins(group):
    plain = DICDNet(stages=2, maps=16, width=16, blocks=1, kernel_size=5)
    width, equal = plain.twin(group), plain.twin(group, "parameters")
    assert parameters(width) < 0.45 * parameters(plain)
    assert parameters(equal) == pytest.approx(parameters(plain), rel=0.3)
    assert width.width == 16 and equal.width > 16 and equal.strict == group
    with pytest.raises(ValueError, match='"width" or "parameters", got \'depth\''):
        plain.twin(group, "depth")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"stages": 0}, "stages must be positive, got 0"),
        ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
        ({"dictionary_size": 8}, "dictionary_size must be odd, got 8"),
        ({"maps": 6, "strict": C4}, "divisible by the 4 elements of C4, got 6 and 16"),
    ],
)
def test_it_refuses_sizes_that_do_not_fit(setting, message):
    with pytest.raises(ValueError, match=message):
        DICDNet(**setting)


def test_it_refuses_images_that_do_not_fit():
    model, x = DICDNet(**SMALL), torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"one shape \(B, 1, H, W\), got .*\(1, 1, 8, 7\)"):
        model(x, x, torch.zeros(1, 1, 8, 7))
    with pytest.raises(ValueError, match=r"got \(1, 3, 8, 8\)"):
        model(x.expand(-1, 3, -1, -1), x, x)
