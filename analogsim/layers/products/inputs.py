"""Which inputs a digital product takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

_MOST = 1000
"""How many kinds are remembered; who meets more of them forgets all."""


class TakenInputs:
    """The kinds of inputs (shape, dtype, where they are, autocast) that a digital product took when it was asked.

    What is cut into blocks, slices and bits takes its part of an input, whatever there is of it. So the digital product
    itself is asked first, once for each kind: its errors come as early and are as clear, and what it takes is taken.
    Values are not part of a kind.
    """

    def __init__(self) -> None:
        self._kinds: set[Hashable] = set()

    def ask(self, product: Callable[[], Any], told: str | None, *given: Any) -> None:
        """Raise what a product raises for inputs of a kind that it does not take.

        Args:
            product: takes the product with these inputs.
            told: which product it is, with its stride, padding, ...; None where nobody knows: it is asked each time.
            *given: the tensors by whose kind it decides.
        """
        if torch.compiler.is_compiling():
            product()  # once, while it is traced; nobody uses the answer, so that the compiled code leaves it out
            return
        kind = None if told is None else _kind_of(told, given)
        if kind is not None and kind in self._kinds:
            return
        with torch.no_grad():
            product()
        if kind is not None:
            if len(self._kinds) >= _MOST:
                self._kinds.clear()
            self._kinds.add(kind)


def _kind_of(told: str, given: tuple[Any, ...]) -> Hashable:
    """By what a product decides; None where its answer holds for these inputs only, as for nested tensors."""
    found: list[Hashable] = [told]
    for value in given:
        if not isinstance(value, Tensor) or value.is_nested:
            return None
        found += (value.shape, value.dtype, value.device, value.layout)
    place = given[0].device.type
    if place != "meta" and torch.is_autocast_enabled(place):  # which knows of no such device
        found.append(torch.get_autocast_dtype(place))
    return tuple(found)
