"""Robust maximum likelihood with polynomial means and standard deviations: the tools of `analogsim.fit.model`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

REJECT = 4.0  # standard deviations: 1 in 16,000 normal numbers lies beyond
ROUGH = 6.0  # the same before anything is fitted, with a scale from medians
TINY = 1e-6  # a standard deviation (of values about 1) below is zero


def normal_scale(deviations: FloatArray) -> float:
    """Standard deviation of normal numbers by the median of their size: nearly half of them may be anything."""
    return float(np.median(np.abs(deviations)) / 0.6745) if len(deviations) else 0.0


def median_by(values: FloatArray, group: IntArray, groups: int) -> FloatArray:
    """The median of the values of each group, ``(groups,)``; NaN for an empty one."""
    order = np.lexsort((values, group))
    count = np.bincount(group, minlength=groups)
    start = np.concatenate(([0], np.cumsum(count)[:-1]))
    result = np.full(groups, np.nan)
    there = count > 0
    low, high = (start + (count - 1) // 2)[there], (start + count // 2)[there]
    result[there] = (values[order][low] + values[order][high]) / 2
    return result


def bins(values: FloatArray, size: int, most: int) -> IntArray:
    """The bin of each value: about `size` values in one or more, `most` bins at most; equal values stay together."""
    count = int(np.clip(len(values) // size, 1, most))
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.intp)


AKAIKE = 2.0  # what a coefficient must gain in twice the log likelihood, by Akaike's criterion


def bayes(weight: FloatArray) -> float:
    """The same by the Bayesian criterion, which takes more: to say that there is something at all."""
    return float(np.log(max(8.0, weight.sum())))


@dataclass(frozen=True, eq=False)
class Basis:
    """Orthogonal polynomials on given points; those of lower degree do not change when higher ones are added.

    Args:
        q: their values, ``(points, count)``, with mean square 1.
        r: ``powers = q @ r``.
    """

    q: FloatArray
    r: FloatArray

    @classmethod
    def of(cls, x: FloatArray, count: int) -> Basis:
        """The first `count` polynomials on ``x``, or as many as there are different points."""
        q, r = np.linalg.qr(np.vander(x, min(count, len(np.unique(x))), increasing=True))
        scale = np.sqrt(len(x)) * np.sign(np.diag(r))
        return cls(q * scale, r / scale[:, None])

    def only(self, keep: BoolArray) -> Basis:
        """The same polynomials on some of the points."""
        return Basis(self.q[keep], self.r)

    def at(self, weights: FloatArray) -> FloatArray:
        """A weighted sum of the first polynomials, ``(points,)``."""
        return np.asarray(self.q[:, : len(weights)] @ weights)

    def coefficients(self, weights: FloatArray) -> tuple[float, ...]:
        """The same sum as coefficients of 1, x, x², ...; (0.0,) for an empty one."""
        count = len(weights)
        if not count:
            return (0.0,)
        return tuple(float(value) for value in np.linalg.solve(self.r[:count, :count], weights))

    @property
    def count(self) -> int:
        """Number of polynomials."""
        return int(self.r.shape[0])


def evaluate(coefficients: Sequence[float], x: FloatArray) -> FloatArray:
    """``c0 + c1 x + c2 x**2 + ...``."""
    return np.asarray(np.polynomial.polynomial.polyval(x, np.asarray(coefficients)))


def minimize(function: Callable[[FloatArray], float], start: FloatArray) -> tuple[FloatArray, float]:
    """The minimum of a smooth function of few parameters, and its value."""
    from scipy.optimize import minimize as scipy_minimize

    if not len(start):
        return start, function(start)
    found = scipy_minimize(function, start, method="BFGS", options={"gtol": 1e-2, "maxiter": 200})
    return np.asarray(found.x), float(found.fun)


def resized(weights: FloatArray, count: int) -> FloatArray:
    """The first `count` weights, with zeros for those that are not there."""
    return np.concatenate((weights, np.zeros(count)))[:count]


Law = tuple[FloatArray, FloatArray]
"""Weights of the polynomials of a mean and of a standard deviation."""


@dataclass(frozen=True, eq=False)
class NormalLaw:
    r"""Values that are normal about a polynomial, with a standard deviation that is another one.

    .. math:: y \sim N(m(u),\ s(u)^2 + e)

    Args:
        y: the values, ``(n,)``.
        basis: polynomials of u on the n points.
        extra: e, a variance of each value that is known.
        zero: where zero conductance lies on the axis of y, ``(n,)``: cells that would come out below are at zero, and
            are read there with the variance ``extra``. None: the axis ends nowhere.
    """

    y: FloatArray
    basis: Basis
    extra: FloatArray
    zero: FloatArray | None = None

    def only(self, keep: BoolArray) -> NormalLaw:
        """The law of some of the values."""
        zero = None if self.zero is None else self.zero[keep]
        return replace(self, y=self.y[keep], basis=self.basis.only(keep), extra=self.extra[keep], zero=zero)

    def at_most(self, counts: tuple[int, int]) -> tuple[int, int]:
        """So many polynomials, or as many as there are."""
        return min(counts[0], self.basis.count), min(counts[1], self.basis.count)

    def parts(self, law: Law) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of each value, the known variance apart."""
        return self.basis.at(law[0]), np.maximum(self.basis.at(law[1]), TINY)

    def residuals(self, law: Law) -> FloatArray:
        """Standardised residuals."""
        mean, std = self.parts(law)
        return np.asarray((self.y - mean) / np.sqrt(std * std + self.extra))

    def surprise(self, law: Law) -> FloatArray:
        """Negative log likelihood of each value, without its constant."""
        mean, std = self.parts(law)
        variance = std * std + self.extra
        away = self.y - mean
        plain = 0.5 * (np.log(variance) + away * away / variance)
        if self.zero is None:
            return np.asarray(plain)
        from scipy.special import log_ndtr

        off = log_ndtr((self.zero - mean) / std)  # the cell is at zero
        read = self.y - self.zero
        noisy = self.extra > TINY**2
        extra = np.where(noisy, self.extra, 1.0)
        # A conductance above zero is, given its reading, normal about `on` and cut off at zero.
        on = mean - self.zero + away * std * std / variance
        at_zero = off - 0.5 * (np.log(extra) + read * read / extra)
        above = log_ndtr(on * np.sqrt(variance / extra) / std) - plain
        return np.asarray(np.where(noisy, -np.logaddexp(at_zero, above), np.where(read > 0, plain, -off)))

    def rough(self) -> Law:
        """A law that outliers do not move: soft-L1 regression of the values, then of their distances."""
        from scipy.optimize import least_squares

        def regress(values: FloatArray, count: int, scale: float) -> FloatArray:
            start = resized(np.array([np.median(values)]), count)
            q = self.basis.q[:, :count]
            found = least_squares(lambda c: q @ c - values, start, loss="soft_l1", f_scale=max(scale, TINY))
            return np.asarray(found.x)

        mean = regress(self.y, min(3, self.basis.count), normal_scale(self.y - np.median(self.y)))
        away = np.abs(self.y - self.basis.at(mean))
        typical = normal_scale(away)
        size = 1.2533 * self.basis.at(regress(away, min(2, self.basis.count), typical / 2))
        size = np.maximum(size, 0.3 * typical)
        inner = np.sqrt(np.maximum(size**2 - self.extra, (0.1 * size) ** 2))
        count = min(2, self.basis.count)
        return mean, np.asarray(np.linalg.lstsq(self.basis.q[:, :count], inner, rcond=None)[0], dtype=np.float64)

    def fit(self, weight: FloatArray, counts: tuple[int, int], start: Law) -> tuple[Law, float]:
        """The law with so many polynomials by maximum likelihood, each value with its weight, and its surprise."""
        used = weight > 0
        law, weight = self.only(used), weight[used]

        def split(both: FloatArray) -> Law:
            return both[: counts[0]], both[counts[0] :]

        both = np.concatenate([resized(part, count) for part, count in zip(start, counts, strict=True)])
        found, value = minimize(lambda both: float(weight @ law.surprise(split(both))), both)
        return split(found), value

    def settle(self, most: tuple[int, int]) -> tuple[BoolArray, Law]:
        """Which values follow a law of this kind, and the law: what lies beyond `REJECT` is left out, by turns."""
        found = self.rough()
        keep = np.abs(self.residuals(found)) < ROUGH
        for _ in range(10):
            found, _surprise = self.fit(keep.astype(float), most, found)
            now = np.abs(self.residuals(found)) < REJECT
            if (now == keep).all():
                break
            keep = now
        return keep, found

    def choose(self, weight: FloatArray, most: tuple[int, int], start: Law, least: int, near: bool = False) -> Law:
        """The law with as many polynomials as the values can tell, each value with its weight.

        With `least` = 0 the mean may be zero; the Bayesian criterion then keeps out what is not significant. With
        `near` only numbers of polynomials are tried that differ by one at most from those of `start`.
        """
        mean, size = (len(part) for part in start) if near else most
        lowest, smallest = (max(least, mean - 1), max(1, size - 1)) if near else (least, 1)
        sizes = [(mean, count) for count in range(smallest, min(most[1], size + 1) + 1)]
        law = select(lambda counts: self.fit(weight, counts, start), sizes, AKAIKE)
        means = [(count, len(law[1])) for count in range(lowest, min(most[0], mean + 1) + 1)]
        return select(lambda counts: self.fit(weight, counts, law), means, AKAIKE if least else bayes(weight))


def select(fit: Callable[[tuple[int, int]], tuple[Law, float]], options: Iterable[tuple[int, int]], cost: float) -> Law:
    """The law with the lowest information criterion.

    Args:
        fit: gives a law of so many coefficients, and its negative log likelihood.
        options: the numbers of coefficients to try.
        cost: of each coefficient.
    """
    fits = [(counts, *fit(counts)) for counts in options]
    return min(fits, key=lambda one: 2 * one[2] + cost * sum(one[0]))[1]


def fit_scale(
    surprise: Callable[[FloatArray], float], counts: Iterable[int], start: FloatArray, cost: float
) -> FloatArray:
    """Weights of the polynomials of a standard deviation, as many as the criterion of `select` allows."""

    def fit(pair: tuple[int, int]) -> tuple[Law, float]:
        found, value = minimize(surprise, resized(start, pair[1]))
        return (np.zeros(0), found), value

    return select(fit, [(0, count) for count in counts], cost)[1]
