r"""What is learned of the units from the chips that were asked, and which units the next chips are asked.

What a unit scores on a chip differs from what it scores on the network without errors; of that difference e the mean
over chips is what is expected, and its standard deviation says how often the unit is worth asking. Both are told by the
unit's own answers and, until there are enough of them, by those of the units that are as close to an error as it is:

.. math:: m = \frac{\sum e + \lambda \mu_b}{k + \lambda}, \qquad
          s^2 = \frac{\sum (e - m)^2 + \lambda\, E_b (e - m)^2}{k + \lambda}

with the k answers of the unit, the moments of its neighbours b (estimated with the reciprocal chances as weights), and
:math:`\lambda` = `PRIOR`. Wrong ones cost samples, and bias nothing (`design`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.sampling.design import Design, chances_for, variance_of
from analogsim.evaluation.sampling.units import Places, Units

FIRST = 8
"""Chips that are asked before anything is known of them; after that the design is made anew whenever their number has
doubled."""
PRIOR = 4.0
"""How many answers of its own weigh as much as those of a unit's neighbours."""
NEIGHBOURS = 20
"""Into how many groups units are put by how close they are to an error."""
NOISE = 2.5
"""How many times the variance from chip to chip the samples may bring to a chip's estimate, where their number is
chosen. With r of it a mean takes 1 + r times as many chips, each with v / (r sigma^2) samples: (1 + r) / r times as
many samples as the fewest that any number gives. And a chip takes time, and the spread of the chips has to be seen."""
MOST_NOISE = 5.0
"""The same at times at which chips differ less than at the worst one, whose chips are enough for them anyway."""
_FIRST_SHARE = 0.2  # of the samples, that the first chips are asked
_FEWEST = 64  # samples of a chip, where their number is chosen
_SAFE = 0.06  # deviation at first of what is far from an error, beside what is next to one
_MOST_FIRST = 512  # samples that are taken as a whole at first


@dataclass(frozen=True, eq=False)
class Answers:
    """What a chip answered at one time.

    Args:
        index: the units that it was asked, ascending.
        scores: what they scored.
    """

    index: Places
    scores: FloatArray


@dataclass
class Learned:
    """What is known of units.

    Args:
        units: all of them.
        times: at how many ages chips are asked.
        samples: how many samples a chip is asked at each of them; None: as many as it is worth.
        means: of the chips so far at each time, as they were estimated.
        variances: of these estimates.
    """

    units: Units
    times: int
    samples: int | None
    means: list[FloatArray] = field(default_factory=list)
    variances: list[FloatArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.times, len(self.units))
        self._count, self._sum, self._square = np.zeros((3, *shape))
        self._weighted = np.zeros((3, *shape))  # the same with reciprocal chances
        # those that errors change alike lie beside each other
        order = np.argsort(self.units.clean if self.units.margin is None else self.units.margin, kind="stable")
        self._groups = np.array_split(order, min(NEIGHBOURS, len(order)))

    def take(self, design: Design, chips: Sequence[Sequence[Answers]]) -> None:
        """Take in what chips answered, at each time, by a design."""
        for answers in chips:
            found = [design.estimate(time, each.index, each.scores) for time, each in enumerate(answers)]
            self.means.append(np.array([mean for mean, _ in found]))
            self.variances.append(np.array([variance for _, variance in found]))
            for time, each in enumerate(answers):
                error = each.scores - self.units.clean[each.index]
                weight = 1 / design.chances[time, each.index]
                for power, (plain, weighted) in enumerate(
                    zip((self._count, self._sum, self._square), self._weighted, strict=True)
                ):
                    plain[time, each.index] += error**power
                    weighted[time, each.index] += weight * error**power

    def design(self) -> Design:
        """What the next chips are asked."""
        weights = self.units.weight
        if not self.means:
            chances = self._first()
            expected = np.broadcast_to(self.units.clean, (self.times, len(self.units)))
            return Design(np.broadcast_to(chances, expected.shape), expected, weights)
        models = [self._model(time) for time in range(self.times)]
        expected, deviations = (np.stack(part) for part in zip(*models, strict=True))
        if self.samples is not None:
            counts: Sequence[float] = [self.samples] * self.times
        else:
            counts = [
                self._samples_for(each, wanted) for each, wanted in zip(deviations, self._noise_wanted(), strict=True)
            ]
        chances = np.stack(
            [chances_for(each, weights, self.units.size, n) for each, n in zip(deviations, counts, strict=True)]
        )
        return Design(chances, expected, weights)

    def _first(self) -> FloatArray:
        """The chances at first: units whose answer is nearly another one are asked most."""
        units = self.units
        samples: float = units.samples
        if self.samples is not None:
            samples = self.samples
        elif samples > _MOST_FIRST:
            samples = max(_FIRST_SHARE * samples, _MOST_FIRST)
        deviations = np.ones(len(units))
        if units.margin is not None:
            near = np.abs(units.margin)
            deviations = np.exp(-near / max(np.quantile(near, 0.25), 1e-12)) + _SAFE
        return chances_for(deviations, units.weight, units.size, samples)

    def _model(self, time: int) -> tuple[FloatArray, FloatArray]:
        """What each unit is expected to score at a time, and by how much it may differ from that."""
        count, total, square = self._count[time], self._sum[time], self._square[time]
        weighted = self._weighted[:, time]
        overall = weighted[2].sum() / max(weighted[0].sum(), 1.0)
        mean, moment = np.zeros(len(count)), np.zeros(len(count))
        for group in self._groups:
            ones, first, second = weighted[:, group].sum(1)
            asked = count[group].sum()
            # one answer more, as all others are: nothing is never wrong because it was not so far
            mean[group] = asked * first / max(ones, 1e-300) / (asked + 1)
            moment[group] = (asked * second / max(ones, 1e-300) + overall) / (asked + 1)
        known = count + PRIOR
        found = (total + PRIOR * mean) / known
        spread = square - 2 * found * total + count * found**2 + PRIOR * (moment - 2 * found * mean + found**2)
        return self.units.clean + found, np.sqrt(np.maximum(spread, 0) / known)

    def _noise_wanted(self) -> FloatArray:
        """The variance that samples may bring to a chip's estimate at each time.

        So that all times are known equally well with the chips that the worst of them needs, and the percentile too.
        """
        chips = self.spread()
        worst = (1 + NOISE) * chips.max()
        return np.asarray(np.clip(worst - chips, NOISE * chips, MOST_NOISE * chips))

    def spread(self) -> FloatArray:
        """The variance from chip to chip at each time, without that of the samples; not less than its own error.

        Chips that were asked more count more, as by R. DerSimonian, N. Laird, Control. Clin. Trials 7 (1986).
        """
        means, noise = np.stack(self.means), np.stack(self.variances)
        if len(means) < 2:
            return np.asarray(noise.mean(0))
        found = np.maximum(means.var(axis=0, ddof=1) - noise.mean(0), 0)
        for _ in range(2):
            weight = 1 / np.maximum(found + noise, 1e-300) ** 2
            share = weight / weight.sum(0)
            apart = (means - (share * means).sum(0)) ** 2
            freedom = 1 - (share**2).sum(0)
            error = np.sqrt(2 / weight.sum(0))
            found = np.maximum((share * apart).sum(0) / np.maximum(freedom, 1e-12) - (share * noise).sum(0), error)
        return np.asarray(found)

    def _samples_for(self, deviations: FloatArray, noise: float) -> float:
        """How many samples leave so much noise."""
        units = self.units
        low, high = min(_FEWEST, units.samples), units.samples
        while high - low > 1:
            middle = (low + high) // 2
            chances = chances_for(deviations, units.weight, units.size, middle)
            if variance_of(chances, deviations, units.weight) > noise:
                low = middle
            else:
                high = middle
        return float(high if low > _FEWEST else low)
