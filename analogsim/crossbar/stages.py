"""The digital stage behind a matrix: what is done to its products before its digital bias is added.

A bias that lies on the array is part of the product.

A matrix has any number of stages, one after the other: those of its chip, which go with the chip, and behind them
those of its state, which belong to the twin and act on the fresh draws of training too. What scales and offsets
outputs, adds a digital product beside the analog one, or only looks on, is a `Stage`; where there is none a forward
does what it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Plain = tuple[Tensor, Tensor | None]
"""A weight ``(out, ...)`` and a bias ``(out,)``, a product with which is the whole answer."""


class Outputs(Protocol):
    """What a stage asks of the matrix whose product it gets."""

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map with another weight ``(out, ...)``."""
        ...

    def per_output(self, values: Tensor) -> Tensor:
        """Values ``(out,)`` so that they broadcast against the product."""
        ...


@runtime_checkable
class Stage(Protocol):
    """Something digital behind a matrix."""

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """What becomes of a product, in its shape and dtype.

        Args:
            product: of the crossbars, dense, without the digital bias.
            input: what it is of.
            outputs: how the product is taken.
        """
        ...

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain | None:
        """Weight and bias with which a plain product does the same, for torch's fused kernels; None: there are none."""
        ...


@dataclass(frozen=True, eq=False)
class Affine:
    """A scale and an offset for each output: ``scale * product + offset``, computed in the wider of the dtypes.

    Args:
        scale: ``(out,)``; None for 1.
        offset: ``(out,)``, in the unit of the output; None for 0.
    """

    scale: Tensor | None = None
    offset: Tensor | None = None

    def after(self, product: Tensor, input: Tensor, outputs: Outputs) -> Tensor:
        """See `Stage.after`."""
        found = product if self.scale is None else product * outputs.per_output(self.scale)
        found = found if self.offset is None else found + outputs.per_output(self.offset)
        return found.to(product.dtype)

    def folded(self, weight: Tensor, bias: Tensor | None) -> Plain:
        """See `Stage.folded`."""
        if self.scale is not None:
            weight = (weight * self.scale.view(-1, *(1,) * (weight.ndim - 1))).to(weight.dtype)
        if self.offset is not None:
            bias = self.offset.to(weight.dtype) if bias is None else (bias + self.offset).to(bias.dtype)
        return weight, bias

    def to(self, device: torch.device) -> Affine:
        """The same on a torch device."""
        scale, offset = (None if value is None else value.to(device) for value in (self.scale, self.offset))
        return Affine(scale, offset)


def fold(stage: Stage, weight: Tensor, bias: Tensor | None, *, on_array: bool) -> Plain | None:
    """See `Stage.folded`, for a bias that may be part of the product that the stage gets.

    Args:
        stage: which one.
        weight: ``(out, ...)``.
        bias: ``(out,)``.
        on_array: whether the bias lies on the array, in front of the stage.
    """
    if bias is None or not on_array:
        return stage.folded(weight, bias)
    found = stage.folded(weight, None)
    one, none = stage.folded(torch.ones_like(weight), None), stage.folded(torch.zeros_like(weight), None)
    if found is None or one is None or none is None:
        return None
    scaled = (one[0] - none[0]).reshape(len(weight), -1)[:, 0] * bias
    return found[0], scaled if found[1] is None else scaled + found[1]
