"""Networks of others: the regularizer runs on them, tracing ties them, and what cannot be tied is named."""

import json
import math
from pathlib import Path

import pytest
import torch
from measure import EXACT, measure, perturbed
from networks import NETWORKS

from eqreg import C4, EquivarianceRegularizer
from eqreg.extras import require
from eqreg.layers.trace import tie
from eqreg.soft import eq_reg_t

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]  # their warnings

TABLE = Path(__file__).parents[2] / "artifacts" / "zoo.json"
STORED = json.loads(TABLE.read_text())["rows"] if TABLE.exists() else {}


@pytest.fixture(scope="module", autouse=True)
def packages():
    try:
        for package in ("torchvision", "timm", "spandrel", "segmentation_models_pytorch", "monai"):
            require(package, extra=None)
    except ImportError as error:
        pytest.skip(f"{error}; or run `make zoo`")


def test_the_table_is_of_these_networks():
    if not STORED:
        pytest.skip("no table yet: python tests/zoo/measure.py --keep artifacts")
    names = [network.name for network in NETWORKS]
    assert list(STORED) == names and len(set(names)) == len(names) >= 70


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.name)
def test_network(network):
    """No worse than what is stored; better is welcome, and stored anew by measure.py."""
    row, stored = measure(network), STORED.get(network.name)
    trace = row["trace"]
    if stored is not None:
        assert row["runs"] or not stored["runs"], row.get("why")
        assert trace["tied"] >= stored["trace"]["tied"] - 1e-6
        if stored["trace"]["error"] is not None and stored["trace"]["error"] <= EXACT:
            assert trace["error"] <= EXACT
    if trace["error"] is None or trace["error"] > EXACT:
        assert trace.get("first") or trace.get("why"), "what breaks must be named"
    else:
        assert row["error"] > 1e-6 or math.isnan(row["error"]), (
            "noise has to break the symmetry first"
        )


@pytest.mark.parametrize(
    ("name", "original", "layout", "layers"),
    [
        ("SwinIR x1", "SwinIR", "shifted windows", 17),
        ("deepinv Restormer", "Restormer", "image", 25),
    ],
)
def test_the_layers_of_eq_reg_t(name, original, layout, layers):
    """One line; tokens and windows are compared as images are, and a tied network has no penalty."""
    network = next(n for n in NETWORKS if n.name == name)
    model, x = perturbed(network.build()), network.example(2).double()
    reg = EquivarianceRegularizer(model, C4, layers=eq_reg_t(original), example=x)
    assert len(reg.plan.fields) == layers and layout in reg.plan.layouts.values()
    with torch.no_grad():
        assert float(reg(x, g=1).penalty) > 1e-3
        tie(model, x, C4).project_(model)
        assert float(reg(x, g=1).penalty) < 1e-20
