"""From signed weights to conductances and back.

A crossbar multiplies by conductances, which have no sign. `Mapping` says how a weight is laid on cells. A tensor
of conductances has one axis more than the weight, in front of it: ``(cells, *weight.shape)``, in µS, with any
chip dimensions before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mapping:
    """How a weight is laid on cells, and what sets its scale.

    Args:
        cells: ``"pair"``: two cells, ``G+`` for the positive part and ``G-`` for the negative part, the other one
            at ``g_min``. ``"signed"``: the idealised array of the weight-noise literature, one value per weight that
            takes either sign; its unit is the weight itself, and ``g_max`` is the largest weight.
        scale: the largest weight, which is laid on ``g_max``: of each ``"column"`` (one output of the layer, rescaled
            digitally after the converter) or of the whole ``"tensor"``.
    """

    cells: Literal["pair", "signed"] = "pair"
    scale: Literal["column", "tensor"] = "column"

    def __post_init__(self) -> None:
        if self.cells not in ("pair", "signed"):
            raise ValueError(f'mapping: cells must be "pair" or "signed", got {self.cells!r}')
        if self.scale not in ("column", "tensor"):
            raise ValueError(f'mapping: scale must be "column" or "tensor", got {self.scale!r}')

    @property
    def cells_per_weight(self) -> int:
        """Number of cells that hold one weight."""
        return 2 if self.cells == "pair" else 1

    def largest(self, weight: Tensor) -> Tensor:
        """The weight that is laid on ``g_max``; it broadcasts against ``weight``.

        Shape ``(out, 1, ...)`` for ``scale="column"``, a scalar for ``"tensor"``. A column of zeros takes the
        largest weight of the tensor, and a tensor of zeros the bound ``1/sqrt(inputs)`` of torch's initialisation:
        its cells have their errors like any others, so the scale must not vanish.
        """
        magnitude = weight.abs()
        # What is not above 0 becomes the bound.
        whole = torch.threshold(magnitude.amax(), 0.0, (weight.shape[0] / max(1, weight.numel())) ** 0.5)
        if self.scale == "tensor":
            return whole
        column = magnitude.flatten(1).amax(1) if weight.ndim > 1 else magnitude
        return torch.where(column > 0, column, whole).view(-1, *(1,) * (weight.ndim - 1))

    def to_conductance(self, weight: Tensor, largest: Tensor, g_min: float, g_max: float) -> Tensor:
        """Target conductances ``(cells, *weight.shape)`` of a weight; µS (``"signed"``: in units of the weight)."""
        if self.cells == "signed":
            return weight.unsqueeze(0)
        # The ratio first: the range divided by a column of denormal numbers would be infinite.
        scaled = (weight / largest).mul_(g_max - g_min)
        # Rounding may carry the largest weight one ulp past g_max, where cited formulas end.
        target = torch.stack((scaled, -scaled)).clamp_(0, g_max - g_min)
        return target.add_(g_min).clamp_(max=g_max) if g_min else target

    def to_weight(self, g: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float) -> Tensor:
        """The weights of ``ndim`` axes that conductances ``(..., cells, *weight.shape)`` stand for."""
        axis = -ndim - 1
        if self.cells == "signed":
            return g.squeeze(axis)
        positive, negative = g.unbind(axis)
        return (positive - negative) * (largest / (g_max - g_min))

    def to_weight_variance(self, variance: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float) -> Tensor:
        """Variance of the weights from independent variances of the cells (µS²)."""
        axis = -ndim - 1
        if self.cells == "signed":
            return variance.squeeze(axis)
        return variance.sum(axis) * (largest / (g_max - g_min)).square()
