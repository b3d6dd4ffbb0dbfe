"""Groups: hand-computed products and every error message."""

import subprocess
import sys

import pytest

from eqreg import C1, C2, C4, C8, D4, CyclicGroup, DihedralGroup, Element
from eqreg.symmetry.groups import Group


def test_known_products():
    assert C4.compose(3, 2) == Element(1)
    assert C4.inverse(1) == Element(3)
    # Flip then turn is not turn then flip: F R = R^-1 F.
    assert D4.compose(Element(0, 1), Element(1)) == Element(3, 1)
    assert D4.compose(Element(1), Element(0, 1)) == Element(1, 1)
    assert D4.inverse(Element(1, 1)) == Element(1, 1)


def test_orders_elements_and_names():
    assert [g.order for g in (C1, C2, C4, C8, D4)] == [1, 2, 4, 8, 8]
    assert D4.elements == tuple(Element(k, f) for f in (0, 1) for k in range(4))
    assert [repr(g) for g in (C8, D4)] == ["C8", "D4"]
    assert C8.angle(3) == 135.0
    assert D4.angle(Element(1, 1)) == 90.0


def test_int_stands_for_turns_modulo_n():
    assert C4.element(5) == Element(1)
    assert C4.element(-1) == Element(3)
    assert C4.index(6) == 2


def test_regular_representation_is_the_shift():
    assert C4.permutation(1) == (1, 2, 3, 0)
    assert C4.permutation(3) == (3, 0, 1, 2)
    # e_h goes to e_gh; with g a flip, turns are reversed.
    assert DihedralGroup(2).permutation(Element(0, 1)) == (2, 3, 0, 1)
    assert D4.permutation(Element(0, 1)) == (4, 7, 6, 5, 0, 3, 2, 1)


def test_groups_are_values():
    assert CyclicGroup(4) == C4
    assert len({CyclicGroup(4), C4, D4}) == 2
    assert C4 != D4
    with pytest.raises(AttributeError):
        C4.n = 5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: CyclicGroup(0), ValueError, "at least 1, got 0"),
        (lambda: CyclicGroup(2.0), TypeError, "must be an int, got 2.0"),
        (lambda: Group(4), TypeError, "Group is abstract"),
        (lambda: C4.element(Element(1, 1)), ValueError, "flip must be 0"),
        (lambda: D4.element((1, 2)), ValueError, "flip must be 0 or 1"),
        (lambda: C4.element("1"), TypeError, "expected an element of C4"),
        (lambda: C4.element(1.5), TypeError, r"an int \(turns\) or a pair"),
        (lambda: C4.element((1, 0, 0)), TypeError, "expected an element of C4"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_groups_and_fields_do_not_import_torch():
    code = (
        "import sys, types; pkg = types.ModuleType('symmetry'); pkg.__path__ = [sys.argv[1]];"
        "sys.modules['symmetry'] = pkg; import symmetry.groups; assert 'torch' not in sys.modules"
    )
    folder = sys.modules["eqreg.symmetry"].__path__[0]
    subprocess.run([sys.executable, "-c", code, folder], check=True)
