"""What every chip goes through, and what comes of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import nn

from analogsim.chip.compensation import COMPENSATIONS, Adjustment, CalibrationData, Compensations, Renew
from analogsim.chip.lifecycle import Faults, drift, programmed
from analogsim.chip.on_chip import OnChip, with_chip_in_hand
from analogsim.chip.stacked_chips import Chips
from analogsim.errors import InvalidTypeError
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Metric
from analogsim.evaluation.sampling.design import Design, through
from analogsim.evaluation.sampling.unit_scores import noting
from analogsim.evaluation.sampling.units import Asked, Reader, Units
from analogsim.evaluation.scores import Averaged
from analogsim.evaluation.scoring import Ask, Batches, Scores, ask_alone, find_alone, score_networks
from analogsim.layers.module import matrices_of
from analogsim.layers.state import Uses
from analogsim.utils.batches import Data, Inputs
from analogsim.utils.nonfinite import Source
from analogsim.utils.times import label

FaultsOfChips = Faults | Callable[[int], Faults | None] | None
"""Cells known to be stuck: the same ones on each chip, or by a chip's seed; None for none."""


@dataclass(frozen=True)
class ChipScores:
    """What a chip scores.

    Args:
        seed: the chip.
        values: its scores, at each time.
        idle: the names of the analog layers that had no part in its answers.
        details: what the metric keeps beside its scores, at each time; empty where it keeps nothing. Of a chip that was
            asked part of the data the units that were asked, and what they scored, ``(2, units)``.
        variances: of the values at each time, by which part it was; empty of chips that were asked everything.
    """

    seed: int
    values: tuple[float, ...]
    idle: tuple[str, ...] = ()
    details: tuple[FloatArray, ...] = field(default=(), compare=False)
    variances: tuple[float, ...] = ()


@dataclass(frozen=True)
class Part:
    """What part of the data chips are asked.

    Args:
        units: what the data consist of.
        design: which of them a chip is asked.
    """

    units: Units
    design: Design


@dataclass(frozen=True)
class Course:
    """What every chip goes through.

    Args:
        analog: the twin.
        times: its ages, seconds.
        compensations: made at each of them.
        calibration: what they are made of.
        data: what is asked at each age.
        metric: what the answers are judged by.
        faults: known to be stuck.
        masked: whether minus infinity stands in the answers of the digital network.
        on_chip: what is done with each chip at each age before it is judged; None for nothing.
        part: of the data, which each chip is asked; None: all.
    """

    analog: nn.Module
    times: tuple[float, ...]
    compensations: Compensations
    calibration: CalibrationData
    data: Data
    metric: Metric
    faults: FaultsOfChips
    masked: bool
    on_chip: OnChip | None = None
    part: Part | None = None

    @property
    def is_constant(self) -> bool:
        """Whether a chip answers the same at every age, so that it is judged once.

        Nothing ages, nothing is drawn in each use (read noise, noise behind the converters), and what is done at each
        age is known to do the same: compensations that have a name, and nothing of the user's.
        """
        states = [matrix.analog for matrix in matrices_of(self.analog)]
        moving = any(
            state.device.drifts or state.device.is_noisy_in_use or state.crossbar.output_noise for state in states
        )
        known = {type(part) for part in COMPENSATIONS.values()}
        ours = all(type(part) in known for part in self.compensations.adjustments)
        return not moving and ours and self.on_chip is None

    @property
    def ages(self) -> tuple[float, ...]:
        """At which ages a chip is judged."""
        return self.times[:1] if self.is_constant else self.times

    def judge(self, seeds: Sequence[int], *, together: bool = False) -> list[ChipScores]:
        """The scores of chips.

        Args:
            seeds: which ones.
            together: whether they go through the network at once.
        """
        states = [matrix.analog for matrix in matrices_of(self.analog)]
        if together:
            uses = Uses(states)
            found = self._at_all_times(self._side_by_side(seeds))
            idle = tuple(state.name for state in uses.idle)
            return [_of_place(seed, place, found, idle) for place, seed in enumerate(seeds)]
        judged = []
        for seed in seeds:
            uses = Uses(states)
            found = self._of_one(seed)
            idle = tuple(state.name for state in uses.idle)
            if self.part is None:
                judged.append(_of_place(seed, 0, self._at_all_times(found), idle))
            else:
                judged.append(self._from_part(seed, self.part, found, idle))
        return judged

    def _at_all_times(self, found: list[Scores]) -> list[Scores]:
        """What was found, for each time."""
        return found * len(self.times) if len(found) < len(self.times) else found

    def _from_part(self, seed: int, part: Part, found: Sequence[Scores], idle: tuple[str, ...]) -> ChipScores:
        """What follows for a chip from its scores on part of the data."""
        of_mean = cast(Averaged, self.metric.begin(self.data.device)).of_mean
        values, variances, details = [], [], []
        for time, (index, scores) in enumerate(zip(part.design.asked(seed), found, strict=True)):
            each = part.units.scores_of(index, scores.details[0] if scores.details else np.zeros((0, 4)))
            value, variance = through(of_mean, *part.design.estimate(time, index, each))
            values.append(value)
            variances.append(variance)
            details.append(np.stack((index.astype(np.float64), each)))
        asked = any(len(each.details) for each in found)
        times = len(self.times) if self.is_constant else 1
        return ChipScores(
            seed, tuple(values * times), idle if asked else (), tuple(details * times), tuple(variances * times)
        )

    def _questions(self, seed: int) -> tuple[Metric, Sequence[Batches]]:
        """What the answers of a chip are judged by, and what it is asked at each age."""
        if self.part is None:
            return self.metric, [self.data] * len(self.ages)
        reader = Reader(self.data, self.part.units)
        asked = self.part.design.asked(seed)
        reader.hold(functools.reduce(np.union1d, asked))
        return noting(self.metric, whole=False), [Asked(reader, index) for index in asked]

    def _of_one(self, seed: int) -> list[Scores]:
        """What a chip scores at each age."""
        analog, gain = self.analog, self.compensations.gain
        metric, questions = self._questions(seed)
        found = []
        with programmed(analog, seed, faults=self._faults_of(seed)):
            for t, data in zip(self.ages, questions, strict=True):
                drift(analog, t, compensation=gain)
                # Undone after each age: ranges must not be measured through the batch norm of an earlier one.
                with ExitStack() as stack:
                    adjusted = [
                        _entered(stack, adjustment, analog, self.calibration)
                        for adjustment in self.compensations.adjustments
                    ]
                    with torch.no_grad():
                        for renew in adjusted:
                            renew()
                    stack.enter_context(with_chip_in_hand(analog, self.on_chip, seed, t))
                    find = find_alone(analog, _title(seed, t))
                    found.append(score_networks(ask_alone(analog), data, metric, find, masked=self.masked))
        return found

    def _side_by_side(self, seeds: Sequence[int]) -> list[Scores]:
        """What several chips score at each age, taken through the network at once."""
        chips = Chips(self.analog, seeds, self._faults_of)
        found = []
        for t in self.ages:
            chips.drift(t, self.compensations.gain)
            find = partial(self._find_beside, seeds, t)
            found.append(score_networks(chips.answers, self.data, self.metric, find, masked=self.masked))
        return found

    def _find_beside(self, seeds: Sequence[int], t: float, place: int, inputs: Inputs, ask: Ask) -> tuple[str, Source]:
        """See `Find`: of one of several chips, by itself."""
        seed = seeds[place]
        gain = self.compensations.gain
        with programmed(self.analog, seed, t, compensation=gain, faults=self._faults_of(seed)):
            return find_alone(self.analog, _title(seed, t))(place, inputs, ask)

    def _faults_of(self, seed: int) -> Faults | None:
        return self.faults(seed) if callable(self.faults) else self.faults


def _of_place(seed: int, place: int, found: Sequence[Scores], idle: tuple[str, ...]) -> ChipScores:
    """The scores of one chip, of those of several at each time."""
    values = tuple(each.values[place] for each in found)
    return ChipScores(seed, values, idle, tuple(each.details[place] for each in found if each.details))


def _title(seed: int, t: float) -> str:
    return f"chip {seed} after {label(t)}"


def _entered(stack: ExitStack, adjustment: Adjustment, analog: nn.Module, data: CalibrationData) -> Renew:
    """What makes an adjustment on the chip as it is, until the stack is left."""
    block = adjustment.on_chip(analog, data)
    renew = stack.enter_context(block) if hasattr(block, "__exit__") else None
    if not callable(renew):
        got = "no block" if renew is None and not hasattr(block, "__exit__") else f"a block that gives {renew!r}"
        raise InvalidTypeError(
            f"evaluate: on_chip of the compensation {adjustment.name!r} must be a @contextmanager that yields a "
            f"function which makes the correction, got {got}"
        )
    return renew
