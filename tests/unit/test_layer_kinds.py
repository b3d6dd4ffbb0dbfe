"""Layers and inputs that plans and tracing do not expect: one sentence, never a wrong number."""

import math

import pytest
import torch
from torch import nn

from eqreg import (
    C4,
    EquivarianceDecay,
    EquivarianceRegularizer,
    ProjectionPenalty,
    check,
    equivariance_distance,
    equivariant_init_,
    soften,
)


def image():
    return torch.rand(1, 3, 8, 8)


EVERY = {
    "check": lambda m: check(m, image(), C4),
    "soften": lambda m: soften(m, C4, 0.5, example=image()),
    "decay": lambda m: EquivarianceDecay(m, C4),
    "decay, traced": lambda m: EquivarianceDecay(m, C4, example=image()),
    "penalty": lambda m: ProjectionPenalty(m, C4),
    "distance": lambda m: equivariance_distance(m, C4),
    "init": lambda m: equivariant_init_(m, C4, example=image()),
}


@pytest.mark.parametrize("call", [*EVERY.values(), lambda m: EquivarianceRegularizer(m, C4)])
def test_a_lazy_layer_has_to_run_first(call):
    model = nn.Sequential(nn.LazyConv2d(8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1))
    with pytest.raises(
        ValueError, match=r"layer '0' \(LazyConv2d\) has no parameters .* model\(x\)"
    ):
        call(model)
    model(image())
    call(model)


@pytest.fixture
def mesh(tmp_path):
    dist = torch.distributed
    if not dist.is_available():
        pytest.skip("this torch has no torch.distributed")
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/init", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_parameters_split_over_processes(mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    for layer in (model[0], model[2]):
        layer.weight = nn.Parameter(distribute_tensor(layer.weight.detach(), mesh, [Shard(0)]))
    for call in EVERY.values():
        with pytest.raises(TypeError, match="'0.weight' is a DTensor.*before fully_shard"):
            call(model)
    assert EquivarianceRegularizer(model, C4).plan.fields  # compares features, not weights


class Volume(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1))


def test_volumes_turn_slice_by_slice():
    model, x = Volume(), torch.rand(1, 1, 3, 8, 8)
    report = check(model, x, C4)  # what does not turn at all would be exact, too
    assert report and report.error > 1e-2 and report.tied_error < 1e-12
    EquivarianceDecay(model, C4, math.inf, example=x).step(0.1)
    turned = model(x.rot90(1, (-2, -1)))
    torch.testing.assert_close(turned, model(x).rot90(1, (-2, -1)))


def test_plans_without_an_example_say_how_volumes_are_tied():
    for call in (EquivarianceRegularizer, EquivarianceDecay):
        with pytest.raises(ValueError, match=r"no convolution of images. .* example=x"):
            call(Volume(), C4)
        with pytest.raises(ValueError, match="no images .*ties it with example="):
            call(Volume(), C4, layers=nn.Conv3d)


def test_an_example_without_an_image():
    model = nn.Linear(8, 8)
    with pytest.raises(ValueError, match=r"nothing turns .* got \(1, 8\); say with turn="):
        check(model, torch.rand(1, 8), C4)
    with pytest.raises(ValueError, match="nothing turns"):
        check(nn.Conv2d(3, 3, 1), image(), C4, turn=[False])
    with pytest.raises(ValueError, match="turn= needs one entry for each of 1 tensors, got 2"):
        check(nn.Conv2d(3, 3, 1), image(), C4, turn=[True, False])
