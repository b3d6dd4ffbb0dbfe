"""Tables say the same on a page and in a terminal."""

import math
import re

import numpy as np
import pytest

from eqreg.viz import table

ROWS = [
    {"method": "plain", "PSNR in dB": (27.311, 0.052), "passes": 1, "error": 0.01234},
    {"method": "EQ-Reg & co", "PSNR in dB": (-3.0, math.nan), "passes": 16, "error": None},
]


def shown(made):
    """The words of each row of the page's table."""
    rows = re.findall(r"<tr>(.*?)</tr>", made.html)
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t", row) for row in rows]


def test_a_terminal_has_aligned_columns():
    lines = repr(table(ROWS, formats={"PSNR in dB": ".2f"})).splitlines()
    assert lines == [
        "method         PSNR in dB  passes   error",
        "plain        27.31 ± 0.05       1  0.0123",
        "EQ-Reg & co         −3.00      16       –",
    ]


def test_the_page_says_what_the_terminal_says():
    made = table(ROWS, formats={"PSNR in dB": ".2f"})
    expected = [re.split(r"  +", line) for line in repr(made).splitlines()]
    assert [[c.replace("&amp;", "&") for c in row] for row in shown(made)] == expected


def test_rows_have_names_and_the_frame_has_one():
    html = table(ROWS, caption="Two <methods>").html
    assert 'aria-label="Two &lt;methods&gt;"' in html and "<methods>" not in html
    assert re.findall(r'<th scope="row"[^>]*>([^<]*)<', html) == ["plain", "EQ-Reg &amp; co"]
    assert html.count('scope="col"') == 4


def test_numbers_stand_right_and_carry_what_they_are_sorted_by():
    html = table(ROWS).html
    assert re.findall(r'data-key="([^"]*)" style="text-align:right', html) == [
        "27.311", "1.0", "0.01234", "-3.0", "16.0", "",
    ]  # fmt: skip


def test_texts_that_begin_with_a_number_stand_as_numbers():
    cells = ["9.5 (+0.1 ± 0.2)", "−10.2 ± 0.1", "7"]
    html = table([{"method": "16 patches", "gain": c, "rates": "0.1, 1"} for c in cells]).html
    keys = re.findall(r'data-key="([^"]*)" style="text-align:right', html)
    assert keys == ["9.5", "-10.2", "7.0"]


@pytest.mark.parametrize("rows, buttons", [(8, 0), (9, 2)])
def test_only_long_tables_are_sorted(rows, buttons):
    made = table([{"n": i, "square": i * i} for i in range(rows)])
    assert made.html.count("<button") == buttons


def test_numbers_of_numpy_and_torch_are_numbers():
    torch = pytest.importorskip("torch")
    made = table([{"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor(2.0).item()}])
    assert shown(made)[1] == ["0.5", "3", "2"]


def test_a_sign_is_the_means_alone():
    assert shown(table([{"gain": (0.23, 0.11)}], formats={"gain": "+.2f"}))[1] == ["+0.23 ± 0.11"]


def test_exponents_keep_their_minus():
    assert shown(table([{"a": "x", "error": 1e-9}], formats={"error": ".0e"}))[1][1] == "1e-09"


@pytest.mark.parametrize(
    "rows, formats, error, words",
    [
        ([], None, ValueError, "at least one row"),
        ([{}], None, ValueError, "at least one row"),
        ([{"a": 1}, {"b": 1}], None, ValueError, r"row 1 has the columns \['b'\]"),
        ([{"a": 1}], {"b": ".2f"}, ValueError, r"formats names \['b'\]"),
        ([{"a": [1, 2]}], None, TypeError, r"column 'a': expected .* got \[1, 2\]"),
        ([{"a": ("x", 1)}], None, TypeError, "column 'a'"),
    ],
)
def test_what_cannot_be_shown_is_named(rows, formats, error, words):
    with pytest.raises(error, match=words):
        table(rows, formats=formats)


def test_minus_signs_in_texts_are_those_of_numbers():
    given = ["strict-C4", "62.8 (-3.3 ± 3.9)", "-4° to -6°", "2026-11-28", "1e-3"]
    row = dict(zip("abcde", given, strict=True))
    assert shown(table([row]))[1] == [*given[:1], "62.8 (−3.3 ± 3.9)", "−4° to −6°", *given[3:]]
