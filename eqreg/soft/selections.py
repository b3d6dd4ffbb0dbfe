"""Choices of layers that publications made, as what ``layers=`` takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

_PARTS = {
    # The feed-forward part and the way out of attention; q, k, v and position tables stay free.
    "SwinIR": ("mlp.fc1", "mlp.fc2", "attn.proj"),
    "Restormer": ("attn.project_out", "ffn.project_in", "ffn.project_out"),
}


def eq_reg_t(network: str) -> Callable[[str, nn.Module], bool]:
    """The layers that EQ-REG-T regularizes in SwinIR or Restormer, read off its released code.

    These are the feed-forward layers, the output projections of attention, and the convolutions outside of
    both (first, last, between stages, patch embedding, up and down); projections to queries, keys and values,
    and tables of positions, are left out. Names are those of the original implementations::

        decay = EquivarianceDecay(model, C4, layers=eq_reg_t("SwinIR"), example=x)

    Args:
        network: ``"SwinIR"`` or ``"Restormer"``.

    Raises:
        ValueError: for another name.

    >>> chosen, conv = eq_reg_t("SwinIR"), nn.Conv2d(3, 3, 3)
    >>> chosen("conv_first", conv), chosen("layers.0.residual_group.blocks.0.attn.qkv", nn.Linear(3, 9))
    (True, False)
    """
    if not isinstance(network, str) or network not in _PARTS:
        raise ValueError(f"eq_reg_t knows {' and '.join(_PARTS)}, got {network!r}")
    parts = _PARTS[network]

    def chosen(name: str, module: nn.Module) -> bool:
        if name.endswith(parts):
            return True
        inside = {"attn", "ffn", "mlp"} & set(name.split("."))
        return isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not inside

    return chosen
