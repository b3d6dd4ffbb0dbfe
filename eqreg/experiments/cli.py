"""The command ``eqreg``: train, tune, compare and evaluate the tasks of the book."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..tasks import NAMES, get_task
from ..training.checkpoint import CheckpointError
from . import campaign, cluster, comparison, ct_cli, ledger, tuning, variation
from .artifacts import keep
from .locks import Busy
from .options import THREADS, Parser, device, real, whole
from .pretrained import load_pretrained
from .records import tensorboard
from .runs import Run, train
from .stopping import Stop, Stopped

_VARY = "the preset at each value of one of its sizes, of `rate` or of `strength`: patches=4,16,64"
_EXPECTED = (ValueError, OSError, ImportError, CheckpointError)
_MANY = 10**9
_INTERRUPTED = 130  # as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status: 0; 1 if a training diverged or a job of a campaign failed; 2 for bad input; 69 for a
        run that another process is at work on; 75 for one that was stopped; 130 after a second Ctrl-C.
    """
    try:
        options = _parser().parse_args(arguments)
        torch.set_num_threads(getattr(options, "threads", 1))
        return options.act(options)
    except Stopped as stopped:
        print(f"eqreg: {stopped}", file=sys.stderr)
        return campaign.STOPPED
    except Busy as busy:
        print(f"eqreg: {busy}", file=sys.stderr)
        return campaign.BUSY
    except KeyboardInterrupt:
        print("eqreg: interrupted; call again to go on", file=sys.stderr)
        return _INTERRUPTED
    except FloatingPointError as error:
        print(f"eqreg: {error}", file=sys.stderr)
        return 1
    except _EXPECTED as error:
        print(f"eqreg: {error}", file=sys.stderr)
        return 2


def _train(options: argparse.Namespace) -> int:
    lr, strength, tuned = tuning.settings(options.task, options.preset, options.method, options.out)
    if options.lr is None and not tuned:
        print(f"eqreg: not tuned; taking lr {lr:g}, strength {strength:g}", file=sys.stderr)
    run = Run(
        options.task, options.preset, options.method, options.seed,
        lr if options.lr is None else options.lr,
        strength if options.strength is None else options.strength,
        steps=options.steps,
    )  # fmt: skip
    watch = tensorboard(run.folder(options.out) / "events") if options.tensorboard else None
    with _how(options) as how:
        result = train(run, options.out, watch=watch, **how)
    if how["fabric"] is None or how["fabric"].is_global_zero:
        _print_metrics(result["metrics"])
    return 0


def _tune(options: argparse.Namespace) -> int:
    with _how(options) as how:
        found = tuning.tune(options.task, options.preset, options.method, options.out, **how)
    print(f"lr {found['lr']:g}, strength {found['strength']:g}")
    return 0


def _run(options: argparse.Namespace) -> int:
    extra = ["--device", options.device, "--threads", str(options.threads)]
    if options.data is not None:
        extra += ["--data", str(options.data)]
    presets = list(variation.presets(options.preset, options.vary).values())
    jobs = [
        job
        for preset in presets
        for job in campaign.plan(
            options.task, preset, options.out, methods=options.methods, options=extra
        )
    ]
    if options.runs is not None:
        for preset in presets:
            ledger.restore(options.runs, options.out, options.task, preset)
    start = None
    if options.on is not None:
        start = cluster.starter(options.on, options.out / "jobs", options.settings)
    elif options.settings:
        raise ValueError("--with is for jobs of submitit: give --on local or --on slurm too")

    def publish() -> None:
        for preset in presets if options.runs is not None else ():
            ledger.publish(options.out, options.runs, options.task, preset)

    def report(line: str) -> None:
        print(line, flush=True)
        publish()  # as jobs end, so that a machine that is lost costs what it was at

    with Stop() as stop:
        left, failed = campaign.work(
            jobs, parallel=options.jobs, minutes=options.minutes, stop=stop, start=start, report=report
        )  # fmt: skip
    publish()
    if left:
        print(f"{len(left)} of {len(jobs)} jobs are left: {', '.join(j.name for j in left)}")
    return 1 if failed else campaign.STOPPED if left else 0


def _evaluate(options: argparse.Namespace) -> int:
    model = load_pretrained(options.weights, device=device(options.device))
    run = vars(model)["about"]["run"]
    task = get_task(run["task"])
    preset = task.preset(run["preset"])
    preset = replace(preset, sizes={**preset.sizes, **run.get("sizes", {})})
    found = task.evaluate(model, preset, options.split, options.data)
    print(f"{run['task']} {run['method']} {run['preset']} seed {run['seed']}, {options.split}:")
    _print_metrics({name: sum(values) / len(values) for name, values in found.items()})
    return 0


def _compare(options: argparse.Namespace) -> int:
    names = (options.out, options.task, options.preset)
    if options.vary is None:
        content = comparison.collect(*names)
        tables = {"": content}
    else:
        content = variation.collect(*names, options.vary)
        tables = content["values"]
    metric = options.metric or get_task(options.task).score
    for value, found in tables.items():
        known = {name for row in found["rows"].values() for name in row["metrics"]}
        if metric not in known:
            raise ValueError(
                f"unknown metric {metric!r}; expected one of {', '.join(sorted(known))}"
            )
        if value:
            print(f"{content['settings']['axis']} = {value}")
        print(comparison.table(found, metric))
        if metric == get_task(options.task).score:
            print(comparison.verdicts(found))
            print(comparison.costs(found))
            if found["tuning"]:
                print(comparison.choices(found))
    stamp = content["stamp"]
    print(f"{stamp['device']}, {stamp['date']}, {stamp['version']}, {stamp['hours']} h")
    if options.keep is not None:
        kept = keep(content, Path(options.out), options.keep)
        print(f"kept {kept}")
    return 0


def _list(options: argparse.Namespace) -> int:
    for name in NAMES:
        task = get_task(name)
        print(f"{name}: {task.title}")
        print(f"  methods  {', '.join(task.methods)}; with -C2, -C4, -C8, -D4 for another group")
        for preset, numbers in task.presets.items():
            print(
                f"  {preset:8} {numbers.steps} steps, {len(numbers.seeds)} seeds: {numbers.expects}"
            )
    return 0


def _print_metrics(metrics: dict[str, float]) -> None:
    for name, value in metrics.items():
        print(f"  {name:16}{value:10.4f}")


@contextlib.contextmanager
def _how(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Settings of ``train``; inside, a signal asks the run to stop."""
    with Stop() as stop:
        yield {
            "root": options.data,
            "device": device(options.device),
            "fabric": _fabric(options),
            "checkpoint_every": options.checkpoint_every,
            "stop": stop,
        }


def _fabric(options: argparse.Namespace) -> Any:
    """None for one process in float32, else Lightning Fabric; ``torchrun`` starts the processes."""
    from ..training.scale import make_fabric

    return make_fabric(device(options.device), options.precision)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="eqreg", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, act: Any, about: str, *, task: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        made.set_defaults(act=act)
        if task:
            made.add_argument("task", help=", ".join(NAMES))
            made.add_argument("--preset", default="quick", help="quick (default), full, ...")
            made.add_argument("--out", type=Path, default=Path("runs"), help="folder of the runs")
        return made

    def trains(made: argparse.ArgumentParser) -> None:
        made.add_argument("--data", type=Path, help="folder of published data sets (EQREG_DATA)")
        made.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto (default)")
        made.add_argument(
            "--threads", type=whole(1, THREADS), default=1, help="of a process on the CPU"
        )

    def runs(made: argparse.ArgumentParser) -> None:
        trains(made)
        made.add_argument("--method", default="plain", help="see `eqreg list`")
        made.add_argument("--precision", default="32", help="32 (default), bf16-mixed, 16-mixed")
        made.add_argument("--checkpoint-every", type=whole(1, _MANY), default=500, metavar="STEPS")

    made = command("train", _train, "Train one method with one seed; go on if it was stopped.")
    runs(made)
    made.add_argument("--seed", type=whole(0, _MANY), default=0)
    made.add_argument("--lr", type=real(0, above=True), help="default: what `eqreg tune` chose")
    made.add_argument("--strength", type=real(0), help="lambda or decay; default: as tuned")
    made.add_argument("--steps", type=whole(1, _MANY), help="default: the preset's")
    made.add_argument("--tensorboard", action="store_true", help="write event files too")
    runs(command("tune", _tune, "Choose learning rate and strength on validation images."))
    made = command("run", _run, "Tune and train all methods and seeds of a preset.")
    trains(made)
    made.add_argument("--vary", metavar="AXIS=VALUES", help=_VARY)
    made.add_argument(
        "--runs",
        type=Path,
        help="folder of finished runs, read before and written as jobs end: artifacts/runs",
    )
    made.add_argument("--methods", nargs="*", default=[], help="default: all of the preset")
    made.add_argument("--jobs", type=whole(1, 1024), default=1, help="processes at a time")
    made.add_argument(
        "--on", choices=cluster.KINDS, help="start them by submitit: here, or on SLURM"
    )
    made.add_argument(
        "--with",
        dest="settings",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="of submitit's jobs: partition=gpu time=240 gpus_per_node=1",
    )
    made.add_argument(
        "--minutes", type=real(0, above=True), help="stop after this time; call again to go on"
    )
    made = command("compare", _compare, "Table of the finished runs of a preset.")
    made.add_argument("--vary", metavar="AXIS=VALUES", help="as for run: a table for each value")
    made.add_argument("--metric", help="default: the task's score")
    made.add_argument("--keep", type=Path, help="folder to store table and weights in: artifacts")
    made = command("evaluate", _evaluate, "Metrics of trained weights.", task=False)
    made.add_argument("weights", help="a name such as rain/eqreg, or a .safetensors file")
    made.add_argument("--split", default="test", help="test (default) or val")
    trains(made)
    command("list", _list, "Tasks, presets and methods.", task=False)
    ct_cli.register(commands)
    return parser
