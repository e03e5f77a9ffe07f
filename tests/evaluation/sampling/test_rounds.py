from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.evaluation.sampling.over_chips import half_width
from analogsim.evaluation.sampling.rounds import FEWEST, Plan, as_plan, boundary_after, stop_told

ACCURACY, LOSS = METRICS["accuracy"], METRICS["cross_entropy"]


def stopped(values: np.ndarray, plan: Plan) -> int:
    done = 0
    while (look := plan.next_look(values[:done])) > done:
        done = look
    return done


def test_a_number_of_chips_is_judged_at_once() -> None:
    plan = as_plan(None, None, None, 1, ACCURACY)
    assert plan == Plan(25)
    assert plan.next_look(np.zeros((0, 2))) == 25
    assert plan.next_look(np.zeros((25, 2))) == 25


def test_chips_are_judged_until_the_widest_interval_is_narrow() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 3)) * (1, 2, 1)
    plan = Plan(5000, 0.2)
    count = stopped(values, plan)
    assert half_width(values[:count]).max() <= 0.2 < half_width(values[: int(0.9 * count)]).max()
    assert 300 < count < 500, "(1.96 x 2 / 0.2)^2 = 384"
    assert plan.is_met(values[:count])
    assert stop_told(plan, values[:count], "") == ""


def test_the_most_is_the_most_and_is_told() -> None:
    values = np.random.default_rng(0).normal(size=(5000, 1)) / 100
    plan = Plan(40, 0.0005)
    assert stopped(values, plan) == 40
    told = stop_told(plan, values[:40], "%")
    assert told.startswith("after 40 chips the mean is known to ±0.25 points, not to ±0.05 points; that takes about ")
    assert "NaN" not in stop_told(plan, np.full((40, 1), np.nan), "%")


def test_the_same_chips_always_and_few_at_the_end() -> None:
    assert stopped(np.zeros((100, 1)), Plan(100, 0.1)) == FEWEST
    assert stopped(np.full((100, 1), np.nan), Plan(100, 0.1)) == 100


def test_an_interval_that_ends_the_work_holds_the_mean() -> None:
    """2,000 experiments at each precision, 95 % within 4 standard errors (0.5 %) and one point."""
    rng = np.random.default_rng(0)
    for needed in (10, 40, 150):
        plan = Plan(5000, 1.96 / math.sqrt(needed))
        held = 0
        for _ in range(2000):
            values = rng.normal(size=(8 * needed + 60, 1))
            count = stopped(values, plan)
            held += bool(abs(values[:count].mean()) <= half_width(values[:count])[0])
        assert held / 2000 > 0.95 - 4 * 0.005 - 0.01


@pytest.mark.parametrize("precision", [0, -0.1, math.nan, math.inf, True, "0.1", [0.1, 0.2]])
def test_what_is_no_precision(precision: Any) -> None:
    with pytest.raises(ValueError, match=r"evaluate: precision must be a number above 0, such as 0.001, got"):
        as_plan(None, precision, None, 1, LOSS)


def test_a_share_is_less_than_one() -> None:
    with pytest.raises(ValueError, match=r"must be less than 1, got 5; did you mean 0.05"):
        as_plan(None, 5, None, 1, ACCURACY)
    assert as_plan(None, 5, None, 1, LOSS).precision == 5, "of a perplexity, for example"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"chips": 10, "precision": 0.1}, r"chips=10 with a precision is the most .* give 16 or more"),
        ({"samples_per_chip": 0}, r"samples_per_chip must be an integer >= 1, got 0"),
        ({"samples_per_chip": True}, r"samples_per_chip must be an integer >= 1, got True"),
        ({"samples_per_chip": 2.5}, r"samples_per_chip must be an integer >= 1, got 2.5"),
        ({"samples_per_chip": "all"}, r"samples_per_chip must be an integer >= 1, 'auto' or None, got 'all'"),
        ({"samples_per_chip": 5, "together": 2}, r"together=2 with samples_per_chip"),
        ({"samples_per_chip": 5, "metric": METRICS["f1"]}, r"'f1' is computed of all samples together"),
        ({"chips": 0}, r"chips must be an integer >= 1, got 0"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], told: str) -> None:
    given = {"chips": None, "precision": None, "samples_per_chip": None, "together": 1, "metric": ACCURACY, **options}
    with pytest.raises(ValueError, match=told):
        as_plan(**given)


def test_designs_last_until_chips_have_doubled() -> None:
    assert [boundary_after(done, 8) for done in (0, 7, 8, 15, 16, 100)] == [8, 8, 16, 16, 32, 128]
