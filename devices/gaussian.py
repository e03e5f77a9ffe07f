"""Gaussian (or uniform) error of what is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, param
from analogsim.noise import Noise
from analogsim.registry import register


def error_size(law: str, std: float, g: Tensor, cells: Cells) -> Tensor | float:
    """Standard deviation (µS) of an error of relative size ``std`` under one of the three generic laws."""
    if law == "constant":
        return cells.g_max * std
    if law == "proportional":
        return g.abs() * std
    return std * cells.g_max * cells.g_max / g.abs()


def check_law(owner: str, law: str, model: DeviceModel) -> None:
    """Refuse the inverse law where conductances reach zero."""
    if law == "inverse" and model.g_min <= 0:
        raise ValueError(
            f"{owner}: law='inverse' diverges at g = 0; give the device model a g_min > 0, got g_min={model.g_min:g}"
        )


@register("gaussian")
@dataclass(frozen=True)
class Gaussian(Effect):
    r"""Error of programming, independent for each cell.

    .. math:: g_{prog} = g + \sigma \xi, \qquad
        \sigma = m\,g_{max},\quad m\,g,\quad\text{or}\quad m\,g_{max}^2 / g

    for the laws ``"constant"``, ``"proportional"`` and ``"inverse"``, with :math:`\xi \sim N(0, 1)` or uniform of unit
    variance. Alone it is the noise on weights of the literature: one signed value per weight, :math:`g_{max}` the
    largest weight of the layer, no limit at zero. In a chain with effects on conductances it acts on each cell of a
    pair, which stops at zero.

    Args:
        std: m, the standard deviation as a fraction of ``g_max`` (of ``g``, of ``g_max**2 / g``).
        law: how the error depends on the conductance.
        distribution: ``"normal"`` or ``"uniform"``.

    Source: the three generic laws are those compared in the literature on training with noise, e.g. Joshi et al.,
    Nat. Commun. 11:2473 (2020), who train with the constant one.
    """

    std: float = param(0.05, "fraction of g_max", ge=0)
    law: str = param("constant", "1", choices=("constant", "proportional", "inverse"))
    distribution: str = param("normal", "1", choices=("normal", "uniform"))

    signed: ClassVar[bool] = True

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_law("Gaussian", self.law, model)

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        if self.distribution == "normal":
            xi = noise.normal_like(g)
        else:
            xi = (noise.uniform_like(g) - 0.5).mul_(math.sqrt(12)).to(g.dtype)
        sigma = error_size(self.law, self.std, g, cells)
        # The noise is ours alone: adding in place spares two passes over memory, half the cost of the whole effect.
        return cells.floor(xi.mul_(sigma).add_(g))
