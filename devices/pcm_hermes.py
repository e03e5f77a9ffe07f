r"""Phase-change memory of the 64-core chip: programming error, drift and 1/f read noise, for one or two cells.

Sources: Le Gallo et al., Nat. Electron. 6 (2023); Khaddam-Aljameh et al., IEEE J. Solid-State Circuits (2022). With
:math:`x = g_{target}/g_{max}` and :math:`\xi \sim N(0, 1)`. The numbers are those of a conductance that one cell or two
cells in parallel make; it has one error, one exponent and one noise, as measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim.device import Cells, DeviceModel, param, register
from analogsim.devices.pcm import PCMDrift, PCMReadNoise
from analogsim.devices.programming import ProgrammingNoise, polynomial
from analogsim.utils.tensors import clamp_own

_G_MAX = {1: 10.35, 2: 20.7}  # µS: the ranges on which the coefficients were fitted
_T0 = {1: 200.0, 2: 300.0}  # s
_SIGMA = {1: (0.15782, 2.32444, -2.16311, 0.68842), 2: (0.16603, 4.71806, -8.48101, 4.68961)}


@dataclass(frozen=True)
class HermesProgramming(ProgrammingNoise):
    r"""Error of iterative programming.

    .. math:: g_{prog} = \max(0, g + s \sigma \xi), \qquad \sigma =
        \begin{cases}
        (0.15782 + 2.32444 x - 2.16311 x^2 + 0.68842 x^3)\, g_{max}/10.35 & \text{one cell} \\
        (0.16603 + 4.71806 x - 8.48101 x^2 + 4.68961 x^3)\, g_{max}/20.7 & \text{two cells}
        \end{cases}\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.
        cells_per_conductance: 1 or 2.

    Source: Le Gallo et al. (2023), Khaddam-Aljameh et al. (2022).
    """

    cells_per_conductance: int = param(2, "cells", ge=1, le=2)

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        kind = self.cells_per_conductance
        return polynomial(cells.target / cells.g_max, _SIGMA[kind]).mul_(cells.g_max / _G_MAX[kind])


@dataclass(frozen=True)
class HermesDrift(PCMDrift):
    r"""Drift with an exponent that depends on the state.

    .. math:: g(t) = g_{prog} \left(\frac{t + t_0}{t_0}\right)^{-\nu}, \qquad \nu = |\mu + s_\nu s\,\xi|

    .. math:: \mu =
        \begin{cases}
        \mathrm{clip}(-0.0387 \ln x - 0.0182,\ 0.0720,\ 0.13) & x < 0.0945 \\
        -0.0436 x^2 - 0.0126 x + 0.0736 & \text{else}
        \end{cases}

    .. math:: s =
        \begin{cases}
        \mathrm{clip}(-0.0120 \ln x - 0.0023,\ 0.0124,\ 0.04) & x < 0.3039 \\
        -0.0165 x^2 + 0.0116 x + 0.0104 & \text{else}
        \end{cases}\ \text{(one cell)}, \qquad
        \begin{cases}
        \mathrm{clip}(-0.0117 \ln x - 0.0057,\ 0.0091,\ 0.04) & x < 0.3055 \\
        -0.0118 x^2 + 0.0093 x + 0.0073 & \text{else}
        \end{cases}\ \text{(two cells)}

    with x floored at 1e-7; one exponent per conductance for the life of the chip.

    Args:
        scale: a factor on the whole exponent.
        spread: :math:`s_\nu`, a factor on its spread from conductance to conductance.
        t0: time between programming and the first reading: 300 s for two cells, 200 s for one.
        cells_per_conductance: 1 or 2.

    Source: Le Gallo et al. (2023), Khaddam-Aljameh et al. (2022).
    """

    t0: float = param(_T0[2], "s", gt=0)
    cells_per_conductance: int = param(2, "cells", ge=1, le=2)

    def exponent(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """See `PCMDrift.exponent`."""
        x = cells.target / cells.g_max
        log_x = x.clamp(min=1e-7).log_()
        low = clamp_own(log_x.mul(-0.0387).sub_(0.0182), 0.0720, 0.13)
        mean = torch.where(x < 0.0945, low, polynomial(x, (0.0736, -0.0126, -0.0436)))
        if self.cells_per_conductance == 1:
            low = clamp_own(log_x.mul_(-0.0120).sub_(0.0023), 0.0124, 0.04)
            return mean, torch.where(x < 0.3039, low, polynomial(x, (0.0104, 0.0116, -0.0165)))
        low = clamp_own(log_x.mul_(-0.0117).sub_(0.0057), 0.0091, 0.04)
        return mean, torch.where(x < 0.3055, low, polynomial(x, (0.0073, 0.0093, -0.0118)))


@dataclass(frozen=True)
class HermesReadNoise(PCMReadNoise):
    r"""1/f read noise: its power is slow, so one draw holds while inputs stream through at one time.

    .. math:: g_{read} = \max\left(0,\ g(t) + s\, g(t)\, Q \sqrt{\ln\frac{t + t_0 + t_{read}}{2 t_{read}}}\, \xi\right)

    .. math:: Q =
        \begin{cases}
        \mathrm{clip}(-0.0078 \ln x + 0.0038,\ 0.0179,\ 0.04) & x < 0.1591 \\
        0.0664 x^3 - 0.1352 x^2 + 0.0768 x + 0.0088 & \text{else}
        \end{cases}\ \text{(one cell)}, \qquad
        \begin{cases}
        \mathrm{clip}(-0.0117 \ln x - 0.0069,\ 0.015,\ 0.04) & x < 0.16 \\
        0.0069 x^3 - 0.0280 x^2 + 0.0211 x + 0.0123 & \text{else}
        \end{cases}\ \text{(two cells)}

    with x the relative programmed conductance, floored at 1e-7.

    Args:
        scale: s, a factor on the published noise.
        t0: time between programming and the first reading: 300 s for two cells, 200 s for one.
        t_read: duration of one read, at most t0.
        cells_per_conductance: 1 or 2.

    Source: Le Gallo et al. (2023), Khaddam-Aljameh et al. (2022). Departures: Q at the programmed conductance, as in
    `PCMReadNoise`, and at the end of the range for what was programmed beyond it; correlated in time as there.
    """

    t0: float = param(_T0[2], "s", gt=0)
    t_read: float = param(512e-9, "s", gt=0)
    cells_per_conductance: int = param(2, "cells", ge=1, le=2)

    def relative_size(self, x: Tensor) -> Tensor:
        """See `PCMReadNoise.relative_size`."""
        x = x.clamp(1e-7, 1.0)
        if self.cells_per_conductance == 1:
            low = clamp_own(x.log().mul_(-0.0078).add_(0.0038), 0.0179, 0.04)
            return torch.where(x < 0.1591, low, polynomial(x, (0.0088, 0.0768, -0.1352, 0.0664)))
        low = clamp_own(x.log().mul_(-0.0117).sub_(0.0069), 0.015, 0.04)
        return torch.where(x < 0.16, low, polynomial(x, (0.0123, 0.0211, -0.0280, 0.0069)))


@register("pcm-hermes")
def pcm_hermes(*, cells_per_conductance: int = 2, g_max: float | None = None) -> DeviceModel:
    """Phase-change memory of the 64-core chip in differential pairs: programming error, drift, 1/f read noise.

    Both conductances of a pair have their own programming error and their own drift exponent.

    Args:
        cells_per_conductance: how many cells make one conductance, 1 or 2.
        g_max: conductance of the largest weight, µS; the fitted errors scale with it. Default: the one they were
            fitted at, 10.35 for one cell and 20.7 for two.

    Raises:
        ValueError: another number of cells, or an impossible range.

    Source: see the effects `HermesProgramming`, `HermesDrift`, `HermesReadNoise`.
    """
    kind = cells_per_conductance
    programming = HermesProgramming(cells_per_conductance=kind)  # refuses another number of cells
    drift = HermesDrift(t0=_T0[kind], cells_per_conductance=kind)
    read = HermesReadNoise(t0=_T0[kind], cells_per_conductance=kind)
    return DeviceModel((programming, drift, read), g_max=_G_MAX[kind] if g_max is None else g_max, name="pcm-hermes")
