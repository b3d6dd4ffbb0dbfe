"""What the presets that decide are tested on, and the ensembles beside each run."""

import pytest
import torch
from PIL import Image
from torch import nn

from eqreg import rotate
from eqreg.data.bsds import BSDS500
from eqreg.measure.quality import psnr
from eqreg.physics.ct import mar_psnr
from eqreg.physics.ct.evaluate import WINDOW
from eqreg.tasks import _in_rain, get_task, mar
from eqreg.tasks._metal import Cases


def test_photographs_for_the_test_are_none_of_the_others(tmp_path):
    for i in range(64):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i:02}.png")
    fit, val, test = (set(BSDS500(part, tmp_path).names) for part in ("fit", "val", "test"))
    assert (len(fit), len(val), len(test)) == (4, 20, 40)
    assert len(fit | val | test) == 64
    (tmp_path / "00.png").unlink()
    for i in range(1, 4):
        (tmp_path / f"{i:02}.png").unlink()
    with pytest.raises(ValueError, match="'test' needs more than 60 images, found 60"):
        BSDS500("test", tmp_path)


def test_photographs_that_were_kept_back(tmp_path, monkeypatch):
    g = torch.Generator().manual_seed(0)
    images = {str(i): torch.rand(3, 40, 48, generator=g) for i in range(3)}
    asked = []
    monkeypatch.setattr(_in_rain, "bsds500", lambda part, root: asked.append(part) or images)
    same = _in_rain.kept_back(lambda o: o, 32, tmp_path)
    assert asked == ["test"] and {len(v) for v in same.values()} == {3}
    assert torch.equal(same["psnr_kept_back"], same["psnr_input_kept_back"])
    assert torch.allclose(same["psnr_ensemble_kept_back"], same["psnr_input_kept_back"])
    weights = torch.linspace(0.5, 1, 32)
    rainy, clean = _in_rain._kept_back(32, tmp_path)
    found = _in_rain.kept_back(lambda o: o * weights, 32, tmp_path)
    both = psnr(rainy * (weights + weights.flip(0)) / 2, clean, channel="y")
    assert torch.allclose(found["psnr_ensemble_kept_back"], both)
    assert not torch.allclose(both, found["psnr_kept_back"])


class Slope(nn.Module):
    """Answers with a horizontal ramp on the LI image: no two orientations agree."""

    def __init__(self):
        super().__init__()
        self.ramp = nn.Parameter(torch.linspace(0.5, 1, 32))

    def forward(self, ma, li, metal):
        return li * self.ramp


def test_the_ensemble_of_metal_artifacts_is_the_mean_of_four_orientations():
    g = torch.Generator().manual_seed(0)
    gt, ma, li = (0.4 * torch.rand(2, 32, 32, generator=g) for _ in range(3))
    cases = Cases(gt, ma, li, torch.rand(2, 32, 32, generator=g) > 0.9, {})
    with torch.no_grad():
        found = mar._under_turns(Slope(), cases, mar.restore(Slope(), cases))
    ramp = torch.linspace(0.5, 1, 32).expand(1, 1, 32, 32)
    mean = torch.stack([rotate(ramp, -k)[0, 0] for k in range(4)]).mean(0)
    expected = mar_psnr(li.clamp(0, WINDOW) * mean, gt, cases.metal)
    assert torch.allclose(found["psnr_ensemble"], expected, atol=1e-4)
    assert not torch.allclose(found["psnr_ensemble"], found["psnr_upright"], atol=1e-3)


def test_the_ensemble_of_a_classifier_is_of_mean_logits():
    task = get_task("classification")
    preset = task.preset("quick")
    torch.manual_seed(0)
    model = task.model(preset).eval()
    found = task.evaluate(model, preset, "test", None)
    x, y = task.held_out(preset, "test", None)
    with torch.no_grad():
        mean = torch.stack([model(rotate(x, k)) for k in range(4)]).mean(0)
    right = task._by_class((mean.argmax(1) == y).float(), y)
    assert found["accuracy_ensemble"] == pytest.approx(right)
    assert "accuracy_ensemble" not in task.evaluate(model, preset, "val", None)
