"""What a task tells the engine: its network, its data, its measure of success, its presets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
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
_READ: Mapping[type, Any] = {int: int, float: float, str: str}


@dataclass(frozen=True)
class Preset:
    """How long and how large the runs of a task are; data, no code.

    Attributes:
        steps: optimizer steps of a run.
        images: images through the network per step; the paired methods draw half as many.
        methods: rows of the comparison, names as in ``eqreg.training.methods``.
        seeds: of the reported runs. They decide weights, data and order, alike for all methods.
        rates: learning rates that tuning tries, on validation images; a single one is taken as it is.
        tuning_steps: length of a tuning run.
        tuning_seeds: of the tuning runs; none is in ``seeds``.
        watch: how many times a run looks at the validation images, for the learning curve.
        sizes: the task's own numbers (crop, width, ...).
        expects: hours and device that the whole comparison takes, and how that is known.
        strengths: in place of those of the methods that have some, for tuning; a single one is taken as it is.
        beside: name of the preset whose rows belong into the same table, trained alike: they are read, not run.
        study: it answers one question of a chapter; ``artifacts/`` keeps its table and not its networks.
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
    strengths: tuple[float, ...] = ()
    study: bool = False
    beside: str = ""

    def __post_init__(self) -> None:
        if shared := set(self.seeds) & set(self.tuning_seeds):
            raise ValueError(f"Preset: tuning and reported runs share the seeds {sorted(shared)}")

    def strengths_of(self, method: Method) -> tuple[float, ...]:
        """What tuning tries; 0 alone for a method that has no strength."""
        return (self.strengths or method.strengths) if method.strengths else (0.0,)

    def varied(self, axis: str, value: str) -> Preset:
        """The same with another value of one of its ``sizes``, or with one rate or strength for all methods.

        Args:
            axis: name of a size, ``"rate"`` or ``"strength"``.
            value: as on the command line; read as the type that the preset's own value has.

        Raises:
            ValueError: no such axis, or a value of another type; the message says what was expected.

        >>> quick = Preset(10, 4, (), (0,), (1e-3,), 5, "", sizes={"patches": 4})
        >>> quick.varied("patches", "16").sizes
        {'patches': 16}
        """
        axes = {**self.sizes, "rate": self.rates[0], "strength": 1.0}
        if axis not in axes:
            raise ValueError(f"cannot vary {axis!r}; expected one of {', '.join(axes)}")
        kind = type(axes[axis])
        try:
            read = _READ[kind](value)
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{axis}={value}: expected a value like {axes[axis]!r} ({kind.__name__})"
            ) from error
        if axis == "rate":
            return replace(self, rates=(read,), study=True, beside="")
        if axis == "strength":
            return replace(self, strengths=(read,), study=True, beside="")
        return replace(self, sizes={**self.sizes, axis: read}, study=True, beside="")


class Task(ABC):
    """Base of the tasks. A subclass in a file of its own is all that a new task needs.

    Class attributes:
        name: on the command line. title: one line.
        right: group of the symmetries that the degradation really has.
        full: group that the decay pulls towards; may be larger.
        presets: quick, full, paper and others, by name.
        methods: rows that exist; a task may add its own.
        score: the metric of :meth:`evaluate` that tuning maximises.
        margin: a difference of the score that matters to nobody; fixed before any run.
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
    margin: ClassVar[float] = 0.15
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

    def sampler(
        self, preset: Preset, method: Method, seed: int, root: Root, device: torch.device
    ) -> SampleBatch:
        """What draws the batches of a method: its data, and half the images where each comes with a copy."""
        halved = method.pairs and not (method.released or method.sparing)
        batch = preset.images // 2 if halved else preset.images
        drawn = self.batches(preset, seed, batch, root, device)
        return drawn if method.data is None else self.variant(method.data, drawn)

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
        """The preset called ``name``, varied if the name says so: ``"cpu,patches=16,spread=90"``.

        Raises:
            ValueError: there is none, or it has no such axis; the message lists those that exist.
        """
        base, *changes = name.split(",")
        if base not in self.presets:
            raise ValueError(
                f"unknown preset {base!r} of {self.name}; expected one of {', '.join(self.presets)}"
            )
        preset = self.presets[base]
        for change in changes:
            axis, _, value = change.partition("=")
            try:
                preset = preset.varied(axis, value)
            except ValueError as error:
                raise ValueError(f"preset {name!r} of {self.name}: {error}") from error
        return preset
