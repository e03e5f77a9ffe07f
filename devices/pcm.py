r"""Phase-change memory (doped Ge2Sb2Te5, 90 nm): programming error, drift and 1/f read noise.

Sources: the model is Nandakumar et al., ICECS 2019; its numbers, fitted to an array of a million devices, are Joshi et
al., Nat. Commun. 11:2473 (2020). With :math:`x = g_{target}/g_{max}` and :math:`\xi \sim N(0, 1)` per cell.

A second fit of the same measurements, for programming and for drift, is the one of the simulator CrossSim (Sandia
National Laboratories).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, State, param, register
from analogsim.devices.drift import decay
from analogsim.devices.programming import ProgrammingNoise, check_range, one_of, polynomial
from analogsim.errors import InvalidValueError
from analogsim.noise import FlickerBand, Noise, flicker_like
from analogsim.utils.tensors import clamp_own

_FITTED_G_MAX = 25.0  # µS: the range on which the coefficients were fitted


def _relative_target(cells: Cells) -> Tensor:
    return cells.target / cells.g_max


@dataclass(frozen=True)
class PCMProgramming(ProgrammingNoise):
    r"""Error of iterative programming.

    .. math:: g_{prog} = \max(0, g + s \sigma \xi), \qquad
        \sigma = (0.26348 + 1.9650 x - 1.1731 x^2) \frac{g_{max}}{25}\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.

    Source: Joshi et al. (2020). The coefficients are in µS at a range of 25 µS and scale with the range.
    """

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return polynomial(_relative_target(cells), (0.26348, 1.9650, -1.1731)).mul_(cells.g_max / _FITTED_G_MAX)


@dataclass(frozen=True)
class PCMProgrammingCrossSim(ProgrammingNoise):
    r"""Error of iterative programming, second fit.

    .. math:: g_{prog} = \max(0, g + s \sigma \xi), \qquad
        \sigma = 0.28638599 + 0.07585724\, g_{target} - 0.00178767\, g_{target}^2\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.

    Source: CrossSim, after Fig. 3b of Joshi et al. (2020). In µS, up to 25 µS; it does not scale with the range.
    """

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("PCMProgrammingCrossSim", model, 0.0, _FITTED_G_MAX)

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return polynomial(cells.target, (0.28638599, 0.07585724, -0.00178767))


@dataclass(frozen=True)
class PCMDrift(Effect):
    r"""Drift with an exponent that depends on the state.

    .. math:: g(t) = g_{prog} \left(\frac{t + t_0}{t_0}\right)^{-\nu}, \qquad \nu = |\mu + s_\nu s\,\xi|

    .. math:: \mu = \mathrm{clip}(-0.0155 \ln x + 0.0244,\ 0.049,\ 0.100), \quad
        s = \mathrm{clip}(-0.0125 \ln x - 0.0059,\ 0.008,\ 0.045)

    with x floored at 1e-7; one exponent per cell for the life of the chip.

    Args:
        scale: a factor on the whole exponent.
        spread: :math:`s_\nu`, a factor on its spread from cell to cell.
        t0: time between programming and the first reading.

    Source: Joshi et al. (2020).
    """

    scale: float = param(1.0, "1", ge=0)
    spread: float = param(1.0, "1", ge=0)
    t0: float = param(20.0, "s", gt=0)

    cellwise: ClassVar[bool] = True

    def exponent(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the normal number that the exponent is made of, fresh tensors."""
        log_x = _relative_target(cells).clamp_min_(1e-7).log_()
        mean = clamp_own(log_x.mul(-0.0155).add_(0.0244), 0.049, 0.100)
        return mean, clamp_own(log_x.mul_(-0.0125).sub_(0.0059), 0.008, 0.045)

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        mean, std = self.exponent(cells)
        nu = noise.normal_like(mean).mul_(std.mul_(self.spread)).add_(mean).abs_()
        return {"nu": nu.mul_(self.scale)}

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.age`."""
        return decay(g, drawn["nu"], t, self.t0)


@dataclass(frozen=True)
class PCMDriftCrossSim(PCMDrift):
    r"""Drift with an exponent that depends on the state, second fit.

    .. math:: \nu \sim N\left(\mu, (s_\nu s)^2\right), \qquad s = \frac{1}{8 g_{target} + 30.032}, \qquad
        \mu = \max\left(-0.0045\, g_{target} + 0.08,\
        \min(0.06, \max(-0.00169\, g_{target} + 0.0825,\ 0.055))\right)

    with :math:`g_{target}` in µS, up to 25 µS. An exponent that comes out negative grows the conductance.

    Args:
        scale: a factor on the whole exponent.
        spread: :math:`s_\nu`, a factor on its spread from cell to cell.
        t0: time between programming and the first reading.

    Source: supplementary note 2 of Joshi et al. (2020), equations 8 and 9, as in CrossSim; it does not scale with the
    range. The exponent is all that is CrossSim's here. Its drift counts from programming and goes with
    :math:`(t/20\,\mathrm{s})^{-\nu}`, ours with :math:`((t + t_0)/t_0)^{-\nu}`, 1.6 % lower at 60 s and as low after a
    day. It adds the programming error at 27.36 s, when the conductance has drifted already, and at 55.39 s a second,
    independent one of :math:`1.904 \cdot 10^{-4} g^3 - 7.290 \cdot 10^{-3} g^2 + 0.1004\, g + 0.1923` µS, both of which
    drift on; ours is there from the beginning, and there is no second one, with which the spread at half of the range
    would be 1.2 times as large. It refuses times before 55.39 s, ours begins at 0.
    """

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("PCMDriftCrossSim", model, 0.0, _FITTED_G_MAX)

    def exponent(self, cells: Cells) -> tuple[Tensor, Tensor]:
        """See `PCMDrift.exponent`."""
        g = cells.target
        upper = clamp_own(g.mul(-0.00169).add_(0.0825), 0.055, 0.06)
        return torch.maximum(g.mul(-0.0045).add_(0.08), upper), g.mul(8).add_(30.032).reciprocal_()

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        mean, std = self.exponent(cells)
        return {"nu": noise.normal_like(mean).mul_(std.mul_(self.spread)).add_(mean).mul_(self.scale)}


@dataclass(frozen=True)
class PCMReadNoise(Effect):
    r"""1/f read noise: its power is slow, so one draw holds while inputs stream through at one time.

    .. math:: g_{read} = \max\left(0,\ g(t) + s\, g(t)\, Q \sqrt{\ln\frac{t + t_0 + t_{read}}{2 t_{read}}}\, \xi\right),
        \qquad Q = \min\left(\frac{0.0088}{\max((g_{prog}/g_{max})^{0.65},\ 10^{-3})},\ 0.2\right)

    Args:
        scale: s, a factor on the published noise.
        t0: time between programming and the first reading.
        t_read: duration of one read, at most t0.

    Source: Joshi et al. (2020). Departures: the paper evaluates Q at the target, we take the programmed conductance,
    which is what the cell knows. Two times of a chip are correlated as the band of frequencies behind the logarithm
    implies, from 1/(t + t0 + t_read) to 1/(2 t_read), but a single cell's noise is a tone (`analogsim.noise.flicker`).
    """

    scale: float = param(1.0, "1", ge=0)
    t0: float = param(20.0, "s", gt=0)
    t_read: float = param(250e-9, "s", gt=0)

    cellwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_read > self.t0:
            raise InvalidValueError(
                f"{type(self).__name__}: t_read must be <= t0, got t_read={self.t_read!r} and t0={self.t0!r}"
            )

    def relative_size(self, x: Tensor) -> Tensor:
        """Q of a relative programmed conductance, which may be written into."""
        # A power takes three times as long as a logarithm and an exponential. Q is at its upper bound long before the
        # lower bound on the power counts, and before 1e-7, which keeps zeros from the slow ways of logarithms.
        return x.clamp_min_(1e-7).log_().mul_(-0.65).exp_().mul_(0.0088).clamp_max_(0.2)

    def read(self, g: Tensor, t: float | Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.read`."""
        programmed = cells.target if cells.programmed is None else cells.programmed
        q = self.relative_size(programmed / cells.g_max)
        cycles = (t + self.t0 + self.t_read) / (2 * self.t_read)
        growth = torch.log(cycles).sqrt() if isinstance(cycles, Tensor) else math.sqrt(math.log(cycles))
        xi = flicker_like(noise, g, t, FlickerBand(self.t0, self.t_read))
        # g (1 + s q growth xi): everything but g is ours, so one buffer serves the whole product.
        relative = xi.mul_(q).mul_(growth * self.scale).add_(1)
        return relative.mul_(g).clamp_min_(0)


@register("pcm")
def pcm(*, g_max: float = 25.0, fit: str = "joshi") -> DeviceModel:
    """Phase-change memory in differential pairs: programming error, drift, 1/f read noise.

    Both cells of a pair have their own programming error and their own drift exponent, the one near zero included.

    Args:
        g_max: conductance of the largest weight, µS; the errors fitted by Joshi et al. scale with it.
        fit: of programming error and drift: ``"joshi"``, or ``"crosssim"`` for the second fit of the same measurements,
            which is valid up to 25 µS and does not scale. It is a fit of CrossSim and not that simulator's drift at
            every time, see `PCMDriftCrossSim`. Read noise, of which CrossSim has none for this device, is the same in
            both.

    Raises:
        ValueError: an unknown fit, or a range on which it does not hold.

    Source: see the effects `PCMProgramming`, `PCMDrift`, `PCMReadNoise`, `PCMProgrammingCrossSim`, `PCMDriftCrossSim`.
    """
    fits = {"joshi": (PCMProgramming(), PCMDrift()), "crosssim": (PCMProgrammingCrossSim(), PCMDriftCrossSim())}
    return DeviceModel((*one_of("pcm", "fit", fit, fits), PCMReadNoise()), g_max=g_max, name="pcm")
