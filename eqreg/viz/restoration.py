"""Figures of restored images and of what a training run found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..measure.quality import psnr
from ._figure import COLORS, subplots
from ._raster import as_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 1.3  # inches: six columns fill a page
_TITLE = 8  # points


def restorations(
    clean: Tensor, rainy: Tensor, restored: Mapping[str, Tensor], *, residual: float = 0.3
) -> Figure:
    """One photograph in a column per method, and below it what is wrong with it.

    The first row shows images in [0, 1] with their PSNR, the second the error ``image - clean``:
    grey is right, white is rain left over, black is background taken for rain.

    Args:
        clean: (C, H, W).
        rainy: (C, H, W).
        restored: name -> (C, H, W).
        residual: error shown as black or white.

    Returns:
        The figure.

    Raises:
        ValueError: an image differs from ``clean`` in shape; the message names it.
    """
    columns = {"rainy": rainy, **restored}
    for name, image in columns.items():
        if image.shape != clean.shape:
            raise ValueError(
                f"restorations: expected {name} of shape {tuple(clean.shape)} like clean, got "
                f"{tuple(image.shape)}"
            )
    n = len(columns) + 1
    figure, axes = subplots(2, n, size=(n * _CELL, 2 * _CELL + 0.35))
    for ax in axes.flat:
        ax.set_axis_off()
    axes[0, 0].imshow(as_image(clean), cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title("clean", fontsize=_TITLE)
    for (name, image), (top, bottom) in zip(columns.items(), axes[:, 1:].T, strict=True):
        image = image.clamp(0, 1)
        quality = float(psnr(image[None], clean[None]))
        top.imshow(as_image(image), cmap="gray", vmin=0, vmax=1)
        top.set_title(f"{name}\n{quality:.2f} dB", fontsize=_TITLE)
        error = (image - clean).mean(0)
        bottom.imshow(as_image(error), cmap="gray", vmin=-residual, vmax=residual)
    axes[1, 0].text(0.5, 0.5, "error\n(grey = none)", ha="center", va="center", fontsize=_TITLE)
    return figure


def bars(
    rows: Mapping[str, Sequence[float]],
    *,
    ylabel: str,
    baseline: float = 0.0,
    colors: Sequence[str] | None = None,
) -> Figure:
    """One bar per method at the mean over the seeds, and every seed as a dot.

    Args:
        rows: method -> one number per seed.
        ylabel: what the numbers are.
        baseline: where bars start, such as the value of the input.
        colors: one for each bar; all blue if not given.

    Returns:
        The figure.

    Raises:
        ValueError: colours are too few or too many.
    """
    colors = [COLORS["blue"]] * len(rows) if colors is None else colors
    if len(colors) != len(rows):
        raise ValueError(f"bars: expected a colour for each of {len(rows)} rows, got {len(colors)}")
    figure, ax = subplots(size=(max(4.5, 0.85 * len(rows)), 3.2))
    for i, (values, color) in enumerate(zip(rows.values(), colors, strict=True)):
        ax.bar(i, np.mean(values) - baseline, 0.65, bottom=baseline, color=color, alpha=0.6)
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0]
        ax.plot(i + np.asarray(spread), values, "o", color="black", markersize=3)
    ax.set_xticks(range(len(rows)), [name.replace(" ", "\n") for name in rows], fontsize=_TITLE)
    ax.set_ylabel(ylabel)
    return figure


def layer_profile(errors: Mapping[str, Mapping[str, float]], *, ylabel: str) -> Figure:
    """A number per layer, one curve per method.

    Args:
        errors: method -> layer -> number, at most eight methods. Methods need not have the same
            layers.
        ylabel: what the numbers are.

    Returns:
        The figure.
    """
    figure, ax = subplots(size=(6.0, 3.4))
    for (name, layers), marker in zip(errors.items(), "osD^vPX*", strict=False):
        ax.plot(range(1, len(layers) + 1), list(layers.values()), marker=marker, label=name)
    ax.set_xlabel("layer")
    ax.set_xticks(range(1, 1 + max(len(layers) for layers in errors.values())))
    ax.set_ylabel(ylabel)
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    # Curves go anywhere, so that no place among them is free.
    figure.legend(loc="outside lower center", ncols=4, fontsize=_TITLE, frameon=False)
    return figure
