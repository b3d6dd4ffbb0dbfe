"""What decays share: a strength for each layer, small changes in half precision, a state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import given, need_number, wide
from ..layers.reynolds import Index, reynolds_of_each

_AT_ONCE = 2**20  # numbers that are shrunk together


class Decay:
    """Strengths by layer, and what is left to add to tensors in half precision, in float32, by name.

    bfloat16 knows no change below 1/512 of a number: a slow decay would do nothing at all.

    Args:
        layers: names.
        strength: for all of them, or by name.

    Attributes:
        strengths: the current strength of each layer.
        finite: whether strengths must be.
    """

    finite = False

    def __init__(self, layers: Iterable[str], strength: float | Mapping[str, float]) -> None:
        self.strengths = dict.fromkeys(layers, 0.0)
        self._remainders: dict[str, Tensor] = {}
        self.set_strength(strength)

    def set_strength(self, strength: float | Mapping[str, float]) -> None:
        """Change the strength of all layers, or of those that a mapping names (the others get 0).

        Raises:
            TypeError, ValueError: for what is no number, a negative strength or NaN, or an unknown layer.
        """
        names = list(self.strengths)
        by_name = strength if isinstance(strength, Mapping) else dict.fromkeys(names, strength)
        if unknown := [n for n in by_name if n not in self.strengths]:
            raise ValueError(f"strength: expected names among {sorted(names)}, got {unknown[0]!r}")
        self.strengths = {
            n: need_number(by_name.get(n, 0.0), f"strength of layer {n!r}", 0, finite=self.finite)
            for n in names
        }

    def change_(self, name: str, tensor: Tensor, change: Callable[[Tensor], Any]) -> None:
        """Change a tensor in place; ``change`` gets it, or a copy in float32, and works in place."""
        if tensor.dtype == torch.promote_types(tensor.dtype, torch.float32):
            change(tensor)
            return
        whole = wide(tensor)
        if name in self._remainders:
            whole = whole + self._remainders[name].to(tensor.device)
        change(whole)
        tensor.copy_(whole)
        self._remainders[name] = whole - wide(tensor)

    def shrink_(self, names: list[str], tensors: list[Tensor], index: Index, share: float) -> None:
        """Move tensors of one shape and dtype, which the group moves alike, by a share towards their means over it.

        Together, since in small networks calls cost more than numbers; a part at a time, since large ones
        have no room for copies of everything.
        """
        most = max(1, _AT_ONCE // tensors[0].numel())
        for at in range(0, len(tensors), most):
            some, their = tensors[at : at + most], names[at : at + most]
            stack = torch.stack(some)
            whole = wide(stack)
            if whole.dtype == stack.dtype:
                torch._foreach_lerp_(some, reynolds_of_each(stack, index).unbind(), share)
                continue
            for row, name in zip(whole, their, strict=True):
                if name in self._remainders:
                    row += self._remainders[name].to(row.device)
            whole.lerp_(reynolds_of_each(whole, index), share)
            torch._foreach_copy_(some, whole.unbind())
            rests = whole - wide(torch.stack(some))
            self._remainders.update(zip(their, rests.unbind(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Strengths and remainders, for checkpoints: ours keep it, and Fabric's where it is among what is saved."""
        kept = {name: rest.clone() for name, rest in self._remainders.items()}
        return {"strengths": dict(self.strengths), "remainders": kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state_dict` gave.

        Raises:
            TypeError, ValueError: it is the state of something else.
        """
        if not isinstance(state, Mapping) or not {"strengths", "remainders"} <= state.keys():
            raise ValueError(
                f"{type(self).__name__}: expected a state with the keys 'strengths' and 'remainders', got "
                f"{given(state)}"
            )
        rests, shapes = state["remainders"], self._shapes()
        if not isinstance(rests, Mapping):
            raise ValueError(f"remainders: expected tensors by name, got {given(rests)}")
        for name, rest in rests.items():
            if not isinstance(rest, Tensor) or rest.shape != shapes.get(name):
                expected = {name: tuple(shape) for name, shape in shapes.items()}
                raise ValueError(
                    f"remainders: expected tensors of the shapes {expected}, got {given(rest)} for {name!r}"
                )
        self.set_strength(state["strengths"])
        self._remainders = {name: rest.detach().clone().float() for name, rest in rests.items()}

    def _shapes(self) -> dict[str, torch.Size]:
        """Shapes by name of what :meth:`change_` is called with."""
        raise NotImplementedError
