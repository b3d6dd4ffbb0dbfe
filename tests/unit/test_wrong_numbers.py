"""Arguments that used to give a number without a word: now the right one, or a sentence."""

import math

import pytest
import torch
from torch import nn

from eqreg import (
    C1,
    C4,
    C8,
    CyclicGroup,
    EquivarianceDecay,
    check,
    equivariance_distance,
    equivariance_error,
    lie_error,
    luma,
    psnr,
    rotate,
    ssim,
    suggest_strength,
    valid_mask,
)
from eqreg.layers.reynolds import Indices, _indices, source_index
from eqreg.physics import inpainting
from eqreg.physics.ct import (
    FBP,
    ParallelBeam,
    Protocol,
    hu_to_mu,
    mar_psnr,
    mar_ssim,
    measure,
    mu_to_hu,
    rmse_hu,
)
from eqreg.soft import PathwayDecay, eq_reg_t

X = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("group", "g"), [(C4, 1), (C4, 2), (C8, 2), (C8, 6), (CyclicGroup(12), 3)])
@pytest.mark.parametrize("margin", [0, 1, 1.5])
def test_valid_mask_has_the_size_of_the_turned_image(group, g, margin):
    inside = torch.zeros(3, 5, dtype=torch.bool)
    inset = math.ceil(margin)
    inside[inset : 3 - inset, inset : 5 - inset] = True
    assert torch.equal(valid_mask((3, 5), g, group, margin=margin), rotate(inside, g, group))


def test_attenuation_taken_for_hu_is_told():
    """All of it is water: the slice would be scanned as an empty bath."""
    with pytest.warns(
        UserWarning, match=r"0.\d+ to 0.1\d+ HU is all water; are these attenuations in 1/cm"
    ):
        hu_to_mu(0.19 * X)
    hu_to_mu(1000 * X - 1000)
    hu_to_mu(torch.zeros(16, 16))  # a phantom of water


@pytest.mark.parametrize("score", [psnr, ssim])
def test_luma_belongs_to_the_scale(score):
    """Its 16 was added to numbers of 0 to 255 as 16 / 255, and SSIM, which compares means, saw other ones."""
    y = (X + 0.1 * X.flip(-1)).clamp(0, 1)
    whole = score(255 * X, 255 * y, channel="y", data_range=255)
    assert torch.allclose(whole, score(X, y, channel="y"), atol=1e-5)


def test_a_model_that_changes_its_input():
    def overwrites(x):
        return x.mul_(torch.linspace(0, 1, 12))

    def keeps(x):
        return x * torch.linspace(0, 1, 12)

    before = X.clone()
    assert torch.equal(equivariance_error(overwrites, X, C4), equivariance_error(keeps, X, C4))
    assert torch.equal(lie_error(overwrites, X), lie_error(keeps, X))
    pilots = [overwrites, keeps]
    assert suggest_strength(pilots, X, C4) == suggest_strength([keeps, keeps], X, C4)
    assert torch.equal(X, before)


def test_a_model_that_gives_out_the_same_memory():
    out = torch.empty_like(X)

    def reused(x):
        return torch.mul(x, torch.linspace(0, 1, 12), out=out)

    expected = equivariance_error(lambda x: x * torch.linspace(0, 1, 12), X, C4)
    assert torch.equal(equivariance_error(reused, X, C4), expected)


def test_ssim_of_a_range_whose_square_overflows():
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = x.flip(-1)
    assert torch.allclose(ssim(1e30 * x, 1e30 * y, data_range=1e30), ssim(x, y), atol=1e-5)


def test_complex_features_keep_their_imaginary_part():
    z = torch.complex(torch.zeros_like(X), X)
    ramp = torch.linspace(0, 1, 12)
    found = equivariance_error(lambda z: z * ramp, z, C4)
    assert torch.allclose(found, equivariance_error(lambda x: x * ramp, X, C4))
    assert not found.is_complex()


def test_nan_inside_the_metal_does_not_count():
    metal = torch.zeros(1, 16, 16, dtype=torch.bool)
    metal[:, 4:8, 4:8] = True
    truth = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1)) / 2
    mu = truth + 0.01
    hurt = mu.masked_fill(metal, math.nan)
    for measured in (mar_psnr, mar_ssim, rmse_hu):
        assert torch.equal(measured(hurt, truth, metal), measured(mu, truth, metal))
        assert measured(mu, truth, metal).isfinite().all()


def test_decay_at_rate_zero_does_nothing_even_at_infinite_strength():
    conv = nn.Conv2d(1, 4, 3)
    before = conv.weight.detach().clone()
    EquivarianceDecay(conv, C4, math.inf, layers="(model)").step(0)
    assert torch.equal(conv.weight, before)


def test_counts_stay_what_they_are_up_to_the_largest():
    found = measure(torch.zeros(1000, dtype=torch.float64), 1e15)
    assert (found.abs() < 1e-6).all()
    y = torch.full((1, 1, 4, 4), 0.5)
    assert torch.allclose(inpainting.measure(y, torch.ones(4, 4), 1e-12), y, atol=1e-4)


SQUARE = torch.ones(1, 1, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: equivariance_error(lambda x: x, X, C8, elements=[1], margin=9),
            ValueError,
            "margin=9 leaves no pixel of 12 x 12 at 45",
        ),
        (
            lambda: equivariance_error(lambda x: x.mean(1), X, C4),
            ValueError,
            r"images \(B, C, H, W\) or vectors .* \(2, 12, 12\)",
        ),
        (
            lambda: equivariance_error(lambda x: (x, x), X, C4),
            TypeError,
            r"tuple of 2.*lambda x: model\(x\)\[0\]",
        ),
        (
            lambda: equivariance_error(lambda x: x, X, "C4"),
            TypeError,
            "expected group of type Group .such as C4., got 'C4'",
        ),
        (lambda: equivariance_error(lambda x: x, X.tolist(), C4), TypeError, "list"),
        (
            lambda: equivariance_error(lambda x: x, X, C4, field_out="8r"),
            TypeError,
            "expected field_out of type FieldType .such as C4.field",
        ),
        (lambda: rotate(X, 1, "C4"), TypeError, "from eqreg import C4"),
        (
            lambda: valid_mask((3, 5), 1, C8, margin=-1),
            ValueError,
            "margin must be at least 0 and finite, got -1",
        ),
        (lambda: valid_mask((3, 5.5), 1, C8), ValueError, "two positive integers .H, W., got"),
        (
            lambda: luma((255 * X).byte()),
            TypeError,
            "luma: x must be a floating point tensor, got torch.uint8",
        ),
        (
            lambda: luma(255 * X),
            ValueError,
            r"luma: expected RGB images in \[0, 1\], got values up to 25",
        ),
        (
            lambda: mu_to_hu(1000 * X - 1000),
            ValueError,
            r"mu_to_hu: expected attenuation in 1/cm, water is 0.192, got values in \[-99.*: hu_to_mu converts HU",
        ),
        (
            lambda: psnr(X, X, data_range=math.nan),
            ValueError,
            "data_range must be positive and finite, got nan",
        ),
        (
            lambda: psnr(X, X, mask=[1]),
            TypeError,
            r"expected mask of type Tensor \| None, got \[1\]",
        ),
        (lambda: ssim(X, X + 1j), TypeError, "floating point images"),
        (lambda: psnr(X[:0], X[:0]), ValueError, "with pixels"),
        (
            lambda: suggest_strength([nn.Identity(), nn.Identity()], X, C1),
            ValueError,
            "C1 holds the identity alone.*use C4",
        ),
        (
            lambda: suggest_strength([lambda x: x.mean((2, 3))] * 2, X, C4),
            ValueError,
            "networks that return images",
        ),
        (
            lambda: lie_error(lambda x: x, X, margin=1.5),
            TypeError,
            "expected margin of type int, got 1.5",
        ),
        (
            lambda: measure(torch.zeros(2), 1e30),
            ValueError,
            r"photons must lie in \(0, 1e\+15\], got 1e\+30",
        ),
        (lambda: measure(torch.tensor([math.nan]), 10), ValueError, "1 NaN"),
        (lambda: measure(torch.tensor([-100.0]), 10), ValueError, "a smallest one of -100"),
        (lambda: Protocol(photons=1e30), ValueError, r"photons must be finite, in \[1, 1e\+15\]"),
        (
            lambda: inpainting.measure(SQUARE, torch.ones(4, 4), 1e-30),
            ValueError,
            "more than 1e15 cannot be counted",
        ),
        (lambda: inpainting.deepinv_operator(torch.zeros(4, 4), 0.1), ValueError, "keeps no pixel"),
        (
            lambda: EquivarianceDecay(nn.Conv2d(1, 4, 3), C4, "40", layers="(model)"),
            TypeError,
            "strength of layer .* must be a number, got '40'",
        ),
        (
            lambda: FBP(ParallelBeam(8, 4, 11))(torch.zeros(4, 11, dtype=torch.int32)),
            TypeError,
            "float tensor of sinograms",
        ),
    ],
)
def test_what_was_given_and_what_was_expected(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_indices_are_kept_up_to_a_number_of_bytes():
    kept = Indices(100)
    for key in range(5):
        assert kept(key, lambda: torch.zeros(10, dtype=torch.int32)).numel() == 10
        assert kept.bytes() <= 100
    again = kept(4, lambda: pytest.fail("it was kept"))
    assert again is kept(4, lambda: pytest.fail("it was kept"))
    for width in range(4, 40):  # 36 layers, of which the last alone takes 58 kB
        source_index(C4.field(f"{width}r"), C4.field(f"{width}r"), 1, (3, 3), "cpu")
    assert _indices.bytes() <= _indices.limit


def test_arrays_of_one_dimension_are_sequences_of_numbers():
    """Chapters hand over differences as arrays."""
    import numpy as np

    from eqreg.measure import half_width

    assert half_width(np.array([1.0, 2.0, 3.0])) == half_width([1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="half_width: expected values of type Sequence"):
        half_width(np.ones((2, 2)))
    with pytest.raises(TypeError, match="half_width: expected values of type Sequence"):
        half_width(np.array(["1", "2"]))


@pytest.mark.parametrize(
    ("x", "what"), [(X[:0, :1], "is empty"), (X[:, :1] * math.nan, "holds NaN")]
)
def test_an_example_without_values_is_no_proof_of_symmetry(x, what):
    """The error of an empty batch was 0, that of NaN was laid upon an operation of the network."""
    layer = nn.Conv2d(1, 4, 3)
    for use in (check, lambda m, x, g: equivariance_distance(m, g, example=x)):
        with pytest.raises(ValueError, match=f"an example with values: input 0 of shape .* {what}"):
            use(layer, x, C4)


def test_pathways_leave_frozen_parameters_alone():
    """They were decayed with the others."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 1, 3))
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    decay = PathwayDecay(net, C4, 40.0)
    decay.step(1.0)
    assert torch.equal(net[0].weight, before) and not hasattr(net[0], "parametrizations")
    assert hasattr(net[1], "parametrizations")
    with pytest.raises(ValueError, match="expected parameters that train, all are frozen"):
        PathwayDecay(nn.Conv2d(1, 4, 3).requires_grad_(False), C4)


@pytest.mark.parametrize("network", ["swinir", None, ["SwinIR"], {}])
def test_eq_reg_t_knows_two_networks(network):
    with pytest.raises(ValueError, match="eq_reg_t knows SwinIR and Restormer, got"):
        eq_reg_t(network)
