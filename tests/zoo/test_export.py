"""A tied network of others is still their network: exported, its numbers and its symmetry stay."""

import numpy as np
import pytest
import torch
from measure import first, perturbed
from networks import NETWORKS

from eqreg import C4
from eqreg.layers.trace import tie

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]  # the exporter's warnings

NAMES = ("SwinIR x1", "NAFNet", "RCAN", "smp Unet", "MONAI BasicUNet")


@pytest.mark.parametrize("name", NAMES)
def test_export(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network = next(n for n in NETWORKS if n.name == name)
    try:
        model = network.build()
    except ImportError as error:
        pytest.skip(f"{error}; or run `make zoo`")
    x = network.example()
    model = perturbed(model).float()
    with torch.no_grad():
        tie(model, x, C4).project_(model)
        expected = first(model(x.clone()))
    program = torch.export.export(model, (x,))
    assert torch.allclose(first(program.module()(x.clone())), expected, atol=1e-5)
    path = tmp_path / "net.onnx"
    torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)

    def run(x):
        return session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(x)})[0]

    scale = float(expected.abs().max())
    assert np.abs(run(x.numpy()) - expected.numpy()).max() <= 1e-5 * max(1.0, scale)
    if name != "smp Unet":  # its strides are not exact at any multiple of 32
        turned = run(np.rot90(x.numpy(), 1, (2, 3)))
        assert np.abs(turned - np.rot90(run(x.numpy()), 1, (2, 3))).max() <= 2e-5 * max(1.0, scale)
