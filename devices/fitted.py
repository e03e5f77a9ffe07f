"""Effects with coefficients that were fitted to measured conductances: what `analogsim.fit_device` returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from analogsim.device import Cells, Effect, State, checked, param
from analogsim.devices.drift import decay
from analogsim.devices.programming import polynomial
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.noise import FlickerBand, Noise, flicker_like


def _coefficients(owner: str, name: str, value: Any) -> tuple[float, ...]:
    """The value as a tuple of finite numbers, the coefficient of the lowest power first."""
    where = f"{owner}: {name}"
    if not isinstance(value, list | tuple) or not value:
        raise InvalidTypeError(f"{where} must be a sequence of coefficients, such as (0.01, 0.02), got {value!r}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise InvalidTypeError(f"{where} must hold numbers, got {value!r}")
        if not math.isfinite(number):
            raise InvalidValueError(f"{where} must be finite, got {value!r}")
    return tuple(float(number) for number in value)


@dataclass(frozen=True)
class _Fitted(Effect):
    """Polynomials on the range of relative conductance that was measured; beyond its ends they stay constant."""

    cellwise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for spec in fields(self):
            value = getattr(self, spec.name)
            if isinstance(spec.default, tuple):
                value = _coefficients(owner, spec.name, value)
            else:
                value = checked(owner, spec.name, value, spec.default, spec.metadata)
            object.__setattr__(self, spec.name, value)
        low, high = self._range
        if low > high:
            raise InvalidValueError(f"{owner}: x_min must be <= x_max, got x_min={low!r} and x_max={high!r}")

    @property
    def _range(self) -> tuple[float, float]:
        values = vars(self)
        return values["x_min"], values["x_max"]

    def _inside(self, g: Tensor, cells: Cells) -> Tensor:
        """``g / g_max`` within the measured range, a fresh tensor."""
        return (g / cells.g_max).clamp(*self._range)


@dataclass(frozen=True)
class FittedProgramming(_Fitted):
    r"""Error of programming with a mean and a standard deviation that depend on the target.

    .. math:: g_{prog} = \max\left(0,\ g + g_{max} \left(m(x) + \sigma(x)\,\xi\right)\right), \qquad
        m(x) = \sum_i m_i x^i, \quad \sigma(x) = \max\left(0, \sum_i \sigma_i x^i\right)

    with :math:`x = g_{target}/g_{max}` held within the measured range and one :math:`\xi \sim N(0, 1)` for each cell.

    Args:
        sigma: :math:`\sigma_0, \sigma_1, \ldots`
        offset: :math:`m_0, m_1, \ldots`
        x_min: lowest measured target.
        x_max: highest one.

    Source: the user's measurements, see `analogsim.fit_device`.
    """

    sigma: tuple[float, ...] = param((0.05,), "fraction of g_max")
    offset: tuple[float, ...] = param((0.0,), "fraction of g_max")
    x_min: float = param(0.0, "fraction of g_max", ge=0, le=1)
    x_max: float = param(1.0, "fraction of g_max", gt=0, le=1)

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        x = self._inside(cells.target, cells)
        sigma = polynomial(x, self.sigma).clamp_min_(0)
        error = noise.normal_like(g).mul_(sigma).add_(polynomial(x, self.offset)).mul_(cells.g_max)
        return error.add_(g).clamp_min_(0)


@dataclass(frozen=True)
class FittedDrift(_Fitted):
    r"""Drift with one exponent for each cell, whose mean and spread depend on the target.

    .. math:: g(t) = g_{prog} \left(\frac{t + t_0}{t_0}\right)^{-\nu}, \qquad \nu \sim N(\mu(x), s(x)^2), \qquad
        \mu(x) = \sum_i \mu_i (\ln x)^i, \quad s(x) = \max\left(0, \sum_i s_i (\ln x)^i\right)

    with :math:`x = g_{target}/g_{max}` held within the measured range. A cell whose exponent is negative grows.

    Args:
        nu: :math:`\mu_0, \mu_1, \ldots`
        nu_std: :math:`s_0, s_1, \ldots`
        t0: time between programming and the first reading.
        x_min: lowest target at which drift could be seen.
        x_max: highest one.

    Source: the user's measurements, see `analogsim.fit_device`.
    """

    nu: tuple[float, ...] = param((0.05,), "1")
    nu_std: tuple[float, ...] = param((0.01,), "1")
    t0: float = param(20.0, "s", gt=0)
    x_min: float = param(0.01, "fraction of g_max", gt=0, le=1)
    x_max: float = param(1.0, "fraction of g_max", gt=0, le=1)

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        log_x = self._inside(cells.target, cells).log_()
        spread = polynomial(log_x, self.nu_std).clamp_min_(0)
        return {"nu": noise.normal_like(log_x).mul_(spread).add_(polynomial(log_x, self.nu))}

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.age`."""
        return decay(g, drawn["nu"], t, self.t0)


@dataclass(frozen=True)
class FittedSlowNoise(_Fitted):
    r"""Noise from one reading time to another (1/f): one draw holds while inputs stream through at one time.

    .. math:: g_{read} = \max\left(0,\ g(t) (1 + q(x)\,\xi)\right), \qquad
        q(x) = \max\left(0, \sum_i q_i (\ln x)^i\right)

    with :math:`x = g_{target}/g_{max}` held within the measured range.

    Args:
        std: :math:`q_0, q_1, \ldots`, relative to the conductance.
        x_min: lowest target at which it could be seen.
        x_max: highest one.
        t0: time between programming and the first reading.
        t_read: duration of one reading.

    Source: the user's measurements, see `analogsim.fit_device`. Departures: the power of 1/f noise grows with the
    logarithm of time, this one is the mean over the measured times. The formula has no band of frequencies: how two
    times of a chip are correlated follows from 1/(t + t0 + t_read) to 1/(2 t_read), as in `PCMReadNoise`. The fit takes
    readings in a row as of one noise, and those of two times as of two.
    """

    std: tuple[float, ...] = param((0.01,), "fraction of g")
    x_min: float = param(0.01, "fraction of g_max", gt=0, le=1)
    x_max: float = param(1.0, "fraction of g_max", gt=0, le=1)
    t0: float = param(20.0, "s", gt=0)
    t_read: float = param(250e-9, "s", gt=0)

    def read(self, g: Tensor, t: float | Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.read`."""
        q = polynomial(self._inside(cells.target, cells).log_(), self.std).clamp_min_(0)
        xi = flicker_like(noise, g, t, FlickerBand(self.t0, self.t_read))
        return xi.mul_(q).add_(1).mul_(g).clamp_min_(0)


@dataclass(frozen=True)
class FittedReadNoise(_Fitted):
    r"""White noise of reading, independent for each cell and each matrix-vector product.

    .. math:: g_{read} = g + g_{max}\,\sigma(x)\,\xi, \qquad \sigma(x) = \max\left(0, \sum_i \sigma_i x^i\right)

    with :math:`x = g/g_{max}` of the conductance as it is now, held within the measured range.

    Args:
        std: :math:`\sigma_0, \sigma_1, \ldots`
        x_min: lowest measured conductance.
        x_max: highest one.

    Source: the user's measurements, see `analogsim.fit_device`.
    """

    std: tuple[float, ...] = param((0.01,), "fraction of g_max")
    x_min: float = param(0.0, "fraction of g_max", ge=0, le=1)
    x_max: float = param(1.0, "fraction of g_max", gt=0, le=1)

    def read_std(self, g: Tensor, cells: Cells) -> Tensor:
        """See `Effect.read_std`."""
        return polynomial(self._inside(g, cells), self.std).clamp_min_(0).mul_(cells.g_max)
