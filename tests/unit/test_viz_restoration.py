"""Figures of restored images: what stands in them."""

import pytest
import torch

from eqreg.viz.restoration import bars, layer_profile, restorations

CLEAN = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_restorations_name_methods_and_quality():
    figure = restorations(CLEAN, CLEAN + 0.1, {"plain": CLEAN + 0.01})
    titles = [ax.get_title() for ax in figure.axes]
    assert titles[0] == "clean"
    assert titles[1].startswith("rainy") and "dB" in titles[2]
    assert len(figure.axes) == 6
    with pytest.raises(ValueError, match=r"expected plain of shape \(1, 16, 16\) .* \(1, 8, 8\)"):
        restorations(CLEAN, CLEAN, {"plain": torch.zeros(1, 8, 8)})


def test_bars_stand_on_the_baseline_at_the_mean():
    figure = bars({"plain": [20.0, 22.0], "EQ-Reg C2": [23.0, 23.0]}, ylabel="dB", baseline=18.0)
    (ax,) = figure.axes
    assert [bar.get_y() + bar.get_height() for bar in ax.patches] == [21.0, 23.0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["plain", "EQ-Reg\nC2"]


def test_bars_want_a_colour_each():
    with pytest.raises(ValueError, match="a colour for each of 1 rows, got 2"):
        bars({"plain": [1.0]}, ylabel="dB", colors=["red", "blue"])


def test_layer_profile_draws_every_method():
    figure = layer_profile({"a": {"0": 0.5, "2": 0.1}, "b": {"0": 0.0}}, ylabel="error")
    (ax,) = figure.axes
    assert [line.get_ydata().tolist() for line in ax.lines] == [[0.5, 0.1], [0.0]]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    assert ax.get_ylim()[0] <= 0
