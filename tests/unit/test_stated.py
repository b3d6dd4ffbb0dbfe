"""Numbers in prose: book/scripts/stated.py finds them in artifacts/, sync.py keeps the text equal."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book/scripts"))

import stated  # noqa: E402

# Chapters whose prose is about stored results.
CHAPTERS = ("13_", "13b_", "14_", "14b_", "15_", "16_", "17_", "19_")
ENGINE = {
    "rows": {
        "plain": {
            "metrics": {"psnr": [30.0, 31.0, 32.0], "turned": [29.0, 30.5, 31.0]},
            "seeds": [0, 1, 2], "seconds_per_step": [0.02, 0.04],
        },
        "eqreg": {
            "metrics": {"psnr": [33.5, 31.0, 32.0], "turned": [20.0, 20.0, 20.0]},
            "seeds": [2, 0, 7], "seconds_per_step": [0.05, 0.03],
        },
    },
    "settings": {"rates": [0.5, -2.25]},
}  # fmt: skip
# A two-way layout: residuals ±1/12, ±1/12, ∓1/6, error 1/24 with 2 degrees of freedom, t(2) = 4.303.
TASK = {
    "settings": {"task": "rain"},
    "rows": {
        name: {
            "metrics": {"psnr": values}, "seeds": [0, 1, 2], "mute": [False, name == "decay", False],
            "per_image": {"psnr": [[v - 0.1, v + 0.1] for v in values]},
        }
        for name, values in {
            "plain": [1.0, 2.0, 3.0], "eqreg": [2.0, 3.0, 4.5], "decay": [0.0, 0.0, 0.0],
        }.items()
    },
}  # fmt: skip
# Means 31 and 32.166…; by seed 0 and 2 the differences are 1 and 1.5, t(1) = 12.706: half 3.18.
EXPECTED = {
    "mean f plain psnr": "31.00",
    "mean f eqreg psnr digits=1 scale=10": "321.7",
    "delta f eqreg plain psnr": "+1.25 ± 3.18",
    "delta f plain eqreg psnr": "−1.25 ± 3.18",
    "delta f plain eqreg psnr sign=no digits=1": "1.2 ± 3.2",
    "gap f plain eqreg psnr": "1.25",
    "gain f plain turned psnr": "−0.83",
    "within f plain turned psnr": "−0.83 ± 0.72",  # -1, -1/2, -1: s = 0.289, t(2) = 4.303
    "span f psnr digits=1": "31.0 to 32.2",
    "span f turned psnr rows=plain": "−0.83 to −0.83",
    "span f psnr turned without=plain": "12.17 to 12.17",
    "deltas f psnr plain": "+1.25 to +1.25",
    "halves f psnr plain": "3.18 to 3.18",
    "times f eqreg plain": "1.50",
    "at f settings/rates/1 sign=yes": "−2.25",
    "less f settings/rates/0 settings/rates/1": "2.75",
    "ratio f settings/rates/1 settings/rates/0 digits=1 sign=yes": "−4.5",
    "at other 'a: b, c/d: e/0' digits=0": "3",
    "contrast task eqreg plain": "+1.17 ± 0.72",
    "contrast task eqreg plain scale=100 digits=0": "+117 ± 72",
    "verdict task eqreg plain": "gain",
    "seeds task plain": "3",
    "mute task decay": "1",
    "mean f other:flat psnr": "2.00",
    "delta f other:seeds/1 other:seeds/2 psnr scale=100 digits=0": "+50 ± 635",
    "mean f other:/top psnr digits=0": "7",
    "mean f other:curves angles/1": "3.50",
}


@pytest.fixture
def root(tmp_path):
    other = {
        "rows": {
            "flat": {"psnr": [1.0, 3.0]},
            "curves": [{"angles": [0.0, 3.0]}, {"angles": [0.0, 4.0]}],
            "seeds": {"1": [{"psnr": 1.0}, {"psnr": 2.0}], "2": [{"psnr": 1.0}, {"psnr": 1.0}]},
        },
        "top": {"psnr": [7.0]},
        "a: b, c": {"d: e": [3.0]},
    }
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/f.json").write_text(json.dumps(ENGINE))
    (tmp_path / "artifacts/other.json").write_text(json.dumps(other))
    (tmp_path / "artifacts/task.json").write_text(json.dumps(TASK))
    (tmp_path / "book").mkdir()
    (tmp_path / "book/references.bib").write_text("@article{ada1843,\n title={Notes}}")
    return tmp_path


@pytest.mark.parametrize(("how", "expected"), EXPECTED.items())
def test_what_a_mark_says(root, how, expected):
    text = f"by <!--n {how}-->9.99<!--/n--> dB"
    fresh = stated.rewrite(text, root)
    assert fresh == f"by <!--n {how}-->{expected}<!--/n--> dB"
    assert stated.rewrite(fresh, root) == fresh


def test_numbers_of_others_and_of_the_page_stay(root):
    text = "<!--n quoted ada1843-->40.00 dB<!--/n--> and <!--n page-->6 to 7<!--/n-->"
    assert stated.rewrite(text, root) == text
    with pytest.raises(ValueError, match="no entry 'babbage' in book/references.bib"):
        stated.rewrite("<!--n quoted babbage-->1<!--/n-->", root)


@pytest.mark.parametrize(
    "how",
    ["mean f nobody psnr", "mean gone plain psnr", "mean f plain", "guess f", "at f settings/rates/9",
     "mean f plain psnr round=2", "delta f plain other:flat", "mean f 'plain psnr"],
)  # fmt: skip
def test_what_cannot_be_found_is_quoted(root, how):
    with pytest.raises(ValueError, match="cannot be found") as error:
        stated.rewrite(f"<!--n {how}-->1<!--/n-->", root)
    assert repr(how) in str(error.value)


def test_a_mark_that_is_not_closed(root):
    with pytest.raises(ValueError, match="not closed or not opened"):
        stated.rewrite("<!--n mean f plain psnr-->1.00", root)
    with pytest.raises(ValueError, match="not closed or not opened"):
        stated.rewrite("1.00<!--/n-->", root)
    with pytest.raises(ValueError, match="a line begins with a mark"):
        stated.rewrite("so\n<!--n page-->1<!--/n--> dB", root)


def test_a_changed_artifact_makes_the_page_stale(root, tmp_path):
    import sync

    text = "<!--n mean f plain psnr-->31.00<!--/n-->"
    url = "https://github.com/OWNER/eqreg"
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": text}
    page = json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]})

    def fresh():
        return sync.normalise(page, "13_x.ipynb", url, "main", url, root)

    assert text in json.loads(fresh())["cells"][0]["source"][0]
    changed = json.loads(json.dumps(ENGINE))
    changed["rows"]["plain"]["metrics"]["psnr"] = [1.0]
    changed["rows"]["plain"]["seeds"] = [0]
    path = root / "artifacts/f.json"
    path.write_text(json.dumps(changed) + " ")
    assert "-->1.00<!--" in json.loads(fresh())["cells"][0]["source"][0]
    path.unlink()
    with pytest.raises(ValueError, match=r"13_x.ipynb: the number marked 'mean f plain psnr'"):
        fresh()


def test_unmarked_numbers_are_found():
    text = "<!--n page-->1.0 ± 2.0<!--/n--> but +0.2 ± 0.1 dB, −1.5 dB and 3.0 points, not 24 dB"
    assert stated.unmarked(text) == ["+0.2 ± 0.1", "−1.5 dB", "3.0 points"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_measured_number_is_typed_by_hand(chapter):
    [path] = ROOT.glob(f"notebooks/{chapter}*.ipynb")
    cells = json.loads(path.read_text(encoding="utf8"))["cells"]
    texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    assert any(stated.MARK.search(text) for text in texts)
    assert [n for text in texts for n in stated.unmarked(text)] == []
