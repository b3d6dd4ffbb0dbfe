"""The command ``eqreg ct``: data sets of CT slices with metal, methods that repair them, and their score."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from ..data.metal.judge import BUILT_IN, classical, repair, score, table
from ..data.metal.layout import LAYOUTS, Case
from ..data.metal.make import Plan, make, preview
from ..data.metal.manifest import read_manifest
from ..data.metal.place import SITES
from ..data.metal.protocol import Metal, Recipe, read_recipe
from ..physics.ct.evaluate import WINDOW
from .ct_train import train_on
from .options import THREADS, real, whole
from .pretrained import load_pretrained
from .stopping import Stop

Act = Callable[[argparse.Namespace], int]
_COUNT, _SEED = whole(1, 10**9), whole(0, 2**63 - 1)


def register(commands: Any) -> None:
    """Add the command to the subparsers of ``eqreg``."""
    about = "Make CT data with metal of your own slices; repair and score them."
    ct = commands.add_parser("ct", help=about, description=about)
    verbs = ct.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, act: Act, says: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = verbs.add_parser(name, help=says, description=says)
        made.set_defaults(act=_one_line(act))
        return made

    made = verb("simulate", _simulate, "Put metal into CT slices and scan them.")
    made.add_argument(
        "slices", nargs="+", metavar="SLICES",
        help="files or folders of DICOM, NIfTI, 16-bit PNG or NumPy; pydicom; phantoms:N",
    )  # fmt: skip
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder")
    made.add_argument("--masks", default="auto", metavar="FILE", help="own masks; auto (default)")
    made.add_argument("--implants", metavar="KINDS", help=f"of {','.join(SITES)} (all)")
    made.add_argument("--materials", metavar="NAMES", help="ti,co-cr,steel,au,amalgam, ...")
    made.add_argument(
        "--per-slice", type=whole(1, 10_000), metavar="N", help="scans of each slice (1)"
    )
    made.add_argument(
        "--spacing",
        type=real(0, above=True),
        metavar="MM",
        help="of pixels, where files do not say",
    )
    made.add_argument("--field", metavar="MM", help="side of the image (400); slice: fit each one")
    made.add_argument(
        "--geometry", default="syndeeplesion", metavar="FILE", help="protocol in YAML"
    )
    made.add_argument("--layout", default="published", help=" or ".join(LAYOUTS))
    made.add_argument("--split", default="90/10", metavar="A/B", help="train and test, by patients")
    made.add_argument(
        "--every", type=_COUNT, default=1, metavar="N", help="every N-th slice of a series"
    )
    made.add_argument(
        "--offset", type=whole(0, 65535), default=32768, help="HU = value - offset in PNG files"
    )
    made.add_argument("--jobs", type=whole(1, THREADS), default=1, help="processes")
    made.add_argument("--seed", type=_SEED, default=0)
    made.add_argument("--preview", action="store_true", help="write only DIR/preview.png")
    made = verb("train", _train, "Train the DICDNet of chapter 14b on the training split.")
    made.add_argument("folder", type=Path, metavar="DIR")
    made.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors")
    made.add_argument(
        "--preset", default="cpu", help="sizes of the network: quick, cpu, full, paper"
    )
    made.add_argument("--steps", type=_COUNT, default=200)
    made.add_argument("--lr", type=real(0, above=True), default=1e-3)
    made.add_argument("--seed", type=_SEED, default=0)
    for name, act, says in (
        ("repair", _repair, "Restore the cases with a method."),
        ("score", _score, "Table of the scan, LI, NMAR and all repaired methods."),
    ):
        made = verb(name, act, says)
        made.add_argument("folder", type=Path, metavar="DIR")
        made.add_argument("--split", default="test", help="test (default) or train")
        if name == "repair":
            how = "li, nmar, a name such as mar/plain, or FILE.safetensors"
            made.add_argument("--with", dest="method", required=True, help=how)


def _one_line(act: Act) -> Act:
    """A full disk and Ctrl-C end in a line too; what was finished stays."""

    @wraps(act)
    def careful(options: argparse.Namespace) -> int:
        try:
            return act(options)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise ValueError(
                f"{error}; what was finished stays, the same command goes on"
            ) from error
        except KeyboardInterrupt:
            print("eqreg: stopped; the same command goes on", file=sys.stderr)
            return 75

    return careful


def _simulate(options: argparse.Namespace) -> int:
    recipe = _recipe(options)
    plan = Plan(
        places=tuple(options.slices), masks=None if options.masks == "auto" else Path(options.masks),
        layout=options.layout, test=_share(options.split), seed=options.seed,
        spacing=options.spacing, offset=options.offset, every=options.every,
    )  # fmt: skip
    if options.preview:
        print(f"wrote {preview(plan, options.out, recipe, report=_tell)}")
        return 0
    made = make(plan, options.out, recipe, jobs=options.jobs, report=_tell)
    counts = {s: sum(c["split"] == s for c in made["cases"]) for s in ("train", "test")}
    print(f"{options.out}: {counts['train']} training and {counts['test']} test cases")
    return 0


def _recipe(options: argparse.Namespace) -> Recipe:
    recipe = read_recipe(options.geometry)
    changed: dict[str, Any] = {}
    if options.implants is not None:
        changed["implants"] = tuple(options.implants.split(","))
    if options.materials is not None:
        changed["materials"] = tuple(options.materials.split(","))
    if options.per_slice is not None:
        changed["per_slice"] = options.per_slice
    recipe = replace(recipe, metal=Metal(**{**vars(recipe.metal), **changed}))
    if options.field is not None:
        try:
            field = None if options.field == "slice" else float(options.field)
        except ValueError:
            raise ValueError(f"--field: expected mm or slice, got {options.field!r}") from None
        recipe = replace(recipe, field_mm=field)
    return recipe


def _share(split: str) -> float:
    parts = split.split("/")
    if len(parts) != 2 or not all(p.isdigit() for p in parts) or not sum(map(int, parts)):
        raise ValueError(f"--split: expected two whole numbers such as 90/10, got {split!r}")
    train, test = map(int, parts)
    return test / (train + test)


def _train(options: argparse.Namespace) -> int:
    if options.out.suffix != ".safetensors":
        raise ValueError(f"--out: expected a name ending in .safetensors, got {options.out}")
    with Stop() as stop:
        seconds = train_on(
            options.folder, options.out, preset=options.preset, steps=options.steps, lr=options.lr,
            seed=options.seed, stop=stop,
        )  # fmt: skip
    print(f"{options.out}: {options.steps} steps in {seconds:.0f} s")
    return 0


def _repair(options: argparse.Namespace) -> int:
    name, made_by = options.method.removesuffix(".safetensors"), options.method
    read_manifest(options.folder)  # says what is wrong before weights are read
    if options.method in ("li", "nmar"):
        restore = classical(options.folder, options.method)
    else:
        model = load_pretrained(options.method)
        about: Any = model.about
        if (task := about["run"]["task"]) != "mar":
            raise ValueError(f"{options.method}: expected weights of the task mar, found {task}")
        name = (
            Path(name).name if options.method.endswith(".safetensors") else name.replace("/", "-")
        )
        if name in BUILT_IN:
            raise ValueError(f"{options.method}: {name} is a method of its own; rename the file")
        made_by = f"weights {_hash(model)}"

        @torch.no_grad()
        def restore(case: Case) -> torch.Tensor:
            ma, li = (t.clamp(0, WINDOW)[None, None] / WINDOW for t in (case.ma, case.li))
            return model(ma, li, case.mask[None, None].to(ma.dtype))[0, -1] * WINDOW

    count = repair(options.folder, name, restore, options.split, made_by=made_by)
    print(f"{options.folder / 'repaired' / name}: {count} cases")
    return 0


def _hash(model: torch.nn.Module) -> str:
    """Of the weights: a file trained anew under its old name is another method."""
    found = hashlib.sha256()
    for name, t in model.state_dict().items():
        found.update(name.encode() + t.contiguous().numpy().tobytes())
    return found.hexdigest()


def _score(options: argparse.Namespace) -> int:
    print(table(score(options.folder, options.split)))
    print(f"written to {options.folder / 'score.md'}, score.json and score.png")
    return 0


def _tell(line: str) -> None:
    print(f"eqreg: {line}", file=sys.stderr)
