"""What a task tells the engine: its network, its data, its measure of success, its presets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.plan import Fields, Selector
from ..strict import equivariant
from ..symmetry.groups import Group
from ..training.fit import SampleBatch
from ..training.methods import METHODS, Method
from ..training.step import Objective

Root = str | Path | None


@dataclass(frozen=True)
class Preset:
    """How long and how large the runs of a task are; data, no code.

    Attributes:
        steps: optimizer steps of a run.
        images: images through the network per step; the paired methods draw half as many.
        methods: rows of the comparison, names as in ``eqreg.training.methods``.
        seeds: of the reported runs. They decide weights, data and order, alike for all methods.
        rates: learning rates that tuning tries, on validation images.
        tuning_steps: length of a tuning run.
        tuning_seeds: of the tuning runs; none is in ``seeds``.
        watch: how many times a run looks at the validation images, for the learning curve.
        sizes: the task's own numbers (crop, width, ...).
        expects: hours and device that the whole comparison takes, and how that is known.
    """

    steps: int
    images: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    rates: tuple[float, ...]
    tuning_steps: int
    expects: str
    tuning_seeds: tuple[int, ...] = (100,)
    watch: int = 8
    sizes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if shared := set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(f"Preset: tuning and reported runs share the seeds {sorted(shared)}")


class Task(ABC):
    """Base of the tasks. A subclass in a file of its own is all that a new task needs.

    Class attributes:
        name: on the command line. title: one line.
        right: group of the symmetries that the degradation really has.
        full: group that the decay pulls towards; may be larger.
        presets: quick, full, paper and others, by name.
        methods: rows that exist; a task may add its own.
        score: the metric of :meth:`evaluate` that tuning maximises.
        layers: what EQ-Reg and the decay act on; None is the default plan.
        fields: types of their outputs where the plan's guess is wrong.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    right: ClassVar[Group]
    full: ClassVar[Group]
    presets: ClassVar[Mapping[str, Preset]]
    methods: ClassVar[Mapping[str, Method]] = METHODS
    score: ClassVar[str] = "psnr"
    layers: ClassVar[Selector | Iterable[Selector] | None] = None
    fields: ClassVar[Fields | None] = None

    @abstractmethod
    def model(self, preset: Preset) -> nn.Module:
        """The plain network; its weights come from torch's global generator."""

    def network(self, name: str, preset: Preset) -> nn.Module:
        """Another network, which a method asks for by name: a baseline or a variant.

        Raises:
            ValueError: the task has none of that name.
        """
        raise ValueError(f"task {self.name!r} has no network {name!r}")

    def twin(
        self, model: nn.Module, group: Group, *, match: Literal["width", "parameters"]
    ) -> nn.Module:
        """The strict network that stands beside ``model``."""
        return equivariant(model, group, match=match)

    @abstractmethod
    def batches(
        self, preset: Preset, seed: int, batch: int, root: Root, device: torch.device
    ) -> SampleBatch:
        """A sampler of training batches; ``seed`` decides the data, the generator the order."""

    def variant(self, name: str, sampler: SampleBatch) -> SampleBatch:
        """Other training data, which a method asks for by name, from what :meth:`batches` gave.

        Raises:
            ValueError: the task has none of that name.
        """
        raise ValueError(f"task {self.name!r} has no training data {name!r}")

    @abstractmethod
    def evaluate(
        self, model: nn.Module, preset: Preset, split: str, root: Root
    ) -> dict[str, list[float]]:
        """Metrics of a trained model (in eval mode) on "val" or "test": one number per image each."""

    def loss(self, prediction: Any, y: Any) -> Tensor:
        """The task loss; the mean squared error unless a task says otherwise."""
        return F.mse_loss(prediction, y)

    def objective(self, name: str, preset: Preset) -> Objective:
        """The objective that a method asks for by name.

        Raises:
            ValueError: the task has none of that name.
        """
        raise ValueError(f"task {self.name!r} has no objective {name!r}")

    def preset(self, name: str) -> Preset:
        """The preset called ``name``.

        Raises:
            ValueError: there is none; the message lists those that exist.
        """
        if name not in self.presets:
            raise ValueError(
                f"unknown preset {name!r} of {self.name}; expected one of {', '.join(self.presets)}"
            )
        return self.presets[name]
