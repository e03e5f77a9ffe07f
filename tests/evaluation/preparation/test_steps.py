import pytest
from torch import nn

import analogsim
from analogsim.chip.compensation import COMPENSATIONS, Compensations, as_compensations
from analogsim.evaluation.preparation.choice import Choice
from analogsim.evaluation.preparation.steps import find_steps

START = Choice(as_compensations("global+batch-norm"))


def steps(**asked):
    return {step.name: step for step in find_steps(asked.get("copies", 1), faults=asked.get("faults", False))}


def test_what_there_is():
    found = steps()
    assert set(COMPENSATIONS) <= set(found)
    assert {"input-range", "output-bound", "output-bound-calibrated", "percentile"} == set(found) - set(COMPENSATIONS)
    assert all(step.takes for step in found.values())
    prices = {name: step.price for name, step in steps(copies=2, faults=True).items()}
    order = ["input-range", "column", "batch-norm", "remap", "copies-2"]
    assert [prices[name] for name in order] == sorted({prices[name] for name in order})
    assert set(steps(copies=5, faults=True)) - set(found) == {"remap", "remap-signs", "copies-2", "copies-4"}


def test_a_gain_takes_the_place_of_another():
    assert steps()["column"].change(START).compensations.text == "column+batch-norm"
    assert steps()["ranges"].change(START).compensations.text == "global+batch-norm+ranges"
    assert steps()["global"].change(START) == START


@pytest.mark.parametrize(
    ("device", "crossbar", "why"),
    [
        (
            "gaussian",
            "ideal",
            {"global": "does not drift", "percentile": "acts on weights", "copies-2": "acts on weights"},
        ),
        ("pcm(copies=2)", "ideal", {"copies-2": "it is done already", "copies-4": "", "percentile": "", "global": ""}),
        ("pcm", "ideal", {"input-range": "no input converter", "output-bound": "no output converter"}),
        ("pcm", "standard", {"input-range": "", "output-bound": "", "crossbar": "one row of crossbars"}),
        ("pcm", "standard(input_range='learned')", {"input-range": "no input converter", "crossbar": "one row"}),
        ("pcm", "standard(rows=4)", {"crossbar": "", "batch-norm": "has no batch norm"}),
    ],
)
def test_why_there_is_nothing_to_do(device, crossbar, why):
    analog = analogsim.convert(nn.Linear(8, 4), device, crossbar=crossbar)
    found = steps(copies=4)
    for name, reason in why.items():
        told = found[name].why_not(analog)
        assert reason in told
        assert bool(reason) == bool(told)


def test_lines_and_cells():
    found = steps(copies=2, faults=True)
    assert found["remap-signs"].change(Choice(Compensations())).around == "signs"
    assert found["copies-2"].change(Choice(Compensations())).copies == 2


def test_what_may_stay_digital():
    steps = {step.name: step for step in find_steps(1, faults=False, digital=[("a",), ("a", "b", "c", "d")])}
    one, four = steps["digital-1"], steps["digital-4"]
    assert (one.takes, four.takes) == ("'a' digital", "'a', 'b', 'c' and 1 more digital")
    assert four.change(one.change(START)).digital == {"a", "b", "c", "d"}
    assert one.first
    assert not four.first
