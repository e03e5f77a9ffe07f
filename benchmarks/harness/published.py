"""Moments of a cell by the published formulas alone: closed forms and quadrature, no line shared with the devices.

Conductances in the unit of each device (µS; nA for ``sonos``), times in seconds since programming, None for what was
just programmed. ``x`` is the target as a fraction of the largest conductance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Array = NDArray[np.float64]

# A standard normal number as a grid with weights: the moments of whatever is a function of one.
XI = np.linspace(-9, 9, 4_001)
WEIGHT = norm.pdf(XI) * (XI[1] - XI[0])
DAY = 86400.0


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation."""

    mean: float
    std: float

    @classmethod
    def of(cls, first: float, second: float) -> Moments:
        """From the first two raw moments."""
        return cls(float(first), math.sqrt(max(0.0, float(second) - float(first) ** 2)))


Published = Callable[[float, float | None], Moments]


def polynomial(x: float, *coefficients: float) -> float:
    return float(np.polynomial.polynomial.polyval(x, coefficients))


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _clipped(mean: Array, std: float | Array, low: float, high: float = math.inf) -> tuple[Array, Array]:
    """The first two moments of a normal number that stops at ``low`` and ``high``."""
    std = np.maximum(std, 1e-300)
    a, b = (low - mean) / std, (high - mean) / std
    inside = norm.cdf(b) - norm.cdf(a)
    pdf_a, pdf_b = norm.pdf(a), norm.pdf(b)
    edge_b = 0.0 if math.isinf(high) else high
    first = mean * inside + std * (pdf_a - pdf_b) + low * norm.cdf(a) + edge_b * norm.sf(b)
    steps = a * pdf_a - (0.0 if math.isinf(high) else b * pdf_b)
    second = (mean**2 + std**2) * inside + 2 * mean * std * (pdf_a - pdf_b) + std**2 * steps
    return first, second + low**2 * norm.cdf(a) + edge_b**2 * norm.sf(b)


def _average(first: Array, second: Array) -> Moments:
    return Moments.of((WEIGHT * first).sum(), (WEIGHT * second).sum())


def programmed(target: float, sigma: float) -> Array:
    """``max(0, target + sigma xi)`` on the grid."""
    return np.maximum(0.0, target + sigma * XI)


def relaxed(target: float, sigma: float, growth: float, shift: float = 0.0) -> Moments:
    """Moments of ``max(0, programmed + shift + growth xi')`` with a second normal number."""
    g = programmed(target, sigma) + shift
    if growth:
        return _average(*_clipped(g, growth, 0.0))
    still = np.maximum(0.0, g)
    return _average(still, still * still)


# Phase-change memory: g = programmed * decay * max(0, 1 + q xi), three independent numbers.


def folded_decay(mu: float, s: float, a: float) -> float:
    """E[exp(-a |mu + s xi|)]."""
    shift = 0.5 * (a * s) ** 2
    left = math.exp(shift - a * mu) * norm.cdf(mu / s - a * s)
    return float(left + math.exp(shift + a * mu) * norm.cdf(-mu / s - a * s))


def normal_decay(mu: float, s: float, a: float) -> float:
    """E[exp(-a (mu + s xi))]."""
    return math.exp(0.5 * (a * s) ** 2 - a * mu)


def folded(mu: float, s: float) -> Moments:
    """Moments of ``|mu + s xi|``."""
    return _average(np.abs(mu + s * XI), (mu + s * XI) ** 2)


@dataclass(frozen=True)
class PCM:
    """A phase-change memory: what its formulas give for a relative target or a relative programmed conductance."""

    g_max: float
    t0: float
    t_read: float
    sigma: Callable[[float], float]
    nu: Callable[[float], tuple[float, float]]
    q: Callable[[Array], Array]
    decay: Callable[[float, float, float], float] = folded_decay

    def moments(self, x: float, t: float | None) -> Moments:
        """Moments as programmed, or as read at t."""
        g = programmed(x * self.g_max, self.sigma(x))
        if t is None:
            return _average(g, g * g)
        a = math.log((t + self.t0) / self.t0)
        growth = math.sqrt(math.log((t + self.t0 + self.t_read) / (2 * self.t_read)))
        first, second = _clipped(np.ones_like(g), self.q(g / self.g_max) * growth, 0.0)
        mu, s = self.nu(x)
        m1 = (WEIGHT * g * first).sum() * self.decay(mu, s, a)
        return Moments.of(m1, (WEIGHT * g * g * second).sum() * self.decay(mu, s, 2 * a))

    def exponent(self, x: float, t: float | None) -> Moments:
        """Moments of the drift exponent."""
        mu, s = self.nu(x)
        return folded(mu, s) if self.decay is folded_decay else Moments(mu, s)


def _pcm_nu(x: float) -> tuple[float, float]:
    log_x = math.log(max(x, 1e-7))
    return clip(-0.0155 * log_x + 0.0244, 0.049, 0.100), clip(-0.0125 * log_x - 0.0059, 0.008, 0.045)


def _pcm_nu_second(x: float) -> tuple[float, float]:
    g = 25.0 * x
    return max(-0.0045 * g + 0.08, min(0.06, max(-0.00169 * g + 0.0825, 0.055))), 1 / (8 * g + 30.032)


def _pcm_q(x: Array) -> Array:
    return np.minimum(0.0088 / np.maximum(x**0.65, 1e-3), 0.2)


def _second_sigma(x: float) -> float:
    return polynomial(25.0 * x, 0.28638599, 0.07585724, -0.00178767)


pcm = PCM(25.0, 20.0, 250e-9, lambda x: polynomial(x, 0.26348, 1.9650, -1.1731), _pcm_nu, _pcm_q)
pcm_crosssim = PCM(25.0, 20.0, 250e-9, _second_sigma, _pcm_nu_second, _pcm_q, normal_decay)


def _hermes_nu(x: float, cells: int) -> tuple[float, float]:
    log_x = math.log(max(x, 1e-7))
    mu = clip(-0.0387 * log_x - 0.0182, 0.0720, 0.13) if x < 0.0945 else -0.0436 * x * x - 0.0126 * x + 0.0736
    if cells == 1:
        low = x < 0.3039
        return mu, clip(-0.0120 * log_x - 0.0023, 0.0124, 0.04) if low else -0.0165 * x * x + 0.0116 * x + 0.0104
    low = x < 0.3055
    return mu, clip(-0.0117 * log_x - 0.0057, 0.0091, 0.04) if low else -0.0118 * x * x + 0.0093 * x + 0.0073


def _hermes_q(x: Array, cells: int) -> Array:
    x = np.minimum(x, 1.0)
    log_x = np.log(np.maximum(x, 1e-7))
    if cells == 1:
        low = np.clip(-0.0078 * log_x + 0.0038, 0.0179, 0.04)
        return np.where(x < 0.1591, low, 0.0664 * x**3 - 0.1352 * x**2 + 0.0768 * x + 0.0088)
    low = np.clip(-0.0117 * log_x - 0.0069, 0.015, 0.04)
    return np.where(x < 0.16, low, 0.0069 * x**3 - 0.0280 * x**2 + 0.0211 * x + 0.0123)


hermes_two = PCM(
    20.7,
    300.0,
    512e-9,
    lambda x: polynomial(x, 0.16603, 4.71806, -8.48101, 4.68961),
    lambda x: _hermes_nu(x, 2),
    lambda x: _hermes_q(x, 2),
)
hermes_one = PCM(
    10.35,
    200.0,
    512e-9,
    lambda x: polynomial(x, 0.15782, 2.32444, -2.16311, 0.68842),
    lambda x: _hermes_nu(x, 1),
    lambda x: _hermes_q(x, 1),
)


# A spread measured at several times, its variance interpolated between them.


def _interpolated(variances: Sequence[float], knots: Sequence[float], now: float) -> float:
    """Growth of the standard deviation since the first knot."""
    return math.sqrt(max(0.0, float(np.interp(now, knots, variances)) - variances[0]))


_WAN = (
    (0.348, 16.030, -43.853, 45.393, -16.815),
    (0.701, 22.086, -50.773, 47.095, -16.458),
    (0.782, 20.274, -43.507, 37.062, -11.934),
)


def wan(x: float, t: float | None) -> Moments:
    variances = [polynomial(x, *c) ** 2 for c in _WAN]
    knots = [math.log(s) for s in (1.0, DAY, 2 * DAY)]
    return relaxed(40.0 * x, polynomial(x, *_WAN[0]), _interpolated(variances, knots, math.log(max(t or 0.0, 1.0))))


def wan_crosssim(x: float, t: float | None) -> Moments:
    g = 39.26 * x
    return relaxed(g, 1.536e-4 * g**3 - 1.167e-2 * g**2 + 0.2374 * g + 1.053, 0.0)


_SONOS = (
    (19.887, 176.31),
    (25.591, 186.86),
    (28.728, 193.57),
    (31.043, 198.90),
    (33.762, 204.77),
    (34.579, 207.34),
)
# Shift of the mean in nA after 1 to 5 days, a polynomial in the current in nA.
_SONOS_SHIFT = (
    "1.72684e-01 5.72552e-02 -6.85715e-04 3.50271e-06 -9.37682e-09 1.40575e-11"
    " -1.19803e-14 5.41293e-18 -8.85448e-22 -1.66869e-25 5.95180e-29",
    "2.50712e-01 6.62195e-02 -6.83218e-04 2.99442e-06 -6.78255e-09 7.70482e-12"
    " -3.04983e-15 -2.15919e-18 2.94617e-21 -1.23359e-24 1.85329e-28",
    "-1.75300e-02 9.76883e-02 -9.63791e-04 4.55551e-06 -1.22391e-08 1.93786e-11"
    " -1.85899e-14 1.07659e-17 -3.58211e-21 5.96785e-25 -3.30410e-29",
    "4.03338e-02 1.03111e-01 -1.04740e-03 4.83961e-06 -1.28132e-08 1.99484e-11"
    " -1.85139e-14 1.00008e-17 -2.84944e-21 3.01008e-25 1.18747e-29",
    "3.19927e-01 1.06596e-01 -1.04054e-03 4.50290e-06 -1.10352e-08 1.56477e-11"
    " -1.27592e-14 5.45513e-18 -7.26841e-22 -2.43893e-25 7.14608e-29",
)


def sonos_shift(current: Array | float, day: int) -> Array:
    """Shift of the mean after 1 to 5 days, nA."""
    coefficients = [float(c) for c in _SONOS_SHIFT[day - 1].split()]
    return np.asarray(np.polynomial.polynomial.polyval(current, coefficients), dtype=np.float64)


def sonos(x: float, t: float | None) -> Moments:
    current = 1600.0 * x
    sigmas = [a * (1 - math.exp(-current / b)) for a, b in _SONOS]
    shifts = [0.0, *(float(sonos_shift(current, day)) for day in range(1, 6))]
    knots, now = [math.log(1 + d) for d in range(6)], math.log(1 + (t or 0.0) / DAY)
    growth = _interpolated([s * s for s in sigmas], knots, now)
    return relaxed(current, sigmas[0], growth, float(np.interp(now, knots, shifts)))


def sonos_read(x: float, t: float | None) -> Moments:
    """Noise of one product of a pair, in nA; the cell that stands for zero carries nothing."""
    current = programmed(1600.0 * x, 19.887 * (1 - math.exp(-1600.0 * x / 176.31)))
    return Moments(0.0, math.sqrt((WEIGHT * (12.580 * (1 - np.exp(-current / 215.37))) ** 2).sum()))


def wan_read(x: float, t: float | None) -> Moments:
    """Noise of one product of a pair, in µS: 1 % of the range in each of its cells."""
    return Moments(0.0, math.sqrt(2) * 0.01 * 40.0)


def cmo(acceptance: float) -> Published:
    """The CMO/HfOx cell for an acceptance range of 0.2 or 2 %."""
    slope, constant = {0.2: (0.00106879, 0.00081107), 2.0: (0.01129027, 0.01121854)}[acceptance]

    def moments(x: float, t: float | None) -> Moments:
        target = 88.2 * x
        sigma = slope * target + constant
        if t is None:
            return relaxed(target, sigma, 0.0)
        # Programming error and relaxation are normal and independent: one normal number, far from zero.
        shift = -0.08900206 * math.log(t)
        spread = math.hypot(sigma, 0.04201137 * math.log(t) + 0.41183342)
        g = target + shift + spread * XI
        growth = math.sqrt(math.log((t + 1e-6) / 2e-6))
        return _average(*_clipped(g, 0.02773165 * np.log10(np.clip(g, 9.0, 88.2)) * growth, 9.0, 88.2))

    return moments


def milo(x: float, t: float | None) -> Moments:
    g = 225.0 * x
    return relaxed(g, 4.782321 - 0.009107 * g, 0.0)


# Generic effects, on a range from 2 to 25 µS


G_MIN, G_MAX = 2.0, 25.0


def error(law: str, distribution: str, std: float = 0.05) -> Published:
    """A normal or uniform error of the three laws."""

    def moments(x: float, t: float | None) -> Moments:
        g = G_MAX * x
        sigma = {"constant": std * G_MAX, "proportional": std * g, "inverse": std * G_MAX**2 / g}[law]
        if distribution == "normal":
            return relaxed(g, sigma, 0.0)
        u = np.maximum(0.0, g + sigma * math.sqrt(12) * ((np.arange(20_000) + 0.5) / 20_000 - 0.5))
        return Moments(float(u.mean()), float(u.std()))

    return moments


def quantization(levels: int) -> Published:
    """Stochastic rounding to uniform levels: up with the probability of the remainder."""

    def moments(x: float, t: float | None) -> Moments:
        step = (G_MAX - G_MIN) / (levels - 1)
        rest = (G_MAX * x - G_MIN) / step % 1
        return Moments(G_MAX * x, step * math.sqrt(rest * (1 - rest)))

    return moments


def nearest(levels: int) -> Published:
    """Rounding of targets that lie uniformly between the levels: the error, which is uniform too."""
    return lambda x, t: Moments(0.0, (G_MAX - G_MIN) / (levels - 1) / math.sqrt(12))


def stuck(x: float, t: float | None) -> Moments:
    off, on, g = 0.0904, 0.0175, G_MAX * x
    first = off * G_MIN + on * G_MAX + (1 - off - on) * g
    return Moments.of(first, off * G_MIN**2 + on * G_MAX**2 + (1 - off - on) * g * g)


def drift(x: float, t: float | None) -> Moments:
    a, g = math.log(((t or 0.0) + 20.0) / 20.0), G_MAX * x
    return Moments.of(g * normal_decay(0.05, 0.02, a), g * g * normal_decay(0.05, 0.02, 2 * a))


def read_noise(law: str, std: float = 0.01) -> Published:
    """Noise of one product of a pair, the other cell at the lowest conductance, µS."""

    def moments(x: float, t: float | None) -> Moments:
        power = {"constant": 0, "proportional": 1, "inverse": -1}[law]
        sizes = (std * G_MAX * (g / G_MAX) ** power for g in (G_MAX * x, G_MIN))
        return Moments(0.0, math.hypot(*sizes))

    return moments
