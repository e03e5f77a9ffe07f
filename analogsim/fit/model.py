r"""What is fitted to measurements, part by part, in units of g_max.

A reading k of a cell at time t is taken as

.. math:: y_k = g_{prog}\, e^{-\nu L} (1 + q\,\xi_t) + \sigma_r\,\xi_{tk}, \qquad L = \ln\frac{t + t_0}{t_0}

with :math:`g_{prog} = \max(0, x + m(x) + \sigma(x)\,\xi)` and :math:`\nu \sim N(\mu(x), s(x)^2)`. Read noise comes from
repeated readings; slow noise from the scatter about each cell's own line in ln g over L; drift from the slopes of those
lines, less their errors; programming from their intercepts. Each is a maximum likelihood with what the parts before it
left, and without what lies more than four standard deviations off.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from analogsim.fit.estimate import (
    AKAIKE,
    REJECT,
    TINY,
    Basis,
    BoolArray,
    FloatArray,
    Law,
    NormalLaw,
    bayes,
    bins,
    evaluate,
    fit_scale,
    minimize,
)
from analogsim.fit.lines import Lines
from analogsim.fit.readings import Readings, grouped, without_torn

_WHITE, _SLOW, _DRIFT, _PROGRAMMING = 3, 2, (3, 3), (3, 4)  # so many coefficients at most
_BLURRED = 0.25  # where readings scatter by more than this about a power law, its exponent is not looked for
_CLEAR = 5.0  # standard deviations of read noise that ln g needs
_NOTHING: Law = (np.zeros(0), np.zeros(1))


def tail(dof: FloatArray) -> FloatArray:
    """What a sum of squares of so many normal numbers exceeds as rarely as one of them exceeds `REJECT`."""
    from scipy.stats import chi2, norm

    return np.asarray(chi2.isf(2 * norm.sf(REJECT), dof))


@dataclass(frozen=True, eq=False)
class Params:
    """Weights of the polynomials of every part; None for a part that the data do not show."""

    white: FloatArray | None = None
    slow: FloatArray | None = None
    drift: Law | None = None
    programming: Law = _NOTHING


@dataclass(eq=False)
class Kept:
    """Which groups and cells each part is fitted to: what lies far off is left out."""

    white: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    slow: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    drift: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    programming: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=bool))


class Problem:
    """The likelihoods of measurements, with what does not depend on parameters worked out once.

    Attributes:
        x: target of each cell, ``(cells,)``.
        groups: readings of one cell at one time, without the outliers.
        outliers: how many readings do not go with the others of their cell.
        torn: how many cells are left out, as most of their readings do not go with the others.
        repeated: the groups with more than one reading, ``(groups,)``.
        drifting: the cells whose exponent can be seen, ``(cells,)``.
        kept: what each part is fitted to, known after `fit`.
    """

    def __init__(self, readings: Readings) -> None:
        readings, level, self.outliers, self.torn = without_torn(readings)
        self.x = readings.x
        groups = grouped(readings, level)
        self.groups, self.level = groups, level
        self.kept = Kept()

        self.repeated = groups.count > 1
        self.dof = groups.count[self.repeated] - 1
        self.square = groups.squares[self.repeated] / np.maximum(self.dof, 1)
        at = groups.mean[self.repeated] if self.repeated.any() else np.array([0.0, 1.0])
        self.white_range = (float(np.clip(at.min(), 0, 1)), float(np.clip(at.max(), TINY, 1)))
        self.white_at = np.clip(at, *self.white_range)
        self.white_basis = Basis.of(self.white_at, _WHITE)

        order = np.lexsort((groups.log_time, groups.cell))
        self.first = order[np.unique(groups.cell[order], return_index=True)[1]]  # the first group of each cell
        self.drifting, self.seen = self._where_drift_shows()
        self.number = np.cumsum(self.drifting) - 1  # of each cell among those that drift
        self.times = np.bincount(self.number[groups.cell[self.seen]], minlength=self.drifting.sum())
        if self.drifting.any():
            self.log_x = np.log(self.x[self.drifting])
            self.drift_basis = Basis.of(self.log_x, max(_DRIFT))
        self.programming_basis = Basis.of(self.x, max(_PROGRAMMING))

    def _where_drift_shows(self) -> tuple[BoolArray, BoolArray]:
        """The cells, and the groups of these cells, in which the slope of ln g over L can be seen."""
        groups, cells = self.groups, len(self.x)
        noise = np.sqrt(np.median(self.square) / groups.count) if self.repeated.any() else np.zeros_like(groups.count)
        used = (groups.mean > 0) & (self.x[groups.cell] > 0) & (groups.expected > np.maximum(_CLEAR * noise, TINY))
        times = np.bincount(groups.cell[used], minlength=cells)
        drifting = times >= 2
        used &= drifting[groups.cell]
        if not (times >= 3).any():
            return drifting, used
        z = np.log(groups.mean[used] / groups.expected[used])
        lines = Lines.through(z, groups.log_time[used], np.ones(used.sum()), groups.cell[used], cells)
        many = np.flatnonzero(times >= 3)
        with np.errstate(invalid="ignore", divide="ignore"):  # of the other cells
            scatter = np.sqrt(lines.rest / (times - 2))[many]
        place = bins(self.x[many], 10, 30)
        blurred = [place == one for one in np.unique(place) if np.median(scatter[place == one]) > _BLURRED]
        if blurred:
            drifting &= self.x > max(self.x[many[one]].max() for one in blurred)
            used &= drifting[groups.cell]
        return drifting, used

    # Standard deviations

    def white(self, params: Params, y: FloatArray) -> FloatArray:
        """Read noise of single readings at conductances y."""
        if params.white is None:
            return np.zeros_like(y)
        coefficients = self.white_basis.coefficients(params.white)
        return np.maximum(evaluate(coefficients, np.clip(y, *self.white_range)), 0.0)

    def slow(self, params: Params) -> FloatArray:
        """Slow noise, relative, of each cell."""
        if params.slow is None or not self.drifting.any():
            return np.zeros_like(self.x)
        return np.maximum(self._over_log_x(params.slow), 0.0)

    def exponent(self, params: Params) -> FloatArray:
        """Mean exponent of each cell."""
        if params.drift is None:
            return np.zeros_like(self.x)
        return self._over_log_x(params.drift[0])

    def _over_log_x(self, weights: FloatArray) -> FloatArray:
        """A polynomial in ln x for each cell; beyond the cells that drift it stays constant."""
        log_x = np.log(np.clip(self.x, *self.drift_range))
        return evaluate(self.drift_basis.coefficients(weights), log_x)

    @property
    def drift_range(self) -> tuple[float, float]:
        """Lowest and highest target whose drift can be seen."""
        return float(np.exp(self.log_x.min())), float(np.exp(self.log_x.max()))

    # What each part is fitted to

    def lines(self, params: Params, slow: FloatArray) -> Lines:
        """The power laws of the drifting cells; `slow` is the slow noise of each of them."""
        groups, seen = self.groups, self.seen
        cell = self.number[groups.cell[seen]]
        expected = groups.expected[seen]
        white = (self.white(params, expected) / expected) ** 2 / groups.count[seen]
        # Noise v lowers the mean of the logarithm by v/2.
        z = np.log(groups.mean[seen] / self.level[groups.cell[seen]]) + white / 2
        variance = np.maximum(white + slow[cell] ** 2, TINY**2)
        return Lines.through(z, groups.log_time[seen], variance, cell, len(self.times))

    def exponents(self, params: Params) -> NormalLaw:
        """The exponents of the drifting cells."""
        lines = self.lines(params, self.slow(params)[self.drifting])
        return NormalLaw(-lines.slope, self.drift_basis, lines.slope_variance)

    def errors(self, params: Params) -> NormalLaw:
        """The programming errors of all cells: at the intercept of the power law, or in the first reading."""
        groups, first = self.groups, self.first
        slow = self.slow(params)
        forward = np.exp(self.exponent(params) * groups.log_time[first])
        y = groups.mean[first] * forward
        noise = self.white(params, groups.expected[first]) ** 2 / groups.count[first]
        variance = (noise + (slow * np.maximum(groups.expected[first], 0)) ** 2) * forward**2
        if params.drift is not None:
            drifting = self.drifting
            lines = self.lines(params, slow[drifting])
            spread = np.maximum(self.drift_basis.at(params.drift[1]), 0.0)
            height, height_variance = lines.intercept(self.exponent(params)[drifting], spread)
            y[drifting] = self.level[drifting] * np.exp(height + slow[drifting] ** 2 / 2)
            variance[drifting] = height_variance * self.level[drifting] ** 2
        return NormalLaw(y - self.x, self.programming_basis, variance, -self.x)

    def white_surprise(self, weights: FloatArray, weight: FloatArray) -> float:
        """Negative log likelihood of the scatter of repeated readings; `weight` of each group."""
        std = np.maximum(self.white_basis.at(weights), TINY)
        return float(weight @ (self.dof * (np.log(std) + self.square / (2 * std * std))))

    def slow_surprise(self, weights: FloatArray, params: Params, weight: FloatArray) -> float:
        """Negative log likelihood of the scatter about the power laws; `weight` of each drifting cell."""
        lines = self.lines(params, np.maximum(self.drift_basis.at(weights), TINY))
        surprise = 0.5 * (lines.log_variance + np.log(lines.determinant) + lines.rest)
        return float(weight @ surprise)

    # The fits

    def fit(self) -> Params:
        """All parameters, as many as the data can tell; sets `kept`."""
        params = replace(Params(), white=self._fit_white())
        if self.drifting.any():
            params = replace(params, slow=self._fit_slow(params))
            params = replace(params, drift=self._fit_drift(params))
        errors = self.errors(params)
        most = errors.at_most(_PROGRAMMING)
        self.kept.programming, law = errors.settle(most)
        return replace(params, programming=errors.choose(self.kept.programming.astype(float), most, law, least=0))

    def refit(self, start: Params, weight: FloatArray) -> Params:
        """The same parameters with a weight for each cell."""
        groups, kept = self.groups, self.kept
        params = Params()
        if start.white is not None:
            of = weight[groups.cell[self.repeated]] * kept.white
            params = replace(params, white=minimize(lambda c: self.white_surprise(c, of), start.white)[0])
        drifting = weight[self.drifting]
        if start.slow is not None:
            known, many = params, drifting * kept.slow
            params = replace(params, slow=minimize(lambda c: self.slow_surprise(c, known, many), start.slow)[0])
        if start.drift is not None:
            law, weights = self.exponents(params), drifting * kept.drift
            params = replace(params, drift=law.choose(weights, law.at_most(_DRIFT), start.drift, least=1, near=True))
        law, weights = self.errors(params), weight * kept.programming
        found = law.choose(weights, law.at_most(_PROGRAMMING), start.programming, least=0, near=True)
        return replace(params, programming=found)

    def _fit_white(self) -> FloatArray | None:
        """Read noise; None if no reading is repeated or all repeated ones are equal."""
        if not self.repeated.any() or not (self.square > TINY**2).any():
            self.kept.white = self.repeated[self.repeated]
            return None
        start = np.sqrt([max(float(np.median(self.square)), TINY**2)])
        counts = range(1, self.white_basis.count + 1)
        limit = tail(self.dof) / self.dof
        self.kept.white = self.square < 2 * limit * start**2
        found = start
        for _ in range(10):
            weight = self.kept.white.astype(float)

            def surprise(weights: FloatArray, weight: FloatArray = weight) -> float:
                return self.white_surprise(weights, weight)

            found = fit_scale(surprise, counts, found, AKAIKE)
            keep = self.square < limit * np.maximum(self.white_basis.at(found), TINY) ** 2
            if (keep == self.kept.white).all():
                break
            self.kept.white = keep
        return found

    def _fit_slow(self, params: Params) -> FloatArray | None:
        """Slow noise; None if no cell has three times, or read noise explains all scatter."""
        many = self.times >= 3
        self.kept.slow = many
        if not many.any():
            return None
        lines = self.lines(params, np.full(len(many), 1.0))
        start = np.sqrt([max(float(np.median(lines.rest[many] / (self.times[many] - 2))), TINY)])
        limit = tail(np.maximum(self.times - 2, 1).astype(float))
        self.kept.slow = many & (lines.rest < 2 * limit * start**2)
        found = start
        for _ in range(10):
            weight = self.kept.slow.astype(float)

            def surprise(weights: FloatArray, weight: FloatArray = weight) -> float:
                return self.slow_surprise(weights, params, weight)

            counts = range(min(_SLOW, self.drift_basis.count) + 1)
            found = fit_scale(surprise, counts, found, bayes(weight))
            lines = self.lines(params, np.maximum(self.drift_basis.at(found), TINY))
            keep = many & (lines.rest < limit)
            if (keep == self.kept.slow).all():
                break
            self.kept.slow = keep
        return found if len(found) else None

    def _fit_drift(self, params: Params) -> Law | None:
        """Mean and spread of the exponents; None if both may be zero."""
        law = self.exponents(params)
        most = law.at_most(_DRIFT)
        self.kept.drift, found = law.settle(most)
        weight = self.kept.drift.astype(float)
        found = law.choose(weight, most, found, least=1)
        size = len(found[0]) + len(found[1])
        drifts = 2 * float(weight @ law.surprise(found)) + size * bayes(weight)
        return found if drifts < 2 * float(weight @ law.surprise(_NOTHING)) else None
