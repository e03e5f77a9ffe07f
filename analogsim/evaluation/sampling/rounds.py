"""How many chips are judged: a number, or as many as it takes until their mean is known precisely enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from analogsim.errors import InvalidValueError
from analogsim.evaluation.display import FloatArray, small
from analogsim.evaluation.metrics import Metric
from analogsim.evaluation.sampling.over_chips import half_width
from analogsim.utils.checks import MOST_TURNS, as_number, check_whole
from analogsim.utils.text import in_short

SamplesPerChip = int | Literal["auto"] | None
"""How many samples a chip is asked, ``"auto"`` for as many as it is worth, None for all."""

CHIPS = 25
"""How many chips are judged where nobody says."""
MOST_CHIPS = 10_000
"""How many are judged at most where only a precision is asked for."""
FEWEST = 16
"""Chips that are judged before their spread is believed: with fewer an interval that ends the work holds the mean less
often than it says."""


@dataclass(frozen=True)
class Plan:
    """How many chips are judged, and how much of the data each of them is asked.

    Args:
        chips: how many; with a precision the most.
        precision: half the width of the 95 % interval of the mean that is wanted at every time; None: so many chips.
        samples: how many samples a chip is asked, see `SamplesPerChip`.
    """

    chips: int
    precision: float | None = None
    samples: SamplesPerChip = None

    def next_look(self, values: FloatArray) -> int:
        """How many chips there are to be in all before the next look; as many as there are where these are enough.

        Args:
            values: of the chips so far, ``(chips, times)``.
        """
        done = len(values)
        if self.precision is None or done >= self.chips:
            return max(self.chips, done)
        if done < FEWEST:
            return min(FEWEST, self.chips)
        half = float(half_width(values).max())
        if half <= self.precision:
            return done
        # By then it is to be enough, if what is known of the spread holds; but not further than twice as far.
        growth = (half / self.precision) ** 2
        wanted = math.ceil(done * growth) if growth < 2 else 2 * done  # the latter also where a score is NaN
        return min(self.chips, max(wanted, done + 1 + done // 20))

    def describe_sampling(self, first: int) -> dict[str, int | str] | None:
        """What chips' answers depend on beside what they are asked, for a journal; None where they are asked all.

        Args:
            first: the first chip: what later ones are asked follows from what earlier ones answered.
        """
        return None if self.samples is None else {"samples": self.samples, "first": first}

    def is_met(self, values: FloatArray) -> bool:
        """Whether the mean is known as precisely as was asked for; also where nothing was."""
        return self.precision is None or bool(half_width(values).max() <= self.precision)


def as_plan(
    chips: int | None, precision: float | None, samples_per_chip: SamplesPerChip, together: int, metric: Metric
) -> Plan:
    """The plan that is meant by arguments of `analogsim.evaluate`.

    Args:
        chips: how many, or the most.
        precision: of the mean.
        samples_per_chip: of the data.
        together: chips that go through the network at once.
        metric: what chips are judged by.

    Raises:
        ValueError: one of them is out of range, or two do not go together; samples of a metric that part of the data
            does not tell.
    """
    usual = CHIPS if precision is None else MOST_CHIPS
    count = usual if chips is None else check_whole(chips, "evaluate: chips", 1, MOST_TURNS)
    if precision is not None:
        precision = checked_precision(precision, metric.unit, "evaluate: precision")
        if count < FEWEST:
            raise InvalidValueError(
                f"evaluate: chips={count} with a precision is the most that may be judged, and the spread of fewer "
                f"than {FEWEST} is not known; give {FEWEST} or more, or leave out one of them"
            )
    samples = samples_per_chip
    if samples is None:
        return Plan(count, precision)
    if isinstance(samples, str):
        if samples != "auto":
            raise InvalidValueError(
                f"evaluate: samples_per_chip must be an integer >= 1, 'auto' or None, got {in_short(samples)}"
            )
    else:
        samples = check_whole(samples, "evaluate: samples_per_chip", 1)
    if together > 1:
        raise InvalidValueError(
            f"evaluate: together={together} with samples_per_chip, by which each chip is asked samples of its own; "
            "leave out one of them"
        )
    if not metric.is_average:
        raise InvalidValueError(
            f"evaluate: the metric {metric.name!r} is computed of all samples together, so that some of them do not "
            "tell what it is on all; leave out samples_per_chip, or give a function that scores each sample"
        )
    return Plan(count, precision, samples)


def checked_precision(precision: object, unit: str, what: str) -> float:
    """Half the width of an interval, in the metric's unit.

    Args:
        precision: as given.
        unit: of the metric; shares ("%") lie between 0 and 1, and so does what is between two of them.
        what: it is, for the message.

    Raises:
        ValueError: it is no number above 0, or one that every score of a share lies within.
    """
    number = as_number(precision)
    if not 0 < number < math.inf:
        raise InvalidValueError(f"{what} must be a number above 0, such as 0.001, got {in_short(precision)}")
    if unit == "%" and number >= 1:
        raise InvalidValueError(
            f"{what} is a share, 0.001 for 0.1 points of accuracy, and must be less than 1, got {in_short(precision)}"
            + (f"; did you mean {number / 100:g}?" if number <= 100 else "")
        )
    return number


def stop_told(plan: Plan, values: FloatArray, unit: str) -> str:
    """What is to be said where the most chips were judged and the mean is not known as precisely; empty for nothing."""
    if plan.precision is None or plan.is_met(values):
        return ""
    half = float(half_width(values).max())
    told = f"after {len(values)} chips the mean is known to ±{small(half, unit)}, not to ±{small(plan.precision, unit)}"
    if not math.isfinite(half):
        return told
    needed = math.ceil(len(values) * (half / plan.precision) ** 2)
    return f"{told}; that takes about {needed} chips: give more, or a larger precision"


def boundary_after(chips: int, first: int) -> int:
    """Up to how many chips the design of the samples stays as it is: twice the first number, four times, and so on."""
    boundary = first
    while boundary <= chips:
        boundary *= 2
    return boundary
