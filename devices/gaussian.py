"""Gaussian (or uniform) error of what is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, param, register
from analogsim.errors import InvalidValueError
from analogsim.noise import Noise


def error_size(law: str, std: float, g: Tensor, g_max: float | Tensor) -> Tensor | float:
    """Standard deviation (µS) of an error of relative size ``std`` under one of the three generic laws."""
    if law == "constant":
        return g_max * std
    if law == "proportional":
        return g.abs() * std
    return std * g_max * g_max / g.abs()


def check_law(owner: str, law: str, model: DeviceModel) -> None:
    """Refuse the inverse law where what it is evaluated at reaches zero."""
    if law == "inverse" and (model.g_min <= 0 or model.signed):
        raise InvalidValueError(
            f"{owner}: law='inverse' diverges at g = 0; give the device model mapping=Mapping('pair') and a g_min > 0, "
            f"got {model.mapping} and g_min={model.g_min:g}"
        )


@register("gaussian")
@dataclass(frozen=True)
class Gaussian(Effect):
    r"""Error of programming, independent for each cell.

    .. math:: g_{prog} = g + \sigma \xi, \qquad
        \sigma = m\,g_{max},\quad m\,g,\quad m\,g_{max}^2 / g,\quad\text{or}\quad m

    for the laws ``"constant"``, ``"proportional"``, ``"inverse"`` and ``"absolute"`` (m in units of the weight), with
    :math:`\xi \sim N(0, 1)` or uniform of unit variance. Alone it is the noise on weights of the literature: one
    signed value per weight, :math:`g_{max}` the largest weight of the layer, no limit at zero. In a chain with effects
    on conductances it acts on each cell of a pair, which stops at zero. The inverse law stops growing below
    :math:`g_{min}`.

    Args:
        std: m, the standard deviation as a fraction of ``g_max`` (of ``g``, of ``g_max**2 / g``; absolute).
        law: how the error depends on the conductance.
        distribution: ``"normal"`` or ``"uniform"``.

    Source: the constant law is the training noise of Joshi et al., Nat. Commun. 11:2473 (2020); the proportional and
    the inverse one are generic, of no particular device.
    """

    std: float = param(0.05, "fraction of g_max", ge=0)
    law: str = param("constant", "1", choices=("constant", "proportional", "inverse", "absolute"))
    distribution: str = param("normal", "1", choices=("normal", "uniform"))

    signed: ClassVar[bool] = True

    cellwise: ClassVar[bool] = True

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_law("Gaussian", self.law, model)
        if self.law == "absolute" and not model.signed:
            raise InvalidValueError("Gaussian: law='absolute' is in units of the weight and needs Mapping('signed')")

    def error(self, g: Tensor, g_max: Callable[[Tensor], float | Tensor], noise: Noise) -> Tensor:
        """See `Effect.error`."""
        if self.distribution == "normal":
            xi = noise.normal_like(g)
        else:
            xi = (noise.uniform_like(g) - 0.5).mul_(math.sqrt(12)).to(g.dtype)
        if self.law == "absolute":
            return xi.mul_(self.std)
        return xi.mul_(error_size(self.law, self.std, g, g_max(g)))

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        at = g.clamp(min=cells.g_min) if self.law == "inverse" else g
        return cells.floor(self.error(at, lambda _: cells.g_max, noise).add_(g))
