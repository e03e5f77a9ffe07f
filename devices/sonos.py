r"""SONOS flash in subthreshold operation: programming error, retention over five days, white read noise.

Source: Agrawal et al., IEDM 2022. What stands for the conductance is the current of a cell in nA, up to 1600 nA; the
formulas are absolute and do not scale. :math:`\xi \sim N(0, 1)` per cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, param, register
from analogsim.devices.programming import ProgrammingNoise, check_range
from analogsim.devices.relaxation import Relaxation

_MAX = 1600.0  # nA
_DAY = 86400.0
_A_B = {0.0: (19.887, 176.31), _DAY: (25.591, 186.86), 5 * _DAY: (34.579, 207.34)}
_A_B_READ = (12.580, 215.37)


def _saturating(current: Tensor, a: float, b: float) -> Tensor:
    """``a (1 - exp(-current/b))``, a fresh tensor."""
    return current.mul(-1 / b).expm1_().mul_(-a)


@dataclass(frozen=True)
class SonosProgramming(ProgrammingNoise):
    r"""Error of programming.

    .. math:: I_{prog} = \max(0, I + s \sigma \xi), \qquad
        \sigma = 19.887\,\left(1 - e^{-I_{target}/176.31}\right)\ \mathrm{nA}

    A cell that is to carry no current carries none.

    Args:
        scale: s, a factor on the published error.

    Source: Agrawal et al. (2022), day 0.
    """

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("SonosProgramming", model, 0.0, _MAX, "nA")

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return _saturating(cells.target, *_A_B[0.0])


@dataclass(frozen=True)
class SonosRetention(Relaxation):
    r"""Growth of the error over five days; the mean stays.

    .. math:: I(t) = \max\left(0,\ I_{prog} + s \sqrt{\sigma_t^2 - \sigma_0^2}\ \xi\right), \qquad
        \sigma_t = A \left(1 - e^{-I_{target}/B}\right)

    with A = 19.887, 25.591, 34.579 nA and B = 176.31, 186.86, 207.34 nA at day 0, 1 and 5.

    Args:
        scale: s, a factor on the published growth.

    Source: Agrawal et al. (2022). Valid to five days. Departures: between the days the variance is interpolated in
    :math:`\ln(1 + t/1\,\mathrm{d})`, on which the published variances lie nearly on a line; programming error and
    retention are independent, and one number per cell makes its retention correlated in time; the shift of the mean
    current, of which the paper shows a figure, is left out.
    """

    knots: ClassVar[tuple[float, ...]] = tuple(math.log1p(t / _DAY) for t in _A_B)
    times: ClassVar[tuple[float, float]] = (0.0, 5 * _DAY)

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("SonosRetention", model, 0.0, _MAX, "nA")

    def clock(self, t: Tensor) -> Tensor:
        """See `Relaxation.clock`."""
        return t.div(_DAY).log1p_()

    def spreads(self, cells: Cells) -> tuple[Tensor, ...]:
        """See `Relaxation.spreads`."""
        return tuple(_saturating(cells.target, a, b) for a, b in _A_B.values())


@dataclass(frozen=True)
class SonosReadNoise(Effect):
    r"""White noise of reading, independent for each cell and each matrix-vector product.

    .. math:: I_{read} = I + s \sigma \xi, \qquad \sigma = 12.580\,\left(1 - e^{-I/215.37}\right)\ \mathrm{nA}

    with the current I that the cell carries now.

    Args:
        scale: s, a factor on the published noise.

    Source: Agrawal et al. (2022).
    """

    scale: float = param(1.0, "1", ge=0)

    cellwise: ClassVar[bool] = True

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("SonosReadNoise", model, 0.0, _MAX, "nA")

    def read_std(self, g: Tensor, cells: Cells) -> Tensor:
        """See `Effect.read_std`."""
        return _saturating(g, *_A_B_READ).mul_(self.scale)


@register("sonos")
def sonos(*, g_max: float = 1600.0) -> DeviceModel:
    """SONOS flash in differential pairs: programming error, retention, white read noise.

    Ages beyond five days are an error: nothing was measured there.

    Args:
        g_max: current of the largest weight, nA, at most 1600.

    Raises:
        ValueError: a range beyond the measured one.

    Source: see the effects `SonosProgramming`, `SonosRetention`, `SonosReadNoise`.
    """
    effects = (SonosProgramming(), SonosRetention(), SonosReadNoise())
    return DeviceModel(effects, g_max=g_max, name="sonos", unit="nA")
