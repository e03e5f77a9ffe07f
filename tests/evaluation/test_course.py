from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Gaussian, ReadNoise
from analogsim.chip import Adjustment
from analogsim.chip.compensation import CalibrationData, as_compensations
from analogsim.chip.lifecycle import Faults
from analogsim.evaluation.course import Course
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Metric, as_metric
from analogsim.evaluation.report import Report
from analogsim.utils.batches import Data
from tests.evaluation.test_monte_carlo import batches, net


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


class Renewed(Adjustment):
    """What a user makes on a chip, which may be other than before at each age."""

    name = "renewed"

    @contextmanager
    def on_chip(self, analog: nn.Module, data: CalibrationData) -> Iterator[Callable[[], None]]:
        yield lambda: None


STEADY: list[Any] = ["gaussian(std=0.05)", ["quantization", "stuck-at"]]


@pytest.mark.parametrize("device", STEADY, ids=str)
@pytest.mark.parametrize("together", [1, 2])
def test_what_does_not_change_with_time_is_judged_once(device: Any, together: int) -> None:
    analog, calls = analogsim.convert(net(), device), []
    analog.register_forward_hook(lambda *_: calls.append(1))
    options: dict[str, Any] = {"chips": 2, "metric": "cross_entropy", "together": together}
    once = analogsim.evaluate(analog, batches(90), times=["1h"], **options)
    of_one_time = len(calls)
    report = analogsim.evaluate(analog, batches(90), times=["1s", "1h", "1y"], **options)
    assert len(calls) == 2 * of_one_time
    np.testing.assert_array_equal(report.values, once.values.repeat(3, axis=1))
    assert report.constant
    assert str(report).endswith("; no change with time, judged once")
    assert Report.from_dict(report.to_dict()) == report
    assert "judged once" not in str(once), "there is nothing to tell of a single time"


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("pcm", {}),
        ([Gaussian(0.1), ReadNoise(0.1)], {}),
        ("gaussian", {"crossbar": analogsim.Crossbar(output_noise=0.1, input_range=1.0)}),
        ("gaussian", {"on_chip": lambda analog, seed, t: None}),
        ("gaussian", {"compensation": Renewed(), "calibration": [batches()[0][0]]}),
    ],
    ids=["drift", "read noise", "output noise", "on_chip", "an adjustment of one's own"],
)
def test_what_may_change_is_judged_at_each_time(device: Any, options: dict[str, Any]) -> None:
    options = dict(options)
    analog, calls = analogsim.convert(net(), device, crossbar=options.pop("crossbar", "ideal")), []
    analog.register_forward_hook(lambda *_: calls.append(1))
    of: list[int] = []
    for times in (["1s"], ["1s", "1h"]):
        report = analogsim.evaluate(analog, batches(90), chips=2, times=times, **options)
        of.append(len(calls) - sum(of))
    assert of[1] > of[0]
    assert not report.constant
    assert "constant" not in report.to_dict()
