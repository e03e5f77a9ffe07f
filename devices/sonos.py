r"""SONOS flash in subthreshold operation: programming error, retention over five days, white read noise.

Source: Agrawal et al., IEDM 2022, with the coefficients of the simulator CrossSim (Sandia National Laboratories) for
its Figures 10 and 11. What stands for the conductance is the current of a cell in nA, up to 1600 nA; the
formulas are absolute and do not scale. :math:`\xi \sim N(0, 1)` per cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from numpy.polynomial import Polynomial
from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, param, register
from analogsim.devices.programming import ProgrammingNoise, check_range
from analogsim.devices.relaxation import Relaxation, counts

_MAX = 1600.0  # nA
_DAY = 86400.0
_A_B = (
    (19.887, 176.31),
    (25.591, 186.86),
    (28.728, 193.57),
    (31.043, 198.90),
    (33.762, 204.77),
    (34.579, 207.34),
)
"""Of the spread at programming and after 1, 2, 3, 4 and 5 days, nA."""
_A_B_READ = (12.580, 215.37)
_SHIFT = (
    (1.72684e-01, 2.50712e-01, -1.75300e-02, 4.03338e-02, 3.19927e-01),
    (5.72552e-02, 6.62195e-02, 9.76883e-02, 1.03111e-01, 1.06596e-01),
    (-6.85715e-04, -6.83218e-04, -9.63791e-04, -1.04740e-03, -1.04054e-03),
    (3.50271e-06, 2.99442e-06, 4.55551e-06, 4.83961e-06, 4.50290e-06),
    (-9.37682e-09, -6.78255e-09, -1.22391e-08, -1.28132e-08, -1.10352e-08),
    (1.40575e-11, 7.70482e-12, 1.93786e-11, 1.99484e-11, 1.56477e-11),
    (-1.19803e-14, -3.04983e-15, -1.85899e-14, -1.85139e-14, -1.27592e-14),
    (5.41293e-18, -2.15919e-18, 1.07659e-17, 1.00008e-17, 5.45513e-18),
    (-8.85448e-22, 2.94617e-21, -3.58211e-21, -2.84944e-21, -7.26841e-22),
    (-1.66869e-25, -1.23359e-24, 5.96785e-25, 3.01008e-25, -2.43893e-25),
    (5.95180e-29, 1.85329e-28, -3.30410e-29, 1.18747e-29, 7.14608e-29),
)
"""Coefficients of the shift of the mean after 1, 2, 3, 4 and 5 days, the constant first: nA of a current in nA."""


# The shift of each day in powers of ``I / 800 - 1``: in those of I, float32 would lose a hundredth of a nA. Made at
# once, since compiled code would make it again in each forward.
_CENTRED_SHIFTS = tuple(
    tuple(map(float, Polynomial(day).convert(domain=[0.0, _MAX], window=[-1, 1]).coef))
    for day in zip(*_SHIFT, strict=True)
)


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
        return _saturating(cells.target, *_A_B[0])


@dataclass(frozen=True)
class SonosRetention(Relaxation):
    r"""Shift of the mean current and growth of the error over five days.

    .. math:: I(t) = \max\left(0,\ I_{prog} + s \left(\mu_t + \sqrt{\sigma_t^2 - \sigma_0^2}\ \xi\right)\right), \qquad
        \sigma_t = A_t \left(1 - e^{-I_{target}/B_t}\right), \qquad \mu_t = \sum_{k=0}^{10} c_{t,k} I_{target}^k

    with A = 19.887, 25.591, 28.728, 31.043, 33.762, 34.579 nA and B = 176.31, 186.86, 193.57, 198.90, 204.77,
    207.34 nA at day 0, 1, 2, 3, 4 and 5, and a polynomial for the mean of each of the days 1 to
    5: large currents fall (1600 nA to 1559.3 nA in five days), small ones rise (160 nA to 163.4 nA), and a cell without
    current comes to carry a few tenths of a nA.

    Args:
        scale: s, a factor on the published growth and shift.

    Source: Agrawal et al. (2022), Fig. 10; both fits of its five days are those of the simulator CrossSim (Sandia
    National Laboratories, the edition of 2026; the polynomials of earlier editions fall steeply at the end of the
    range). Valid to five days. Departures: between the days mean and variance are interpolated in
    :math:`\ln(1 + t/1\,\mathrm{d})`, on which the published variances lie nearly on a line, where CrossSim interpolates
    coefficients in t; both are taken at the target, where CrossSim takes the spread at the shifted mean (a hundredth
    more at 160 nA); programming error and retention are independent, and one number per cell makes its retention
    correlated in time.
    """

    knots: ClassVar[tuple[float, ...]] = tuple(math.log1p(day) for day in range(len(_A_B)))
    times: ClassVar[tuple[float, float]] = (0.0, 5 * _DAY)

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("SonosRetention", model, 0.0, _MAX, "nA")

    def clock(self, t: Tensor) -> Tensor:
        """See `Relaxation.clock`."""
        return t.div(_DAY).log1p_()

    def spread(self, cells: Cells, place: int) -> Tensor:
        """See `Relaxation.spread`."""
        return _saturating(cells.target, *_A_B[place])

    def spreads(self, cells: Cells) -> tuple[Tensor, ...]:
        """See `Relaxation.spreads`."""
        return tuple(self.spread(cells, place) for place in range(len(_A_B)))

    def shift(self, t: float | Tensor, cells: Cells) -> Tensor | None:
        """See `Relaxation.shift`."""
        days = [
            (weight, day) for weight, day in zip(self.weights(t)[1:], _CENTRED_SHIFTS, strict=True) if counts(weight)
        ]
        if not days:
            return None
        powers = [sum((weight * day[power] for weight, day in days), 0.0) for power in range(len(_SHIFT))]
        u = cells.target.div(_MAX / 2).sub_(1)
        value = u * powers[-1] + powers[-2]
        for coefficient in reversed(powers[:-2]):
            value = value.mul_(u).add_(coefficient)
        return value


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
    """SONOS flash in differential pairs: programming error, retention (mean and spread), white read noise.

    Ages beyond five days are an error: nothing was measured there.

    Args:
        g_max: current of the largest weight, nA, at most 1600.

    Raises:
        ValueError: a range beyond the measured one.

    Source: see the effects `SonosProgramming`, `SonosRetention`, `SonosReadNoise`.
    """
    effects = (SonosProgramming(), SonosRetention(), SonosReadNoise())
    return DeviceModel(effects, g_max=g_max, name="sonos", unit="nA")
