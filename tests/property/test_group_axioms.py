"""Group axioms, representations and actions, over all elements."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from eqreg import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup, act, permute_channels, rotate

GROUPS = [C1, C2, C4, C8, D4, CyclicGroup(3), DihedralGroup(1), DihedralGroup(3)]
EXACT = [C1, C2, C4, D4, DihedralGroup(1), DihedralGroup(2)]

groups = st.builds(
    lambda kind, n: kind(n), st.sampled_from([CyclicGroup, DihedralGroup]), st.integers(1, 12)
)


@pytest.mark.parametrize("group", GROUPS, ids=repr)
def test_axioms(group):
    e = group.identity
    for a, b, c in itertools.product(group.elements, repeat=3):
        assert group.compose(a, b) in group.elements
        assert group.compose(group.compose(a, b), c) == group.compose(a, group.compose(b, c))
    for a in group.elements:
        assert group.compose(a, e) == a == group.compose(e, a)
        assert group.compose(a, group.inverse(a)) == e == group.compose(group.inverse(a), a)
        assert group.elements[group.index(a)] == a
    assert len(set(group.elements)) == group.order


@given(groups, st.data())
def test_regular_representation_is_a_homomorphism(group, data):
    a, b = (data.draw(st.sampled_from(group.elements)) for _ in "ab")
    p, q = group.permutation(a), group.permutation(b)
    assert tuple(p[q[i]] for i in range(group.order)) == group.permutation(group.compose(a, b))
    assert sorted(p) == list(range(group.order))


@given(
    groups, st.lists(st.tuples(st.integers(0, 5), st.sampled_from("tr")), min_size=1, max_size=4)
)
def test_field_types_round_trip(group, terms):
    spec = " + ".join(f"{n}{kind}" for n, kind in terms)
    if not any(n for n, _ in terms):
        return
    field = group.field(spec)
    assert field.channels == sum(n * (group.order if kind == "r" else 1) for n, kind in terms)
    assert group.field(str(field)) == field
    for g in group.elements:
        assert sorted(field.permutation(g)) == list(range(field.channels))


@pytest.mark.parametrize("group", EXACT, ids=repr)
def test_actions_are_left_actions(group):
    x = torch.randn(2, 3, 5, 5)
    field = group.field("1t + 2r")
    z = torch.randn(2, field.channels, 4, 4)
    for a, b in itertools.product(group.elements, repeat=2):
        ab = group.compose(a, b)
        assert torch.equal(rotate(rotate(x, b, group), a, group), rotate(x, ab, group))
        assert torch.equal(act(act(z, b, field), a, field), act(z, ab, field))
    assert torch.equal(rotate(x, group.identity, group), x)


@given(groups, st.data())
def test_permutations_keep_the_norm_and_commute_with_turns(group, data):
    field = group.field("2t + 1r")
    g = data.draw(st.sampled_from(group.elements))
    z = torch.randn(1, field.channels, 4, 4, dtype=torch.float64)
    moved = permute_channels(z, g, field)
    assert torch.allclose(moved.norm(), z.norm(), rtol=1e-14)
    turned = permute_channels(rotate(z, g, group), g, field)
    assert torch.allclose(turned, rotate(moved, g, group), atol=1e-12)
