r"""Resistive memory (CMO/HfOx): programming error, relaxation over ten years, 1/f read noise.

Sources: Falcone et al., arXiv 2502.04524 (2025); read noise: Lombardo et al., DRC 2024. Conductances from 9 to 88.2 µS;
the formulas are absolute and do not scale. :math:`\xi \sim N(0, 1)` per cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, State, param, register
from analogsim.devices.programming import ProgrammingNoise, check_range, polynomial
from analogsim.devices.relaxation import time_like
from analogsim.mapping import Mapping
from analogsim.noise import FlickerBand, Noise, flicker_like

_RANGE = (9.0, 88.2)  # µS
_BAND = FlickerBand(t0=0.0, t_read=1e-6)  # of ln((t + 1 µs) / 2 µs)
_SIGMA = {"0.2%": (0.00081107, 0.00106879), "2%": (0.01121854, 0.01129027)}


@dataclass(frozen=True)
class CMOProgramming(ProgrammingNoise):
    r"""Error of programming, which stops when the conductance is within the acceptance range of its target.

    .. math:: g_{prog} = g + s \sigma \xi, \qquad \sigma =
        \begin{cases}
        0.00106879\, g_{target} + 0.00081107 & \text{acceptance 0.2 \%} \\
        0.01129027\, g_{target} + 0.01121854 & \text{acceptance 2 \%}
        \end{cases}\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.
        acceptance: ``"0.2%"`` or ``"2%"`` of the target.

    Source: Falcone et al. (2025).
    """

    acceptance: str = param("0.2%", "% of the target", choices=tuple(_SIGMA))

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("CMOProgramming", model, *_RANGE)

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return polynomial(cells.target, _SIGMA[self.acceptance])


@dataclass(frozen=True)
class CMORelaxation(Effect):
    r"""Shift of the mean and growth of the spread after programming, the same in every state.

    .. math:: g(t) = \max\left(0,\ g_{prog} + s\,(\mu + \sigma \xi)\right)

    .. math:: \mu = -0.08900206 \ln \max(t, 1\,\mathrm{s}), \qquad
        \sigma = \max(0,\ 0.04201137 \ln t + 0.41183342), \quad \mathrm{µS}

    with one :math:`\xi` per cell for the life of the chip.

    Args:
        scale: s, a factor on shift and spread.

    Source: Falcone et al. (2025), who measure from 1 s on and extrapolate to ten years. Departures: before 1 s, where
    the formula would lift the mean, there is no shift; the spread falls to zero at 55 µs, where the formula does, and
    stays zero before, so that a chip that was just programmed is as it was programmed. One number per cell makes its
    relaxation correlated in time.
    """

    scale: float = param(1.0, "1", ge=0)

    cellwise: ClassVar[bool] = True

    times: ClassVar[tuple[float, float]] = (0.0, 10 * 365 * 86400.0)

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        return {"xi": noise.normal_like(cells.target)}

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.age`."""
        log_t = time_like(t, g).log()
        shift = log_t.clamp(min=0).mul_(-0.08900206 * self.scale)
        std = log_t.mul(0.04201137).add_(0.41183342).clamp_min_(0).mul_(self.scale)
        return (drawn["xi"] * std + shift + g).clamp_min_(0)


@dataclass(frozen=True)
class CMOReadNoise(Effect):
    r"""1/f read noise: its power is slow, so one draw holds while inputs stream through at one time.

    .. math:: g_{read} = \mathrm{clip}\left(g(t) + s\, 0.02773165 \log_{10}(g(t))
        \sqrt{\ln\frac{t + 10^{-6}}{2 \cdot 10^{-6}}}\, \xi,\ 9,\ 88.2\right)

    in µS and s, clipped to the measured range.

    Args:
        scale: s, a factor on the published noise.

    Source: Lombardo et al. (2024). Departures: none before 1 µs, where the root has no value; the logarithm is taken of
    the conductance within the range. Two times of a chip are correlated as the band of frequencies behind the logarithm
    implies, from 1/(t + 1 µs) to 500 kHz, but a single cell's noise is a tone (`analogsim.noise.flicker`).
    """

    scale: float = param(1.0, "1", ge=0)

    cellwise: ClassVar[bool] = True

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("CMOReadNoise", model, *_RANGE)

    def read(self, g: Tensor, t: float | Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.read`."""
        cycles = (time_like(t, g) + 1e-6) / 2e-6
        growth = cycles.log_().clamp_min_(0).sqrt_().mul_(0.02773165 * self.scale)
        inside = g.clamp(*_RANGE)
        return (flicker_like(noise, g, t, _BAND).mul_(inside.log10_()) * growth + g).clamp(*_RANGE)


@register("reram-cmo")
def reram_cmo(
    *,
    acceptance: str = "0.2%",
    g_min: float = 9.0,
    g_max: float = 88.2,
    reference: Literal["cells", "ideal"] = "cells",
) -> DeviceModel:
    """Resistive memory (CMO/HfOx): programming error, relaxation, 1/f read noise.

    One cell for each weight, read against the middle of the range (`analogsim.Mapping`, ``"offset"``).

    Args:
        acceptance: range around the target in which programming stops, ``"0.2%"`` or ``"2%"``.
        g_min: lowest conductance, at least 9 µS.
        g_max: highest conductance, at most 88.2 µS.
        reference: what stands in the middle of the range: ``"cells"``, a column of real ones on each crossbar, whose
            errors all its outputs share, so that a weight errs by the root of two as much as the paper's cell (the
            mean relaxation, which both have, cancels); or ``"ideal"``, a number that is subtracted digitally, so that a
            weight errs as one cell does and takes the whole relaxation of the mean.

    Raises:
        ValueError: another acceptance or reference, or a range beyond the measured one.

    Source: see the effects `CMOProgramming`, `CMORelaxation`, `CMOReadNoise`.
    """
    effects = (CMOProgramming(acceptance=acceptance), CMORelaxation(), CMOReadNoise())
    return DeviceModel(
        effects, g_min=g_min, g_max=g_max, mapping=Mapping("offset", reference=reference), name="reram-cmo"
    )
