r"""Mean, spread and quantiles over chips, also of chips that were asked part of the data.

The estimates of such chips are spread by :math:`T = \sigma^2 + v`, from chip to chip and by which samples they were
asked. The second part is known of each chip (`analogsim.evaluation.sampling`), so that the first is what is left,
without bias. A quantile is taken of the estimates drawn together around their mean by :math:`\sqrt{\sigma^2 / T}`: that
of the chips, where these and what the samples bring are spread by one law, such as the normal one. Skewness is carried
over in part: :math:`(\sigma^2 / T)^{3/2}` of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogsim.evaluation.display import FloatArray

SURE = 1.0
"""How many times its own standard error the variance from chip to chip must be, so that quantiles follow from it."""


@dataclass(frozen=True, eq=False)
class Sampled:
    """Of chips that were asked part of the data: how much of it, and how sure their scores are.

    Args:
        variances: of the scores, by which samples were asked, ``(chips, times)``.
        asked: how many samples, ``(chips, times)``.
        wanted: how many were to be; ``"auto"`` where that was left open.
    """

    variances: FloatArray
    asked: NDArray[np.int64]
    wanted: int | str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sampled):
            return NotImplemented
        same = np.array_equal(self.variances, other.variances) and np.array_equal(self.asked, other.asked)
        return same and self.wanted == other.wanted

    def at(self, chips: Any, times: Any) -> Sampled:
        """That of some chips and times, as numpy indexes them."""
        return Sampled(self.variances[chips][:, times], self.asked[chips][:, times], self.wanted)

    @classmethod
    def merged(cls, parts: Sequence[Sampled | None], order: NDArray[np.int64]) -> Sampled | None:
        """That of all chips of several; None where they have none.

        Args:
            parts: those of some chips each, or None all of them.
            order: in which the chips of all are to stand.
        """
        known = [part for part in parts if part is not None]
        if not known:
            return None
        wanted = {part.wanted for part in known}
        variances, asked = (np.concatenate([getattr(part, name) for part in known]) for name in ("variances", "asked"))
        return cls(variances[order], asked[order], wanted.pop() if len(wanted) == 1 else "auto")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {"variances": self.variances.tolist(), "asked": self.asked.tolist(), "wanted": self.wanted}

    @classmethod
    def from_dict(cls, data: Any) -> Sampled:
        """Its inverse.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        variances = np.asarray(data["variances"], dtype=np.float64)
        return cls(variances, np.asarray(data["asked"], dtype=np.int64), data["wanted"])


def half_width(values: FloatArray, confidence: float = 0.95) -> FloatArray:
    """Half the width of the confidence interval of the mean (Student's t over chips), ``(times,)``; NaN for one chip.

    Args:
        values: ``(chips, times)``; of chips that were asked part of the data their estimates, whose spread has both
            parts.
        confidence: that the mean lies within.
    """
    from scipy.stats import t as student

    chips = len(values)
    if chips < 2:
        return np.full(values.shape[1], np.nan)
    factor = float(student.ppf((1 + confidence) / 2, chips - 1))
    return np.asarray(factor * values.std(axis=0, ddof=1) / np.sqrt(chips))


def chip_variance(values: FloatArray, sampled: Sampled | None) -> FloatArray:
    """The variance from chip to chip at each time, unbiased: also below 0 by chance; NaN for one chip."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    seen = values.var(axis=0, ddof=1)
    return np.asarray(seen if sampled is None else seen - sampled.variances.mean(axis=0))


def quantile(values: FloatArray, sampled: Sampled | None, q: float) -> FloatArray:
    """The q-quantile over chips at each time; NaN where samples are too few to tell, see `chips_needed`."""
    if sampled is None or not sampled.variances.any():
        return np.asarray(np.quantile(values, q, axis=0))
    mean = values.mean(axis=0)
    share = _chips_share(values, sampled)
    drawn = mean + (values - mean) * np.sqrt(np.maximum(share, 0))
    return np.where(_is_sure(values, sampled, share), np.quantile(drawn, q, axis=0), np.nan)


def quantile_interval(values: FloatArray, sampled: Sampled | None, q: float, confidence: float) -> FloatArray:
    """A confidence interval of the q-quantile, ``(2, times)``.

    Of scores on all the data from their order, whatever their law: an end is infinite where there are too few chips to
    have one. Of estimates from the errors of mean and variance, as normal numbers have them; NaN where the quantile is.
    """
    from scipy.stats import binom, norm

    chips = len(values)
    if sampled is None or not sampled.variances.any():
        lower = int(binom.ppf((1 - confidence) / 2, chips, q))
        upper = int(binom.ppf((1 + confidence) / 2, chips, q)) + 1
        edge = np.full((1, values.shape[1]), np.inf)
        ordered = np.concatenate((-edge, np.sort(values, axis=0), edge))
        return np.stack((ordered[lower], ordered[min(upper, chips + 1)]))
    found = quantile(values, sampled, q)
    seen = values.var(axis=0, ddof=1)
    share = np.where(np.isnan(found), np.nan, _chips_share(values, sampled))
    distance = found - values.mean(axis=0)
    factor = float(norm.ppf((1 + confidence) / 2))
    # That of the mean, and of the order of so many numbers beside what mean and variance say of it.
    z = float(norm.ppf(q))
    order = q * (1 - q) / float(norm.pdf(z)) ** 2 - 1 - z**2 / 2 if 0 < q < 1 else np.inf
    of_mean = factor * np.sqrt(seen * (1 + order * share) / chips)
    # The variance has an interval, of which the root is not as wide to both sides.
    error = factor * np.sqrt(2 / (chips - 1)) / share
    wider, narrower = (distance * (np.sqrt(np.maximum(1 + side * error, 0)) - 1) for side in (1, -1))
    low, high = np.minimum(wider, narrower), np.maximum(wider, narrower)
    return np.stack((found - np.hypot(of_mean, low), found + np.hypot(of_mean, high)))


def chips_needed(values: FloatArray, sampled: Sampled) -> list[int | None]:
    """How many chips, asked as these were, a quantile takes at each time; None where their spread is not seen."""
    share = _chips_share(values, sampled)
    return [int(np.ceil(1 + 2 * (SURE / each) ** 2)) if each > 0 else None for each in share.tolist()]


def _chips_share(values: FloatArray, sampled: Sampled) -> FloatArray:
    """The share of the variance that is from chip to chip; where nothing varies, all of it."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    seen = values.var(axis=0, ddof=1)
    return np.asarray(np.divide(chip_variance(values, sampled), seen, out=np.ones_like(seen), where=seen > 0))


def _is_sure(values: FloatArray, sampled: Sampled, share: FloatArray) -> NDArray[np.bool_]:
    """Whether the variance from chip to chip is more than it may be by chance: its error is that of the whole."""
    if len(values) < 2:
        return np.zeros(values.shape[1], dtype=bool)
    exact = ~sampled.variances.any(axis=0)
    return np.asarray(exact | (share >= SURE * np.sqrt(2 / (len(values) - 1))))
