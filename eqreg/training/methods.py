"""The methods that the book compares, as data: what each one switches on.

    from eqreg.training.methods import METHODS, prepare

Names: ``plain``, ``augmentation``, ``strict`` (equal width), ``strict-equal`` (equal parameters),
``pairs`` (EQ-Reg without its penalty), ``eqreg``, ``eqreg-scale-free``, ``penalty`` (its turned copies
carry no labels), ``projection-penalty``, ``decay``, ``augmentation-decay``, ``start-decay`` (decay from
weights that are equivariant to begin with) and ``automatic`` (decay that finds its strength while it
trains). Rivals from other papers: ``projection-norms``, ``projection-norms-both``, ``train-then-project``,
``pathways``, ``soft-projection`` and ``adaptive-constraint``. A group's name appended, as in
``eqreg-C4``, replaces the group that the task would choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ..layers.plan import Fields, Selector
from ..soft import (
    AdaptiveConstraint,
    AgreementStrength,
    EquivarianceDecay,
    EquivarianceRegularizer,
    PathwayDecay,
    ProjectionNorms,
    ProjectionPenalty,
    equivariant_init_,
    soft_projection_,
)
from ..strict import equivariant
from ..symmetry.groups import C2, C4, C8, D4, Group
from .settings import Symmetry

GROUPS: Mapping[str, Group] = {"C2": C2, "C4": C4, "C8": C8, "D4": D4}
PENALTIES = (1e-4, 1e-3, 1e-2)
# Of the released code for deraining and metal artefacts (RCDNet, DICDNet, OSCNet), by its norm.
RELEASED = 1e-8
DECAYS = (10.0, 40.0, 160.0, 640.0)
# Odds of a soft projection: b = 1/2, 3/4 and 9/10.
ODDS = (1.0, 3.0, 9.0)
_SYMMETRIC = 0.1  # share of the penalty that falls on symmetric weights, where both are penalised
Weights = Literal["norms", "both norms", "project", "pathways", "soft", "constraint"]


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Attributes:
        about: the row's caption.
        augment: turn each image by an element of the group.
        strict: replace the network by its strict twin of equal width or of equal parameters.
        pairs: pass each image together with a turned copy (EQ-Reg; half the images per step).
        labels: whether the turned copies carry labels.
        norm: of the penalty on the features.
        projection: penalise the distance of the weights from the symmetric ones.
        weights: what else acts on them: penalised norms of the asymmetric part, or of both parts; a
            projection after the last step; a strict and a free path; a soft projection, with the
            strength as b / (1 - b); a constraint with multipliers, with the strength as its price.
        decay: shrink the weights towards symmetry after each step.
        automatic: the decay's strengths move by whether half batches agree, their logarithms by this much at
            a time; tuned is where they start. 0: they stay.
        start: begin with equivariant weights of full power; a decay of random ones fades the signal.
        strengths: values of lambda, or of the decay, that tuning tries; empty: nothing to tune.
        objective: name of the task's own objective in place of its loss, for self-supervised rows.
        network: name of another network of the task in place of its usual one, for baselines.
        data: name of a variant of the task's training data.
        layers: what the penalty or the decay acts on, in place of the task's layers and their fields.
        rate_of: name of the method whose learning rate is taken, so that a difference is not the rate's.
        released: as in the published code: the whole batch and its copies (twice the images of a step),
            and the strength is not tuned.
        sparing: whole batches, of which a quarter is paired, at every fourth step alone: EQ-Reg for a
            sixteenth more images than plain (chapter 19).

    >>> METHODS["eqreg"].pairs, METHODS["decay"].pairs
    (True, False)
    """

    about: str
    augment: bool = False
    strict: Literal["width", "parameters"] | None = None
    pairs: bool = False
    labels: bool = True
    norm: str = "relative"
    projection: bool = False
    weights: Weights | None = None
    decay: bool = False
    automatic: float = 0.0
    start: bool = False
    strengths: tuple[float, ...] = ()
    objective: str | None = None
    network: str | None = None
    data: str | None = None
    layers: Selector | None = None
    rate_of: str | None = None
    released: bool = False
    sparing: bool = False


METHODS: Mapping[str, Method] = {
    "plain": Method("the network as it is"),
    "augmentation": Method("each image turned by a random element", augment=True),
    "strict": Method("group convolutions of equal width", strict="width"),
    "strict-equal": Method("group convolutions with as many parameters", strict="parameters"),
    "pairs": Method("each image with a turned copy, both with labels", pairs=True),
    "eqreg": Method("pairs and the penalty on the features", pairs=True, strengths=PENALTIES),
    "eqreg-at-pairs-rate": Method(
        "eqreg at the learning rate of pairs", pairs=True, strengths=PENALTIES, rate_of="pairs"
    ),
    "sparing": Method(
        "eqreg on a quarter of every fourth batch", pairs=True, sparing=True, strengths=PENALTIES
    ),
    "augmentation-sparing": Method(
        "the same on images that are turned each for itself",
        augment=True, pairs=True, sparing=True, strengths=PENALTIES,
    ),
    "released": Method(
        "the penalty of the released code, its strength and batch",
        pairs=True, norm="reference", strengths=(RELEASED,), released=True,
    ),
    "released-control": Method(
        "the same without the penalty", pairs=True, rate_of="released", released=True
    ),
    "eqreg-scale-free": Method(
        "eqreg without the pull on the features' size",
        pairs=True, norm="scale-free", strengths=PENALTIES,
    ),
    "penalty": Method(
        "the penalty on turned copies, which carry no labels",
        pairs=True, labels=False, strengths=PENALTIES,
    ),
    "projection-penalty": Method(
        "a penalty on asymmetric weights", projection=True, strengths=PENALTIES
    ),
    "decay": Method("decay towards symmetric weights", decay=True, strengths=DECAYS),
    "augmentation-decay": Method(
        "augmentation and decay together", augment=True, decay=True, strengths=DECAYS
    ),
    "start-decay": Method(
        "decay from equivariant weights", decay=True, start=True, strengths=DECAYS
    ),
    "automatic": Method(
        "decay that finds its strength", decay=True, automatic=0.05, strengths=(40.0,)
    ),
    # A run of 160 steps has 40 updates: enough for a factor of 50 either way.
    "automatic-short": Method(
        "automatic, at twice the pace, for short runs", decay=True, automatic=0.1, strengths=(40.0,)
    ),
    "projection-norms": Method(
        "a penalty on the norm of the asymmetric weights", weights="norms", strengths=PENALTIES
    ),
    "projection-norms-both": Method(
        "the same and a tenth of it on the symmetric weights", weights="both norms", strengths=PENALTIES
    ),
    "train-then-project": Method("plain, its weights projected at the end", weights="project"),
    "pathways": Method(
        "a strict and a free path, the free one decays", weights="pathways", strengths=DECAYS[:3]
    ),
    "soft-projection": Method("weights seen through a soft projection", weights="soft", strengths=ODDS),
    "adaptive-constraint": Method(
        "a dual method closes the asymmetric part", weights="constraint", strengths=PENALTIES
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A method with its group; ``Row.parse("eqreg-C4", ...)`` reads a name."""

    name: str
    method: Method
    group: Group | None
    decay_group: Group | None  # of what acts on the weights

    @classmethod
    def parse(
        cls,
        name: str,
        right: Group,
        full: Group,
        methods: Mapping[str, Method] = METHODS,
    ) -> Row:
        """Find the method and its group.

        Args:
            name: a name of ``methods``, possibly with ``-C2``, ``-C4``, ``-C8`` or ``-D4``.
            right: the group of the task's own symmetry; taken by all that do not act on weights.
            full: the group that the decay and the projection penalty take.

        Raises:
            ValueError: unknown name; the message lists the known ones.
        """
        base, _, suffix = name.rpartition("-")
        given = GROUPS.get(suffix) if base in methods else None
        key = base if given is not None else name
        if key not in methods:
            raise ValueError(
                f"unknown method {name!r}; expected one of {', '.join(methods)}, or one of these "
                f"followed by -{', -'.join(GROUPS)}"
            )
        method = methods[key]
        used = method.augment or method.strict or method.pairs
        tied = method.decay or method.projection or method.weights is not None
        if given is not None and not (used or tied):
            raise ValueError(f"method {key!r} has no group, got {name!r}")
        return cls(
            name,
            method,
            (given or right) if used else None,
            (given or full) if tied else None,
        )


@dataclass
class Prepared:
    """A model and what :func:`eqreg.training.fit` does for its symmetry; together they make the method."""

    model: nn.Module
    symmetry: Symmetry


def prepare(
    row: Row,
    model: nn.Module,
    strength: float = 0.0,
    *,
    twin: Any = equivariant,
    layers: Selector | Iterable[Selector] | None = None,
    fields: Fields | None = None,
    seed: int = 0,
) -> Prepared:
    """Turn a plain model into the one that ``row`` trains, and say how ``fit`` trains it.

    Args:
        row: the method and its group.
        model: plain; a strict row leaves it alone and gives its twin, an equivariant start changes it.
        strength: lambda of EQ-Reg or strength of the decay.
        twin: called as ``twin(model, group, match=...)`` for strict rows.
        layers: which layers EQ-Reg and the decay act on; the default plan if None.
        fields: types of their outputs where the plan's guess is wrong.
        seed: of the elements that EQ-Reg draws.

    >>> model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3))
    >>> prepare(Row.parse("decay-C4", right=C4, full=C4), model, 40.0).symmetry.decay.strengths
    {'0': 40.0, '2': 40.0}
    """
    method = row.method
    does: dict[str, Any] = {}
    what: dict[str, Any] = {"layers": layers, "fields": fields}
    if method.layers is not None:
        what = {"layers": method.layers}
    if method.strict is not None and row.group is not None:
        model = twin(model, row.group, match=method.strict)
    if method.augment:
        does["augment"] = row.group
    if method.pairs and row.group is not None:
        generator = torch.Generator().manual_seed(seed)
        does["regularizer"] = EquivarianceRegularizer(
            model, row.group, norm=method.norm, generator=generator,
            fraction=1 / 4 if method.sparing else 1.0, every=4 if method.sparing else 1, **what,
        )  # fmt: skip
        does |= {"lam": strength, "label_pairs": method.labels}
    if row.decay_group is not None:
        if method.start:
            equivariant_init_(model, row.decay_group, **what)
        if method.projection:
            does |= {
                "regularizer": ProjectionPenalty(model, row.decay_group, **what), "lam": strength
            }  # fmt: skip
        if method.decay:
            does["decay"] = EquivarianceDecay(model, row.decay_group, strength, **what)
        does |= _of_weights(method, model, row.decay_group, strength, what)
        if method.automatic:
            does["automatic"] = AgreementStrength(does["decay"], rate=method.automatic)
    return Prepared(model, Symmetry(**does))


def _of_weights(
    method: Method, model: nn.Module, group: Group, strength: float, what: dict[str, Any]
) -> dict[str, Any]:
    """What ``fit`` does for the rivals that act on the weights."""
    match method.weights:
        case "norms" | "both norms" as kind:
            both = _SYMMETRIC if kind == "both norms" else 0.0
            norms = ProjectionNorms(model, group, symmetric=both, **what)
            return {"regularizer": norms, "lam": strength}
        case "project":
            return {"decay": EquivarianceDecay(model, group, 0.0, **what), "ends_strict": True}
        case "pathways":
            return {"decay": PathwayDecay(model, group, strength, **what)}
        case "soft":
            soft_projection_(model, group, strength / (1 + strength), **what)
        case "constraint":
            return {"regularizer": AdaptiveConstraint(model, group, **what), "lam": strength}
    return {}
