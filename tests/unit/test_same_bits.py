"""Short runs of every method give the weights they gave before; stored in same_bits.json.

A change that is meant to change what some methods compute stores them anew, and no others:
``python tests/unit/test_same_bits.py augmentation pairs``; say in the commit why.

On the machine and torch that wrote the file the weights must agree to the last bit. Elsewhere
arithmetic differs in its last digits, and their sums must agree to five.
"""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from flat import flat

from eqreg import (
    C2,
    C4,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
)
from eqreg.experiments.stamp import processor
from eqreg.models import ResidualNet
from eqreg.soft import decreasing, warm_up
from eqreg.training import METHODS, Row, fit, prepare

STORED = json.loads((Path(__file__).parent / "same_bits.json").read_text(encoding="utf-8"))


def machine():
    """Processor with family and model, where the system tells: names such as "AMD EPYC" hide generations."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.is_file() else []
    told = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    numbers = [f"{k} {told[k]}" for k in ("cpu family", "model", "stepping") if k in told]
    return ", ".join([processor(), *numbers, torch.backends.cpu.get_cpu_capability()])


SAME_MACHINE = (torch.__version__, machine()) == tuple(
    STORED["about"].get(k) for k in ("torch", "machine")
)


def batch(generator):
    y = torch.rand(4, 1, 12, 12, generator=generator)
    return y + 0.1 * torch.randn(y.shape, generator=generator), y


def noisy_objective(model, prediction, x, y, generator):
    again = model(x + 0.01 * torch.randn(x.shape, generator=generator))
    return (prediction - y).abs().mean() + 1e-2 * (again - prediction).square().mean()


def strength(name):
    method = METHODS[name]
    return 40.0 if method.decay else 1e-2 if method.strengths else 0.0


def prepared(name):
    """Model and settings of fit."""
    torch.manual_seed(0)
    model = ResidualNet(width=8, depth=3)
    if name in METHODS:
        made = prepare(Row.parse(name, C2, C4), model, strength(name), seed=3)
        return made.model, {"symmetry": made.symmetry}
    five = torch.Generator().manual_seed(5)
    decay = EquivarianceDecay(model, C4, 40.0)
    settings = {
        "augmentation-automatic": {"decay": decay, "automatic": AgreementStrength(decay), "augment": C4},
        "eqreg-unlabelled-warm-up": {
            "regularizer": EquivarianceRegularizer(model, C4, fraction=0.5, every=2, generator=five),
            "lam": 0.1, "label_pairs": False, "schedule": warm_up,
        },
        "accumulate": {
            "regularizer": EquivarianceRegularizer(model, C4, generator=five), "lam": 0.1, "accumulate": 2,
        },
        "decay-decreasing": {"decay": decay, "schedule": decreasing},
        "objective": {"objective": noisy_objective},
    }  # fmt: skip
    return model, flat(**settings[name])


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_every_method_is_stored():
    assert set(METHODS) <= set(STORED["runs"])


def run(name):
    model, settings = prepared(name)
    history = fit(
        model, batch, steps=10, lr=4e-3, generator=torch.Generator().manual_seed(1),
        progress=False, **settings,
    )  # fmt: skip
    state = list(model.state_dict().values())
    seen = torch.tensor(history.loss + history.penalty)
    content = b"".join(t.detach().numpy().tobytes() for t in (*state, seen))
    weights = torch.cat([t.flatten().double() for t in state])
    return {
        "sha256": hashlib.sha256(content).hexdigest(), "sum": float(weights.sum()),
        "squares": float(weights.square().sum()), "last_loss": history.loss[-1],
        "images": history.images,
    }  # fmt: skip


@pytest.mark.parametrize("name", STORED["runs"])
def test_the_weights_are_those_of_before(name, one_thread):
    now, then = run(name), STORED["runs"][name]
    assert now["images"] == then["images"]
    for key in ("sum", "squares", "last_loss"):
        assert now[key] == pytest.approx(then[key], rel=1e-5)
    if SAME_MACHINE:
        assert now["sha256"] == then["sha256"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    STORED["about"] |= {"torch": torch.__version__, "machine": machine()}
    STORED["runs"] |= {name: run(name) for name in sys.argv[1:]}
    text = json.dumps(STORED, indent=1) + "\n"
    (Path(__file__).parent / "same_bits.json").write_text(text, encoding="utf-8")
