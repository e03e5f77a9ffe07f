"""More samples, where there is time for them and the first ones said nothing."""

import pytest

from analogsim.evaluation.journal import Journal
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.judge import judge, rounds
from analogsim.recipes.judge.bench import Bench
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.rounds import Rounds
from analogsim.recipes.judge.sizes import Sizes
from analogsim.recipes.judge.variant import Variant
from tests.recipes.judge.test_program import ONE, Network, data


def test_nothing_is_said_of_few_samples_where_there_is_time_for_more(monkeypatch):
    asked = []

    def sizes(clock, *, times, remedies, layers, available):
        asked.append(available)
        return Sizes(16 if len(asked) == 1 else available, 3, 3, 2, 2, layers)

    monkeypatch.setattr(rounds, "plan", sizes)
    found = judge(Network(), data(), validation=data(seed=1), only=ONE, device="gaussian(std=0.0)", times=("0s",))
    assert found.report.samples == 200
    assert len(asked) == 2
    assert not any("samples are used" in note for note in found.notes)


@pytest.fixture
def made(subject, samples, tmp_path):
    return Rounds(
        bench=Bench(subject, METRICS["accuracy"], Clock(60.0, per_sample=1e-3, fixed=1e-3)),
        base=Variant(),
        judged=samples,
        choosing=samples,
        ages=(1.0, 3600.0),
        chosen_at=3600.0,
        seeds=(0, 100),
        tolerance=0.01,
        only=ONE,
        notes=(),
        tell=lambda text: None,
        show=lambda judgement: None,
        executor=None,
        journal=Journal(tmp_path / "chips.jsonl"),
    )


def test_a_journal_keeps_the_sizes_of_each_round(made, monkeypatch):
    first = made.sizes(1)
    monkeypatch.setattr(rounds, "plan", lambda clock, **_: Sizes(7, 2, 2, 2, 2, 1))
    assert made.sizes(1) == first
    assert made.sizes(2).samples == 7


def test_a_plan_says_which_samples_are_left_out(made):
    plan = made.plan(Sizes(20, 2, 2, 2, 2, 1))
    assert len(plan.test.samples) == 20
    assert (plan.test.first, plan.choice.first) == (0, 100)
    assert plan.found.at == "1h"
    assert [note[:52] for note in plan.found.notes] == [
        "Of the test data 20 of 60 samples are used, at rando",
        "Of the validation data 20 of 60 samples are used, at",
    ]
