"""The result of tracing: which entries of which parameters are tied, what every feature is, and what breaks."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from ...symmetry.fields import FieldType
from ...symmetry.groups import Group, need_group
from ..reynolds import Index, reynolds
from ..wrappers import need_parameters, unwrapped
from .action import Action, Maps
from .defect import (
    EXACT,
    Kinds,
    as_call,
    channel_maps,
    disturb_,
    input_maps,
    output_maps,
    single,
    tied_defect,
)
from .demand import image_map
from .latest import latest
from .orbits import factored_mean, orbit_index
from .results import Uses, features, untied
from .solve import solve
from .state import Break, State
from .tape import learnt, record
from .values import Value

_IMAGE = 4
_CROP, _LARGE = 16, 48  # larger images are traced as a crop, and checked whole
M = TypeVar("M", bound=nn.Module)


@dataclass(eq=False)
class Ties:
    """What the group does to a network, see :func:`tie`.

    Attributes:
        group: the group.
        sizes: shape of every parameter and running statistic, by name.
        tied: names of those whose entries are tied.
        untied: names of those that the trace did not reach, with the reason.
        fields: type of what each module puts out, where it is a sum of trivial and regular fields, in the
            order of execution; a module that runs several times with different types is left out.
        layouts: for those, how the feature is laid out (images, tokens, windows), see ``layers.tokens``.
        features: for every module that ran, whether what it puts out is known to turn.
        breaks: the operations that no weights make equivariant, in the order of execution.
        restarts: how often a choice of channels was revised.
        error: relative error of the tied network in float64, with noise on all its parameters; NaN if nothing is
            asked of any output.
        unasked: shapes of outputs of which nothing is asked: neither images that can turn nor vectors.
    """

    group: Group
    sizes: dict[str, tuple[int, ...]]
    tied: tuple[str, ...]
    untied: dict[str, str]
    fields: dict[str, FieldType]
    layouts: dict[str, str]
    features: dict[str, bool]
    breaks: tuple[Break, ...]
    restarts: int
    error: float
    unasked: tuple[tuple[int, ...], ...]
    _uses: Uses = field(repr=False)
    action: Action = field(repr=False)
    _indices: dict[str, Index | None] = field(default_factory=dict, repr=False)
    # Blocks of one kind are tied alike, so that they share an index.
    _shared: dict[tuple[object, ...], Index | None] = field(default_factory=dict, repr=False)

    @property
    def coverage(self) -> float:
        """Share of all parameters whose action is known."""
        numel = {n: torch.Size(s).numel() for n, s in self.sizes.items()}
        return 1 - sum(numel[n] for n in self.untied) / max(1, sum(numel.values()))

    def index(self, name: str) -> Index | None:
        """Where the orbit mean of a parameter reads (see ``reynolds``); None if it is not tied."""
        if name not in self._indices:
            numel = torch.Size(self.sizes[name]).numel()
            key = self._uses.key(name)
            if key is None or key not in self._shared:
                pairs = self._uses.pairs(name)
                index = orbit_index(pairs, numel, self.action) if pairs else None
                self._shared[key or (name,)] = index
            self._indices[name] = self._shared[key or (name,)]
        return self._indices[name]

    @property
    def exact(self) -> bool | None:
        """Whether the tied network was found equivariant, in float64, up to 1e-8; None if that was not asked of all."""
        if self.error > EXACT:
            return False
        return None if self.unasked or math.isnan(self.error) else True

    @torch.no_grad()
    def project_(self, model: nn.Module, share: float = 1.0) -> nn.Module:
        """Move every tied entry to the mean of its orbit, or a ``share`` of the way; running statistics too."""
        tensors = learnt(unwrapped(model))
        for name in self.tied:
            tensor = tensors[name]
            if (mean := self._mean(name, tensor)) is not None:
                tensor.copy_(mean) if share == 1 else tensor.lerp_(mean, share)
        return model

    def _mean(self, name: str, tensor: Tensor) -> Tensor | None:
        """The mean of each entry's orbit; None if a parameter is not tied."""
        factors = self._uses.factors(name)
        if factors is not None and all(map(self.action.obeys, factors)):
            return factored_mean(tensor, factors, self.group)
        index = self.index(name)
        return None if index is None else reynolds(tensor, index.to(tensor.device))


def tie(
    model: nn.Module,
    x: Any,
    group: Group,
    *,
    turn: Sequence[bool] | None = None,
    in_fields: Sequence[FieldType | None] | None = None,
    out_fields: Sequence[FieldType | None] | None = None,
    fields: Mapping[str, FieldType] | None = None,
) -> Ties:
    """Trace a network once and deduce how the group acts on its parameters and features.

    Args:
        model: any module; it is copied, not changed.
        x: an example input: a tensor, a tuple of positional arguments, or a dict of keyword arguments.
            Of a batch the first element is used; the size should be one that the network sees in use. From 48 pixels
            a crop is tried first, and kept if the ties prove exact at the whole size.
        group: C2, C4, D2 or D4.
        turn: for each tensor among the inputs, whether it turns; by default those with four or more dimensions do.
        in_fields: for each tensor among the inputs, its type; images are trivial by default.
        out_fields: for each tensor among the outputs, its type; by default trivial.
        fields: types of what modules put out, by path.

    Raises:
        ValueError: for groups that do not move pixels to pixels, or inputs that cannot be turned.

    >>> from eqreg import C4
    >>> layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)]
    >>> ties = tie(nn.Sequential(*layers), torch.rand(1, 1, 16, 16), C4)
    >>> ties.exact, ties.coverage, ties.breaks
    (True, 1.0, ())
    """
    need_group(group)
    action, model = Action(group), unwrapped(model)
    need_parameters(model)
    x = single(x)
    lists = (None if g is None else list(g) for g in (turn, in_fields, out_fields))
    question = (group, repr((*lists, dict(fields or {}))))
    given = (action, turn, in_fields, out_fields, fields or {})
    return latest(model, x, question, lambda: _tie(model, x, *given))


def _tie(
    model: nn.Module, x: Any, action: Action, turn: Sequence[bool] | None, in_fields: Kinds, out_fields: Kinds,
    fields: Mapping[str, FieldType],
) -> Ties:  # fmt: skip
    """The trace, checked."""
    core = copied(model).cpu().double().eval()
    kinds = (turn, in_fields, [fields[""]] if "" in fields else out_fields)
    disturb_(core, x)
    ties, tied, proved = None, False, False
    if (small := _smaller(x, turn)) is not None:
        try:
            ties = _read(core, small, action, turn, in_fields, out_fields, fields, brief=True)
            tied = all(b.assumed for b in ties.breaks)
            # A single pass at the whole size costs more than all of these.
            proved = tied and tied_defect(ties.project_(core), small, action, *kinds) <= EXACT
        except Exception:  # networks refuse small images in many ways
            ties = None
        if ties is not None and tied:
            ties.error = tied_defect(core, x, action, *kinds, proved=proved)
    if ties is None or not ties.exact:
        if tied:
            disturb_(core, x)  # what was tied as at the small size must not look tied by itself
        ties = _read(core, x, action, turn, in_fields, out_fields, fields)
        ties.error = tied_defect(ties.project_(core), x, action, *kinds)
    if ties.exact and all(b.assumed for b in ties.breaks):
        ties.breaks = ()  # what could not be shown holds all the same
    elif ties.error > EXACT and not ties.breaks:
        reason = (
            f"outputs of the tied network differ by {ties.error:.1e}: the trace misses something"
        )
        ties.breaks = (Break("", "numeric check", reason),)
    return ties


def _smaller(x: Any, turn: Sequence[bool] | None) -> Any:
    """A crop that is quicker to trace, of the same size modulo 16; None if the images are small already."""
    images = [t for t in tree_leaves(x) if isinstance(t, Tensor) and t.ndim == _IMAGE]
    sizes = {n for t in images for n in t.shape[2:]}
    if turn is not None or len(sizes) != 1 or (n := sizes.pop()) < _LARGE or n % _CROP > 1:
        return None
    size = _CROP + n % _CROP

    def crop(a: Any) -> Any:
        return a[..., :size, :size] if isinstance(a, Tensor) and a.ndim == _IMAGE else a

    return tree_map(crop, x)


def _read(
    core: nn.Module, x: Any, action: Action, turn: Sequence[bool] | None, in_fields: Kinds, out_fields: Kinds,
    fields: Mapping[str, FieldType], brief: bool = False,
) -> Ties:  # fmt: skip
    """The trace itself, not checked yet."""
    args, kwargs = as_call(x)
    turned = input_maps(action, x, turn, in_fields)
    tape = record(core, args, kwargs)
    sizes = {n: tuple(t.shape) for n, t in learnt(core).items()}
    offsets, total = {}, 0
    for name, shape in sizes.items():
        offsets[name] = total
        total += torch.Size(shape).numel()
    state = State(tape, action, dict(zip(tape.inputs, turned, strict=True)), offsets, brief)
    asked = {
        t: maps
        for path, t in tape.features
        if path in fields
        and (maps := image_map(state, tape.shapes[t], channel_maps(action, fields[path])))
    }
    shapes = [tape.shapes[t] for t in tape.outputs]
    wanted = list(zip(tape.outputs, output_maps(action, shapes, out_fields), strict=True))
    outputs = {t: maps for t, maps in wanted if maps is not None and t not in asked}
    restarts = solve(state, {**asked, **outputs})
    _check_outputs(state, outputs)
    used = Uses(state)
    kinds, known = features(state)
    missed = untied(state)
    breaks = tuple(state.breaks)
    ties = Ties(
        action.group, sizes, tuple(n for n in sizes if n in used.of), missed,
        {n: k for n, (k, _) in kinds.items()}, {n: layout for n, (_, layout) in kinds.items()}, known,
        breaks, restarts, math.inf, tuple(tape.shapes[t] for t, maps in wanted if maps is None), used, action,
    )  # fmt: skip
    state.forget()
    return ties


def copied(model: M) -> M:
    """A copy, also of modules that hold computed tensors (weight norm by hooks), which deepcopy refuses."""
    held = (t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor))
    return copy.deepcopy(model, {id(t): t.detach().clone() for t in held if not t.is_leaf})


def _check_outputs(state: State, asked: dict[int, Maps]) -> None:
    for i, t in enumerate(state.tape.outputs):
        known = state.known.get(t)
        if not isinstance(known, Value) or t not in asked:
            continue
        flat = known.ids.reshape(-1)
        if not all(
            bool((flat[m] == k.reshape(-1)).all())
            for m, k in zip(asked[t], known.moved, strict=True)
        ):
            state.breaks.append(Break(
                "", "output", f"output {i} of shape {known.shape} does not turn as an image or stay as a vector",
                "give its type with out_fields=",
            ))  # fmt: skip
