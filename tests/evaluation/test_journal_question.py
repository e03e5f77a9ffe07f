from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip.compensation import CalibrationData, as_compensations
from analogsim.evaluation.course import Course
from analogsim.evaluation.journal import describe_question
from analogsim.evaluation.metrics import Metric, as_metric
from analogsim.utils.batches import Data
from tests.evaluation.test_monte_carlo import batches


def course(device: object = "pcm", layer: type[nn.Module] = nn.Tanh, samples: int = 90) -> Course:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), layer(), nn.Linear(8, 4))
    analog = analogsim.convert(model, device)
    place = torch.device("cpu")
    data = CalibrationData(model, batches(), place)
    parts = as_compensations("global"), data, Data(batches(samples=samples), place), as_metric("accuracy")
    return Course(analog, (1.0,), *parts, None, False)


def asked(made: Course, clean: float = 0.5) -> dict[str, Any]:
    return describe_question(made, clean=clean, device="pcm")


def changed(name: str, made: Course) -> Course:
    with torch.no_grad():
        if name == "weights":
            next(made.analog.parameters())[0, 0] += 1e-3
    if name == "metric":
        return replace(made, metric=as_metric("cross_entropy"))
    if name == "score":
        return replace(made, metric=Metric("accuracy", lambda output, target: output[:, 0], unit="%"))
    if name == "compensation":
        return replace(made, compensations=as_compensations("column"))
    return replace(made, **{"times": {"times": (1.0, 60.0)}, "faults": {"faults": lambda seed: None}}.get(name, {}))


@pytest.mark.parametrize("name", ["weights", "times", "metric", "score", "compensation", "faults"])
def test_whatever_changes_is_told(name: str) -> None:
    before, after = asked(course()), asked(changed(name, course()))
    assert before[name] != after[name]
    others = {"metric": {"score"}, "compensation": {"correction"}}.get(name, set())
    assert {key for key in before if before[key] != after[key]} == {name} | others


def test_networks_hardware_and_data_of_another_kind() -> None:
    first = asked(course())
    assert first == asked(course())
    assert first["network"] != asked(course(layer=nn.ReLU))["network"]
    assert first["hardware"] != asked(course(device=[analogsim.Gaussian(0.1)]))["hardware"]
    assert first["data"] != asked(course(samples=89))["data"]
    assert first["calibration"] is None  # nothing is made of it


def test_calibration_counts_where_it_is_used() -> None:
    made = replace(course(), compensations=as_compensations("batch-norm"))
    fewer = replace(made, calibration=replace(made.calibration, loader=batches(samples=60)))
    assert asked(made)["calibration"] != asked(fewer)["calibration"]


def test_what_an_accumulator_took_in_before_does_not_count() -> None:
    class Count:
        total = 0

        def reset(self):
            self.total = 0

        def update(self, output, target):
            self.total += len(target)

        def compute(self):
            return float(self.total)

    used = Count()
    used.update(None, [1, 2])
    used.total = 7
    fresh = Count()
    fresh.reset()
    made = course()
    assert len({asked(replace(made, metric=Metric("n", each)))["score"] for each in (used, fresh)}) == 1


def test_what_a_metric_makes_of_answers_is_part_of_the_question() -> None:
    plain = Metric("own", as_metric("accuracy").score)
    turned = replace(plain, transform=lambda output, target: (-output, target))
    assert asked(replace(course(), metric=plain))["score"] != asked(replace(course(), metric=turned))["score"]
