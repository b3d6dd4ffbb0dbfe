"""A slice of the fuzz; ``make fuzz`` runs the whole."""

import pytest

import eqreg
from eqreg import checks

from .outcome import Tally, judge
from .run import TARGETS, fuzz


def test_a_slice_of_the_fuzz():
    tally = fuzz(8 * len(TARGETS))
    wrong = [example for (kind, _), example in tally.examples.items() if kind != "unclear"]
    assert not wrong, wrong
    unclear = [example for (kind, _), example in tally.examples.items() if kind == "unclear"]
    assert len(unclear) <= 0.005 * 8 * len(TARGETS), unclear


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda: 1, "fine"),
        (lambda: 2, "silent"),
        (lambda: "one", "silent"),
        (lambda: [][0], "unclear"),
        (lambda: checks.wide(3), "unclear"),
        (lambda: eqreg.rotate(3, 1), "clear"),
    ],
)
def test_the_judge_tells_right_from_wrong(call, kind):
    tally = Tally()
    tally.add("call", *judge(call, lambda r: r + 0 == 1))
    assert tally.counts == {kind: 1}
