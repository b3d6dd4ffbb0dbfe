r"""Fixed tables of positions: their rows turn as pixels, their columns change places and signs.

A network may compute a bias for each offset between two pixels from the offset itself, ``bias = mlp(table)``
(Swin V2). The table is the same for a turned image, yet the bias has to be that of the turned offset. With
:math:`T[\sigma i]=T[i]A` for a turn of the grid, :math:`A` a permutation with signs, the first layer's
features turn like an image if :math:`A W[:,\rho]=W`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .action import Maps
from .state import State

_COLUMNS = 8
_SAME = 1e-9


def turned_table(state: State, table: Tensor) -> tuple[Maps, list[Tensor], list[Tensor]] | None:
    """How a table (..., K) of a square grid turns.

    Returns:
        For each generator the map of the rows, and for each column of the weight's input the column and the sign
        that it has to equal; None if the table is no such grid, or does not change under a turn.
    """
    columns = table.shape[-1]
    rows = table.double().reshape(-1, columns)
    n = math.isqrt(len(rows))
    plane = state.action.plane(n, n) if n * n == len(rows) and n > 1 else None
    if plane is None or columns > _COLUMNS or all(torch.equal(rows[p], rows) for p in plane):
        return None
    reads, signs = [], []
    near = _SAME * max(1.0, float(rows.abs().max()))
    for p in plane:
        moved = rows[p]
        read, sign = torch.full((columns,), -1), torch.ones(columns, dtype=torch.long)
        for j in range(columns):
            for i in (i for i in range(columns) if int(read[i]) < 0):
                found = [
                    s for s in (1, -1) if float((moved[:, j] - s * rows[:, i]).abs().max()) <= near
                ]
                if found:
                    read[i], sign[i] = j, found[0]
                    break
        if int(read.min()) < 0:
            return None
        reads.append(read)
        signs.append(sign)
    return plane, reads, signs
