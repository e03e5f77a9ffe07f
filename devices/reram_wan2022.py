r"""Resistive memory (HfOx, NeuRRAM): programming error and relaxation over two days.

Source: Wan et al., Nature 608 (2022), measured after 1 s, 1 day and 2 days. With :math:`x = g_{target}/g_{max}` and
:math:`\xi \sim N(0, 1)` per cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from analogsim.device import Cells, DeviceModel, register
from analogsim.devices.programming import ProgrammingNoise, check_range, one_of, polynomial
from analogsim.devices.read_noise import ReadNoise
from analogsim.devices.relaxation import Relaxation
from analogsim.utils.checks import as_number

_FITTED_G_MAX = 40.0  # µS: the range on which the coefficients were fitted
_DAY = 86400.0
_SIGMA = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    _DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * _DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}


def _spread(cells: Cells, t: float) -> Tensor:
    return polynomial(cells.target / cells.g_max, _SIGMA[t]).mul_(cells.g_max / _FITTED_G_MAX)


@dataclass(frozen=True)
class WanProgramming(ProgrammingNoise):
    r"""Error of programming as measured after 1 s.

    .. math:: g_{prog} = \max(0, g + s \sigma \xi), \qquad
        \sigma = (0.348 + 16.030 x - 43.853 x^2 + 45.393 x^3 - 16.815 x^4) \frac{g_{max}}{40}\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.

    Source: Wan et al. (2022). The coefficients are in µS at a range of 40 µS and scale with the range. Departure: the
    error of 1 s is there from the end of programming on.
    """

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return _spread(cells, 1.0)


@dataclass(frozen=True)
class WanProgrammingCrossSim(ProgrammingNoise):
    r"""Error of programming as measured after 1 s, second fit.

    .. math:: g_{prog} = \max(0, g + s \sigma \xi), \qquad \sigma = 1.053 + 0.2374\, g_{target}
        - 1.167 \cdot 10^{-2} g_{target}^2 + 1.536 \cdot 10^{-4} g_{target}^3\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.

    Source: the simulator CrossSim (Sandia National Laboratories), after Extended Data Fig. 3 of Wan et al. (2022). In
    µS, up to 39.26 µS; it does not scale with the range.
    """

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("WanProgrammingCrossSim", model, 0.0, 39.26)

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return polynomial(cells.target, (1.053, 0.2374, -1.167e-2, 1.536e-4))


@dataclass(frozen=True)
class WanRelaxation(Relaxation):
    r"""Growth of the error over two days; the mean stays.

    .. math:: g(t) = \max\left(0,\ g_{prog} + s \sqrt{\sigma_t^2 - \sigma_{1 s}^2}\ \xi\right)

    .. math::
        \sigma_{1 s} &= 0.348 + 16.030 x - 43.853 x^2 + 45.393 x^3 - 16.815 x^4 \\
        \sigma_{1 d} &= 0.701 + 22.086 x - 50.773 x^2 + 47.095 x^3 - 16.458 x^4 \\
        \sigma_{2 d} &= 0.782 + 20.274 x - 43.507 x^2 + 37.062 x^3 - 11.934 x^4

    in µS at a range of 40 µS, scaled with the range.

    Args:
        scale: s, a factor on the published growth.

    Source: Wan et al. (2022). Valid to two days. Departures: between the times the variance is interpolated in the
    logarithm of time; before 1 s it is that of 1 s; programming error and relaxation are independent, and one number
    per cell makes its relaxation correlated in time. From the first day to the second the published spread shrinks
    again for some x (0.06 to 0.42, 0.79 to 0.95), by up to 0.06 µS, which independent steps could not meet.
    """

    knots: ClassVar[tuple[float, ...]] = tuple(math.log(t) for t in _SIGMA)
    times: ClassVar[tuple[float, float]] = (0.0, 2 * _DAY)

    def clock(self, t: Tensor) -> Tensor:
        """See `Relaxation.clock`."""
        return t.clamp(min=1.0).log_()

    def spreads(self, cells: Cells) -> tuple[Tensor, ...]:
        """See `Relaxation.spreads`."""
        return tuple(_spread(cells, t) for t in _SIGMA)


@register("reram-wan2022")
def reram_wan2022(*, g_max: float = 40.0, fit: str = "wan") -> DeviceModel:
    """Resistive memory (HfOx) in differential pairs: programming error, relaxation, white read noise of 1 %.

    A weight of zero stands at a fortieth of the range, 1 of 40 µS, as on the measured chip. Ages beyond two days are an
    error: nothing was measured there.

    Args:
        g_max: conductance of the largest weight, µS; the errors scale with it.
        fit: of the error of programming: ``"wan"``, or ``"crosssim"`` for the second fit, which is valid up to 39.26 µS
            and does not scale.

    Raises:
        ValueError: an unknown fit, or a range on which it does not hold.

    Source: see the effects `WanProgramming`, `WanRelaxation`, `WanProgrammingCrossSim`, `ReadNoise`.
    """
    fits = {"wan": WanProgramming(), "crosssim": WanProgrammingCrossSim()}
    effects = (one_of("reram-wan2022", "fit", fit, fits), WanRelaxation(), ReadNoise(std=0.01))
    return DeviceModel(effects, g_min=as_number(g_max) / 40, g_max=g_max, name="reram-wan2022")
