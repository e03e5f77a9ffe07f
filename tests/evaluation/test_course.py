from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.compensation import CalibrationData, as_compensations
from analogsim.chip.lifecycle import Faults
from analogsim.evaluation.course import Course
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Metric, as_metric
from analogsim.utils.batches import Data
from tests.evaluation.test_monte_carlo import batches


class Half(nn.Module):
    """One of its layers has no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x):
        return self.used(x)


def course(faults=None) -> Course:
    analog = analogsim.convert(Half(), "pcm")
    digital = analogsim.to_digital(analog)
    place = next(digital.parameters()).device
    data = CalibrationData(digital, None, place)
    parts = as_compensations("global"), data, Data(batches(), place), as_metric("cross_entropy")
    return Course(analog, (1.0, 3600.0), *parts, faults, False)


def test_each_chip_says_which_layers_had_no_part() -> None:
    judged = course().judge([4, 2])
    assert [chip.seed for chip in judged] == [4, 2]
    assert all(len(chip.values) == 2 and chip.idle == ("idle",) for chip in judged)


def test_several_at_once_are_those_one_by_one() -> None:
    made = course()
    one, two = made.judge([0, 1]), made.judge([0, 1], together=True)
    assert [chip.idle for chip in two] == [("idle",)] * 2
    for a, b in zip(one, two, strict=True):
        assert all(abs(x - y) < 1e-5 for x, y in zip(a.values, b.values, strict=True))


def test_faults_may_depend_on_the_chip() -> None:
    asked = []

    def faults(seed: int) -> Faults | None:
        asked.append(seed)
        return None

    course(faults).judge([3, 5])
    assert asked == [3, 5]


class Kept:
    """A score that keeps all answers beside it."""

    def reset(self) -> None:
        self.seen: list[Tensor] = []

    def update(self, output: Tensor, target: Tensor, /) -> None:
        self.seen.append(output)

    def compute(self) -> float:
        return float(torch.cat(self.seen).mean())

    def details(self) -> FloatArray:
        return torch.cat(self.seen).double().numpy()


def test_what_a_metric_keeps_comes_with_each_chip_and_time() -> None:
    made = replace(course(), metric=Metric("mean", Kept()))
    for together in (False, True):
        for chip in made.judge([0, 1], together=together):
            assert len(chip.details) == len(chip.values) == 2
            for value, kept in zip(chip.values, chip.details, strict=True):
                assert abs(kept.mean() - value) < 1e-6
