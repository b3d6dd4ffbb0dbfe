"""What a regularised training step costs, as ratios to a plain step measured in the same run.

Usage: python benchmarks/cost.py [--threads 1] [--repeats 15]
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from eqreg import C4, EquivarianceDecay, EquivarianceRegularizer, ProjectionPenalty, rotate
from eqreg.strict import GroupConv2d

WIDTH, DEPTH, BATCH, SIZE = 32, 8, 16, 48


def plain_net() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(DEPTH - 2):
        layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, 1, 3, padding=1))


def strict_net() -> nn.Sequential:
    image, hidden = C4.field("1t"), C4.field(f"{WIDTH // 4}r")
    layers: list[nn.Module] = [GroupConv2d(image, hidden, 3), nn.ReLU()]
    for _ in range(DEPTH - 2):
        layers += [GroupConv2d(hidden, hidden, 3), nn.ReLU()]
    return nn.Sequential(*layers, GroupConv2d(hidden, image, 3))


def steps() -> dict[str, Callable[[], Tensor]]:
    """Name and loss of every kind of step, on the same images."""
    x = torch.rand(BATCH, 1, SIZE, SIZE)
    net, strict = plain_net(), strict_net()

    def plain() -> Tensor:
        return mse_loss(net(x), x)

    def augmented() -> Tensor:
        both = torch.cat([x, rotate(x, 1)])
        return mse_loss(net(both), both)

    decay, penalty = EquivarianceDecay(net, C4, 1.0), ProjectionPenalty(net, C4)

    def decayed() -> Tensor:
        decay.step(1e-3)
        return plain()

    def regularised(**options: float) -> Callable[[], Tensor]:
        reg = EquivarianceRegularizer(net, C4, **options)  # type: ignore[arg-type]

        def loss() -> Tensor:
            out = reg(x)
            return mse_loss(out.y, x) + mse_loss(out.y_g, out.act(x)) + 0.1 * out.penalty

        return loss

    return {
        "plain": plain,
        "twice the batch, no penalty": augmented,
        "EQ-Reg": regularised(),
        "EQ-Reg, fraction=0.25": regularised(fraction=0.25),
        "EQ-Reg, every=4": regularised(every=4),
        "EQ-Reg, fraction=0.25, every=4": regularised(fraction=0.25, every=4),
        "projection penalty": lambda: plain() + 0.1 * penalty(),
        "decay after the step": decayed,
        "strict C4, equal width": lambda: mse_loss(strict(x), x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="rounds; the fastest counts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kinds = steps()
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(args.repeats):  # interleaved, so that a slow moment of the machine hits all
        for name, loss in kinds.items():
            start = time.perf_counter()
            for _ in range(4):  # a whole period of every=4
                loss().backward()
            best[name] = min(best[name], (time.perf_counter() - start) / 4)
    print(
        f"torch {torch.__version__}, {platform.machine()}, {args.threads} thread(s), fastest of {args.repeats}"
    )
    print(f"{DEPTH} convolutions x {WIDTH} channels, batch {BATCH}, {SIZE} x {SIZE} pixels")
    for name, seconds in best.items():
        print(f"{name:32s} {1000 * seconds:8.1f} ms  {seconds / best['plain']:5.2f} x plain")


if __name__ == "__main__":
    main()
