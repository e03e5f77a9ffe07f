r"""Which units a chip is asked, and what follows from its answers for all of them.

Each unit i is asked with a chance :math:`\pi_i` of its own, independently of all others, and is expected to score
:math:`m_i`. From the scores :math:`d_i` of the units S that were asked the mean over all of them is estimated as

.. math:: \hat\mu = \sum_i w_i m_i + \sum_{i \in S} \frac{w_i (d_i - m_i)}{\pi_i}, \qquad
          \hat v = \sum_{i \in S} (1 - \pi_i) \left(\frac{w_i (d_i - m_i)}{\pi_i}\right)^2

with the weights w of the units. Both are unbiased, the mean and its variance over what might have been asked, whatever
the expectations are: good ones make the variance small.

Source: D. G. Horvitz and D. J. Thompson, J. Amer. Statist. Assoc. 47 (1952); the difference estimator as in C.-E.
Särndal, B. Swensson, J. Wretman, *Model Assisted Survey Sampling* (1992), chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.sampling.units import Places
from analogsim.noise.philox import key_of

EVENLY = 0.1
"""Share of the units that are asked whatever is expected of them, so that no answer weighs more than ten times as much
as it would if all were asked alike: what never failed so far may fail on the next chip."""


@dataclass(frozen=True, eq=False)
class Design:
    """What chips are asked.

    Args:
        chances: of each unit at each time to be asked, ``(times, units)``; 0 for units that do not weigh anything.
        expected: what it is expected to score then, of the same shape.
        weights: its share in the score, ``(units,)``; together 1.
    """

    chances: FloatArray
    expected: FloatArray
    weights: FloatArray

    def numbers(self, seed: int) -> FloatArray:
        """A uniform number for each unit of a chip; it is asked where its chance is larger.

        They are the same at all times, so that what is asked at one is mostly asked at the others too.
        """
        words: NDArray[np.uint64] = np.random.Philox(key=key_of(("samples", str(seed)))).random_raw(len(self.weights))
        return np.asarray((words >> np.uint64(11)) * 2.0**-53)

    def asked(self, seed: int) -> list[Places]:
        """Which units a chip is asked at each time, ascending."""
        numbers = self.numbers(seed)
        return [np.flatnonzero(numbers < chances) for chances in self.chances]

    def estimate(self, time: int, index: Places, scores: FloatArray) -> tuple[float, float]:
        """The mean over all units, and its variance.

        Args:
            time: the number of the time.
            index: the units that were asked then.
            scores: what they scored.
        """
        chances, expected = self.chances[time], self.expected[time]
        apart = self.weights[index] * (scores - expected[index]) / chances[index]
        variance = float(((1 - chances[index]) * apart**2).sum())
        return float(self.weights @ expected + apart.sum()), variance


def through(score: Callable[[float], float], mean: float, variance: float) -> tuple[float, float]:
    """A score that follows from a mean that was estimated, and its variance.

    That of the estimate alone is biased where the score bends: by half its second derivative times the variance. Taken
    at one standard deviation to either side, that is taken out; what is left is of fourth order.

    Args:
        score: of the mean.
        mean: as it was estimated.
        variance: of the estimate.
    """
    here = score(mean)
    if variance == 0:
        return here, 0.0
    step = variance**0.5
    low, high = score(mean - step), score(mean + step)
    return here - ((low - here) + (high - here)) / 2, ((high - low) / 2) ** 2


def chances_for(deviations: FloatArray, weights: FloatArray, sizes: Places, samples: float) -> FloatArray:
    """The chances by which so many samples say most.

    Those are proportional to weight times deviation, over the root of what a unit costs (J. Neyman, J. R. Statist. Soc.
    97 (1934)), up to 1; but for the part that is asked evenly, see `EVENLY`.

    Args:
        deviations: what each unit's score is likely to differ by from what is expected.
        weights: of the units.
        sizes: samples in each of them.
        samples: how many are to be asked, on average; all, if that is as many.

    Returns:
        ``(units,)``; 0 where the weight is.
    """
    there = weights > 0
    if samples >= sizes[there].sum():
        return there.astype(np.float64)
    even = samples * weights / float((weights * sizes).sum())
    wish = weights * deviations / np.sqrt(sizes)
    found = np.minimum(1.0, (1 - EVENLY) * _filled(wish, sizes, samples) + EVENLY * even)
    # what the evenly asked ones did not need, since they are asked anyway
    left = samples / float((found * sizes).sum())
    return np.where(there, np.minimum(1.0, found * max(left, 1.0)), 0.0)


def _filled(wish: FloatArray, sizes: Places, samples: float) -> FloatArray:
    """Chances proportional to what is wished, at most 1, that add up to so many samples."""
    found = np.zeros_like(wish)
    free = wish > 0
    left = samples
    while free.any():
        scaled = wish[free] * (left / float((wish[free] * sizes[free]).sum()))
        found[free] = np.minimum(scaled, 1.0)
        full = free & (found >= 1)
        if not (scaled > 1).any():
            break
        left = samples - float(sizes[full | ((found >= 1) & ~free)].sum())
        free &= found < 1
        if left <= 0:
            break
    return found


def variance_of(chances: FloatArray, deviations: FloatArray, weights: FloatArray) -> float:
    """The variance that an estimate has by a design, if scores differ by these deviations from what is expected."""
    there = chances > 0
    part = (weights[there] * deviations[there]) ** 2
    return float(((1 - chances[there]) / chances[there] * part).sum())
