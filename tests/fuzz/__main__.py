"""``python -m tests.fuzz [calls] [target ...]``: the whole fuzz; exit 1 unless 0 silent, 0 hung, 0.5 % unclear."""

from __future__ import annotations

import sys

import torch

from .run import fuzz


def main(arguments: list[str]) -> int:
    calls = int(arguments[0]) if arguments else 20_000
    torch.set_num_threads(1)
    tally = fuzz(calls, names=tuple(arguments[1:]))
    for (kind, name), example in sorted(tally.examples.items()):
        print(f"{kind}: {name.split(':')[0]}: {example}")
    print(tally)
    c = tally.counts
    return int(c["silent"] + c["hung"] > 0 or c["unclear"] > 0.005 * sum(c.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
