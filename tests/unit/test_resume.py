"""A run that was stopped or killed ends as if nothing had happened."""

import random
import subprocess
import sys
import time

import pytest
import torch
from flat import flat
from torch import nn

from eqreg import (
    C4,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
)
from eqreg.data.crops import RandomCrops, fingerprint
from eqreg.models import ResidualNet
from eqreg.training import Keeping, Symmetry, fit
from eqreg.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    previous,
    save_checkpoint,
)

CLEAN = torch.rand(5, 1, 14, 14, generator=torch.Generator().manual_seed(0))
NOISY = CLEAN + 0.1

# Dropout shows whether the state of the generators comes back.
pytestmark = pytest.mark.filterwarnings("ignore:.*Dropout draws one mask")


def noisy_batch(generator):
    """Draws from the given generator and from the global one, as dropout and careless code do."""
    i = torch.randint(5, (4,), generator=generator)
    return NOISY[i] + 0.01 * torch.randn(4, 1, 14, 14), CLEAN[i]


class Walk:
    """A sampler with a state of its own."""

    def __init__(self):
        self.at = 0

    def __call__(self, generator):
        self.at += 1
        i = torch.tensor([self.at % 5, (self.at + 1) % 5])
        return NOISY[i], CLEAN[i]

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


def settings(method, model):
    g = torch.Generator().manual_seed(2)
    decay = EquivarianceDecay(model, C4, 40.0)
    return {
        "plain": {},
        "augmentation": {"augment": C4},
        "EQ-Reg": {"regularizer": EquivarianceRegularizer(model, C4, generator=g), "lam": 0.01},
        "lazy": {"regularizer": EquivarianceRegularizer(model, C4, every=3, generator=g), "lam": 0.01},
        "global": {"regularizer": EquivarianceRegularizer(model, C4), "lam": 0.01},
        "penalty": {"regularizer": ProjectionPenalty(model, C4), "lam": 0.01},
        "automatic": {"decay": decay, "automatic": AgreementStrength(decay), "augment": C4},
        "accumulated": {"accumulate": 2},
    }[method]  # fmt: skip


def run(method, checkpoint=None, stops=(), sampler=noisy_batch, steps=12, **more):
    """Train from the same start, stopping after the given steps; the weights and the history."""
    for until in (*stops, None):
        torch.manual_seed(1)
        random.seed(1)
        model = nn.Sequential(ResidualNet(width=4, depth=3), nn.Dropout(0.1))
        # The number of steps done is in the history, wherever the sitting began.
        seen = []
        history = fit(
            model, sampler() if isinstance(sampler, type) else sampler, steps=steps, lr=5e-3,
            generator=torch.Generator().manual_seed(3), progress=False,
            on_step=lambda step, _, seen=seen: seen.append(step),
            **flat(
                checkpoint=checkpoint, every=4,
                stop=lambda seen=seen, until=until: until is not None and seen[-1:] == [until - 1],
                **settings(method, model), **more,
            ),
        )  # fmt: skip
        assert history.finished == (until is None)
    return torch.cat([p.detach().flatten() for p in model.parameters()]), history


@pytest.mark.parametrize(
    "method",
    ["plain", "augmentation", "EQ-Reg", "lazy", "global", "penalty", "automatic", "accumulated"],
)
def test_a_stopped_run_ends_with_the_same_weights_to_the_last_bit(tmp_path, method):
    weights, history = run(method)
    again, resumed = run(method, tmp_path / "c", stops=(3, 8))
    assert torch.equal(weights, again)
    assert resumed.loss == history.loss and resumed.penalty == history.penalty
    assert resumed.images == history.images
    assert resumed.seconds > 0 and 0 < resumed.waiting < resumed.seconds


def test_samplers_with_a_state_go_on(tmp_path):
    weights, _ = run("plain", sampler=Walk)
    again, _ = run("plain", tmp_path / "c", stops=(5,), sampler=Walk)
    assert torch.equal(weights, again)


def test_a_finished_run_is_not_repeated(tmp_path):
    weights, history = run("plain", tmp_path / "c")
    again, same = run("plain", tmp_path / "c")
    assert torch.equal(weights, again) and same.loss == history.loss


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    weights, _ = run("EQ-Reg")
    path = tmp_path / "c"
    with pytest.raises(AssertionError):  # stopped for good after step 9
        run("EQ-Reg", path, stops=(9, 9))
    assert previous(path).exists()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="going on from"):
        again, _ = run("EQ-Reg", path)
    assert torch.equal(weights, again)


def test_another_run_is_refused(tmp_path):
    run("plain", tmp_path / "c")
    with pytest.raises(
        CheckpointError, match="another run: steps was 12 and is now 13. Give another"
    ):
        run("plain", tmp_path / "c", steps=13)
    with pytest.raises(CheckpointError, match="augment was 'None' and is now 'C4'"):
        run("augmentation", tmp_path / "c")
    with pytest.raises(CheckpointError, match="clip was 1.0 and is now 2.0"):
        run("plain", tmp_path / "c", clip=2.0)


def sitting(checkpoint, until=None, strength=1.0, run=None, on_step=None):
    """One sitting of a training with decay; its weights and history."""
    torch.manual_seed(1)
    model, done = ResidualNet(width=4, depth=2), []
    history = fit(
        model, noisy_batch, steps=6, lr=5e-3, generator=torch.Generator().manual_seed(3),
        symmetry=Symmetry(decay=EquivarianceDecay(model, C4, strength)), progress=False, on_step=on_step,
        keeping=Keeping(checkpoint, stop=lambda: done.append(0) or len(done) == until, run=run or {}),
    )  # fmt: skip
    return torch.cat([p.detach().flatten() for p in model.parameters()]), history


def test_what_makes_a_run_this_run_belongs_to_its_checkpoint(tmp_path):
    first = {"seed": 0, "data": "ab", "sizes": {"width": 4, "patches": [1, 2]}}
    sitting(tmp_path / "c", 3, run=first)
    with pytest.raises(CheckpointError, match="another run: seed was 0 and is now 1. Give another"):
        sitting(tmp_path / "c", run={**first, "seed": 1})
    with pytest.raises(CheckpointError, match="data was 'ab' and is now None"):
        sitting(tmp_path / "c", run={"seed": 0, "sizes": first["sizes"]})
    with pytest.raises(CheckpointError, match=r"strengths was \[1.0\] and is now \[2.0\]"):
        sitting(tmp_path / "c", strength=2.0, run=first)
    again, history = sitting(tmp_path / "c", run=first)
    assert torch.equal(again, sitting(None)[0]) and len(history.loss) == 6


def test_a_checkpoint_of_format_1_is_gone_on_from(tmp_path):
    """It says less about its run: what it does not say is not compared."""
    sitting(tmp_path / "c", 3)
    state = load_checkpoint(tmp_path / "c")
    del state["run"], state["settings"]["strengths"], state["history"]["notes"]
    save_checkpoint(tmp_path / "c", state)
    assert torch.equal(sitting(tmp_path / "c", run={"seed": 0})[0], sitting(None)[0])


@pytest.mark.parametrize("part", ["model", "optimizer", "history", "random", "step"])
def test_a_state_of_another_form_is_refused(tmp_path, part):
    sitting(tmp_path / "c", 3)
    state = load_checkpoint(tmp_path / "c")
    for wrong in ({k: v for k, v in state.items() if k != part}, {**state, part: ["odd"]}):
        save_checkpoint(tmp_path / "c", wrong)
        with pytest.raises(CheckpointError, match="c does not hold the state of this run"):
            sitting(tmp_path / "c")


def test_notes_are_kept_with_the_rest(tmp_path):
    def note(step, history):
        history.notes.append({"step": step, "seen": step / 2})

    _, whole = sitting(None, on_step=note)
    sitting(tmp_path / "c", 3, on_step=note)
    _, again = sitting(tmp_path / "c", on_step=note)
    assert again.notes == whole.notes and len(whole.notes) == 6


def test_the_last_step_may_not_break_the_weights(tmp_path):
    """The loss of a step is read before its update, so no loss tells of the last one."""
    with pytest.raises(FloatingPointError, match="weights became infinite or NaN at step 0"):
        fit(
            ResidualNet(width=4, depth=2), noisy_batch, steps=1, lr=1e-3, progress=False,
            loss=lambda x, y: (x - x).abs().sqrt().sum(),  # 0, with a gradient that is NaN
            keeping=Keeping(tmp_path / "c"),
        )  # fmt: skip
    assert not (tmp_path / "c").exists()


def test_diverged_weights_never_reach_the_checkpoint(tmp_path):
    def breaks(generator, calls=[]):  # noqa: B006
        calls.append(0)
        return (NOISY * float("nan") if len(calls) > 6 else NOISY), CLEAN

    with pytest.raises(FloatingPointError, match="became nan at step 6"):
        fit(
            ResidualNet(width=4, depth=2), breaks, steps=12, lr=1e-3, progress=False,
            keeping=Keeping(tmp_path / "c", every=1),
        )  # fmt: skip
    state = load_checkpoint(tmp_path / "c")
    assert state["step"] == 6
    assert all(t.isfinite().all() for t in state["model"].values())


SCRIPT = """
import sys, torch
from eqreg import C4, EquivarianceRegularizer
from eqreg.data.crops import fingerprint
from eqreg.models import ResidualNet
from eqreg.training import Keeping, Symmetry, fit
torch.set_num_threads(1); torch.manual_seed(1)
model = ResidualNet(width=4, depth=3)
x = torch.rand(4, 1, 12, 12)
def batch(g): return x + 0.1 * torch.randn(x.shape, generator=g), x
reg = EquivarianceRegularizer(model, C4, generator=torch.Generator().manual_seed(2))
fit(model, batch, steps=120, lr=1e-3, symmetry=Symmetry(regularizer=reg, lam=1e-3), progress=False,
    generator=torch.Generator().manual_seed(3), keeping=Keeping(sys.argv[1], every=4),
    on_step=lambda step, history: print(step, flush=True))
print("weights", fingerprint(*model.parameters()))
"""


def start(path):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_process_ends_with_the_same_weights_to_the_last_bit(tmp_path):
    """SIGKILL at three moments; nothing in the process can react to it."""
    undisturbed = start(tmp_path / "a").communicate()[0].splitlines()[-1]
    assert undisturbed.startswith("weights")
    generator = random.Random(0)
    first = []
    for _ in range(3):
        process = start(tmp_path / "b")
        first.append(int(process.stdout.readline()))
        for _ in range(generator.randrange(8, 30)):
            process.stdout.readline()
        time.sleep(generator.random() * 0.02)
        process.kill()
        process.communicate()
    assert first[0] == 1 and first[1] > 1 and first[2] > first[1], "it went on, not anew"
    assert start(tmp_path / "b").communicate()[0].splitlines()[-1] == undisturbed


def test_random_crops_are_crops_of_the_same_places():
    generator = torch.Generator().manual_seed(0)
    clean = torch.arange(2 * 9 * 13.0).reshape(2, 1, 9, 13)
    x, y = RandomCrops(clean + 1000, clean, crop=4, batch=200)(generator)
    assert x.shape == y.shape == (200, 1, 4, 4)
    assert torch.equal(x, y + 1000)
    corner = y[:, 0, 0, 0].long()
    image, top, left = corner // 117, corner % 117 // 13, corner % 13
    assert torch.equal(y[:, 0, 3, 3].long(), corner + 3 * 13 + 3)
    assert set(image.tolist()) == {0, 1}
    assert set(top.tolist()) == set(range(6)) and set(left.tolist()) == set(range(10))
    assert fingerprint(clean) != fingerprint(clean + 1) != fingerprint(clean.double())


@pytest.mark.parametrize(
    ("shape", "crop", "batch", "message"),
    [
        ((2, 1, 9, 9), 10, 1, r"crop in \[1, 9\], got 1 and 10"),
        ((2, 1, 9, 9), 4, 0, r"got 0 and 4"),
        ((1, 9, 9), 4, 1, r"one shape \(n, C, H, W\), got \(1, 9, 9\) and \(1, 9, 9\)"),
    ],
)
def test_crops_out_of_range(shape, crop, batch, message):
    with pytest.raises(ValueError, match=message):
        RandomCrops(torch.zeros(shape), torch.zeros(shape), crop=crop, batch=batch)
