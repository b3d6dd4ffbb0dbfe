"""The adapter for escnn: same channels, same law, same map when plain; and how it fails."""

import copy
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from eqreg import C1, C2, C4, C8, D4, DihedralGroup, equivariance_error
from eqreg.models import ResidualNet
from eqreg.strict import equivariant, escnn, to_plain

GROUPS = [C1, C2, C4, C8, DihedralGroup(1), DihedralGroup(2), D4]


@pytest.fixture(autouse=True)
def installed(unavailable):
    if importlib.util.find_spec("escnn") is None:
        unavailable("escnn is not installed: pip install --no-deps escnn==1.0.11")


def test_importing_strict_does_not_import_escnn():
    code = "import sys, eqreg.strict, eqreg.strict.escnn; assert 'escnn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_channels_are_permuted_as_ours(group):
    field = group.field("2r + 1t + 1r")
    theirs = escnn.to_escnn(field)
    assert theirs.size == field.channels
    assert escnn.from_escnn(theirs, group) == field
    for g in group.elements:
        matrix = torch.zeros(field.channels, field.channels)
        for c, moved in enumerate(field.permutation(g)):
            matrix[moved, c] = 1
        assert torch.allclose(
            torch.tensor(theirs.representation(element(theirs, g))).float(), matrix
        )


def element(field_type, g):
    """Our element as escnn's: it stores a rotation, or a flip and a rotation."""
    fiber = field_type.gspace.fibergroup
    if fiber.order() == 1:
        return fiber.identity
    if fiber.name.startswith("D"):
        return fiber.element((g.flip, g.turns))
    return fiber.element(g.turns + g.flip)  # D1 is escnn's C2


@pytest.mark.parametrize("group", [C2, C4, D4], ids=repr)
def test_layers_follow_our_law(group):
    field = group.field("1t + 2r")
    net = nn.Sequential(
        escnn.EscnnConv2d(group.field("1t"), field, 3),
        nn.ReLU(),
        escnn.EscnnConv2d(field, field, 3),
    )
    x = torch.randn(1, 1, 9, 9)
    assert equivariance_error(net, x, group, field_out=field).max() < 1e-10  # its basis is float32


def test_to_plain_and_copies_in_both_modes():
    layer = escnn.EscnnConv2d(C4.field("3t"), C4.field("1t + 1r"), 3, stride=2, padding=0)
    x = torch.randn(2, 3, 9, 9)
    keys = set(layer.state_dict())
    for mode in (True, False):
        layer.train(mode)
        plain = layer.to_plain()
        assert type(plain) is nn.Conv2d and plain.training is layer.training is mode
        assert (plain(x) - layer(x)).abs().max() <= 1e-6
        assert set(copy.deepcopy(layer).state_dict()) == keys


def layer():
    torch.manual_seed(0)
    return escnn.EscnnConv2d(C4.field("1t"), C4.field("2r"), 3)


X = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("change", ["double", "bfloat16", "there and back"])
def test_a_layer_of_the_same_types_does_not_change_with_another(change):
    a, b = layer(), layer()
    before = b(X)
    if change == "there and back":
        a.bfloat16().float()
    else:
        getattr(a, change)()
    assert torch.equal(b(X), before)
    assert torch.equal(layer()(X), before)  # nor one that is built afterwards


def test_a_layer_built_under_float64_leaves_those_of_float32():
    first = layer()
    before = first(X)
    torch.set_default_dtype(torch.float64)
    try:
        second = layer()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(first(X), before)
    assert second(X.double()).dtype == torch.float64
    net = nn.Sequential(second, nn.ReLU())
    assert equivariance_error(net, X.double(), C4, field_out=C4.field("2r")).max() < 1e-12


def test_plain_layers_made_inside_autocast_are_those_made_outside():
    conv = layer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = conv.to_plain()
    assert torch.equal(inside.weight, conv.to_plain().weight)


@pytest.mark.parametrize("mode", [0o700, 0o777, 0o500], ids=oct)
def test_pickles_stay_in_a_folder_of_the_user_alone(tmp_path, mode):
    """One that others can write into is not looked at, and escnn's own package is never written."""
    code = """
import os, sys
from pathlib import Path
from eqreg import C8
from eqreg.strict import escnn
package = Path(escnn.load().__file__).parent
old = {p for p in package.rglob("*") if "__pycache__" not in p.parts}
escnn.EscnnConv2d(C8.field("1t"), C8.field("1r"), 5)
assert old == {p for p in package.rglob("*") if "__pycache__" not in p.parts}
place = Path(sys.modules["escnn.group._clebsh_gordan"].cache.location)
for folder in (place, place.parent) if "eqreg-escnn-" not in place.name else (place,):
    assert not folder.stat().st_mode & 0o022, (folder, oct(folder.stat().st_mode))
print(place)
"""
    cache = tmp_path / "cache"
    (cache / "escnn").mkdir(parents=True)
    (cache / "escnn").chmod(mode)
    cache.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={**os.environ, "EQREG_CACHE": str(cache)},
    )  # fmt: skip
    used = Path(done.stdout.strip())
    private = mode == 0o700 or (mode == 0o500 and os.access(cache / "escnn", os.W_OK))  # root may
    assert (used == cache / "escnn") == private
    assert used.exists() == private  # a temporary folder is gone afterwards


def test_twin_by_escnn():
    twin = equivariant(ResidualNet(width=8, depth=3), C4, layer=escnn.EscnnConv2d)
    x = torch.rand(1, 1, 12, 12)
    assert equivariance_error(twin, x, C4).max() < 1e-10
    assert (to_plain(twin)(x) - twin(x)).abs().max() <= 1e-6


def test_default_dtype_is_respected_and_restored():
    torch.set_default_dtype(torch.float64)
    try:
        layer = escnn.EscnnConv2d(C4.field("1t"), C4.field("1r"), 3)
        assert torch.get_default_dtype() == torch.float64
        assert layer(torch.ones(1, 1, 5, 5)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_other_fields_have_no_name_here():
    space = escnn.gspace(C4)
    other = escnn.load().nn.FieldType(space, [space.irrep(1), space.trivial_repr])
    with pytest.raises(ValueError, match="expected trivial and regular fields, got irrep_1"):
        escnn.from_escnn(other, C4)
    with pytest.raises(ValueError, match="expected fields of C2"):
        escnn.from_escnn(other, C2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: c(C4.field("1t"), C2.field("1r"), 3), "fields of one group"),
        (lambda c: c(C4.field("1t"), C4.field("1r"), 0), "kernel_size >= 1"),
        (lambda c: c(C4.field("1t"), C4.field("1r"), 3)(torch.ones(1, 3, 5, 5)), "got .1, 3, 5, 5"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(escnn.EscnnConv2d)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_missing_escnn_says_how_to_install_it_without_fortran():
    blocked = "import importlib.util as u; u.find_spec = lambda name, package=None: None\n"
    result = run(blocked + "from eqreg.strict import escnn; escnn.load()")
    assert "ImportError" in result.stderr and "--no-deps escnn" in result.stderr


def test_lie_learn_that_does_not_load_is_not_needed():
    blocked = "import sys; sys.modules['lie_learn.representations.SO3.irrep_bases'] = None\n"
    use = (
        "from eqreg import C8\nfrom eqreg.strict.escnn import EscnnConv2d\n"
        "print(EscnnConv2d(C8.field('1t'), C8.field('1r'), 3).to_plain())"
    )
    result = run(blocked + use)
    assert result.stdout.startswith("Conv2d(1, 8,"), result.stderr
    assert not result.stderr
