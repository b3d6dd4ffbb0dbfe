"""Field types: parsing, printing, channels, permutations, errors."""

import pytest

from eqreg import C4, C8, D4, FieldType


@pytest.mark.parametrize(
    ("spec", "channels", "printed"),
    [
        ("3t + 8r", 35, "3t + 8r"),
        ("3t+8r", 35, "3t + 8r"),
        ("1r + 2t + 1r", 10, "1r + 2t + 1r"),
        ("2r+3r", 20, "5r"),
        ("0t + 1r", 4, "1r"),
    ],
)
def test_channels_and_printing(spec, channels, printed):
    field = C4.field(spec)
    assert field.channels == channels
    assert str(field) == printed
    assert C4.field(str(field)) == field
    assert repr(field) == f'C4.field("{printed}")'


def test_channels_depend_on_the_group():
    assert (C8.field("2r").channels, D4.field("1t + 2r").channels) == (16, 17)


def test_permutation_of_a_sum():
    # One trivial channel stays, both regular fields shift by one.
    assert C4.field("1t + 2r").permutation(1) == (0, 2, 3, 4, 1, 6, 7, 8, 5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: C4.field("8x"), ValueError, "cannot read field type '8x'"),
        (lambda: C4.field(""), ValueError, "expected terms"),
        (lambda: C4.field("3t - 8r"), ValueError, "cannot read"),
        (lambda: C4.field("0t + 0r"), ValueError, "has no channel"),
        (lambda: C4.field(8), TypeError, "must be written like"),
        (lambda: FieldType("C4", "8r"), TypeError, "must be a Group such as C4"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message):
        make()
