from __future__ import annotations

import numpy as np
import pytest
import torch

from analogsim.evaluation import Metric
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.study.criterion import Criterion, all_times, criterion

ERROR = Metric("error", lambda output, target: (output - target).abs(), unit="dB", higher_is_better=False)


def rule(metric: Metric, *settings: str) -> Criterion:
    return criterion(load_toml(StudyConfig, None, list(settings)), metric)


def test_the_direction_is_that_of_the_metric() -> None:
    high, low = rule(METRICS["accuracy"]), rule(ERROR)
    assert (high.direction, high.directions, high.names) == ("maximize", ["maximize"], ["drifted accuracy"])
    assert (low.direction, low.directions, low.names) == ("minimize", ["minimize"], ["drifted error"])
    front = rule(ERROR, "study.pareto=true")
    assert (front.directions, front.names) == (["minimize", "minimize"], ["clean error", "drifted error"])
    assert (high.best([0.1, 0.9]), low.best([0.1, 0.9])) == (0.9, 0.1)
    assert (high.time, rule(ERROR, "evaluation.validation_time=24h").time) == ("1d", "1d")
    nobody_knows = Metric("mine", lambda output, target: torch.zeros(()))
    with pytest.raises(ValueError, match=r"tune: it is not known whether a higher 'mine' is better.*Metric\('mine'"):
        rule(nobody_knows)


def test_percentiles_are_counted_from_the_bad_end() -> None:
    scores = np.arange(101.0)
    mean = "study.over_chips=mean"
    assert rule(ERROR, mean).value(scores) == rule(METRICS["accuracy"], mean).value(scores) == 50
    for percentile in (0, 5, 100):
        setting = f"study.percentile={percentile}"
        assert rule(METRICS["accuracy"], setting).value(scores) == percentile
        assert rule(ERROR, setting).value(scores) == 100 - percentile
    assert rule(METRICS["accuracy"], "study.percentile=5").over_chips == "5th percentile of chips"
    assert rule(ERROR, "study.percentile=5").over_chips == "95th percentile of chips"
    assert rule(ERROR, mean).over_chips == "mean over chips"


def test_mean_and_worst_chips_count_half_each_where_nothing_is_said() -> None:
    scores = np.arange(101.0) ** 2
    mean, low, high = scores.mean(), np.percentile(scores, 5), np.percentile(scores, 95)
    assert rule(METRICS["accuracy"]).value(scores) == pytest.approx((mean + low) / 2)
    assert rule(ERROR).value(scores) == pytest.approx((mean + high) / 2)
    assert rule(ERROR).over_chips == "half the mean and half the 95th percentile over chips"
    ten = rule(ERROR, "study.percentile=10", "study.over_chips=both")
    assert ten.value(scores) == pytest.approx((mean + np.percentile(scores, 90)) / 2)
    alone = rule(METRICS["accuracy"], "study.over_chips=percentile")
    assert alone.value(scores) == pytest.approx(low)
    with pytest.raises(ValueError, match="over_chips=mean and percentile=5 are two ways to judge"):
        rule(ERROR, "study.percentile=5", "study.over_chips=mean")


def test_a_bound_is_the_worst_clean_score_that_counts() -> None:
    assert rule(ERROR).excess(7.0) is None
    for setting in ("study.min_clean=0.5", "study.clean_limit=0.5"):
        high = rule(METRICS["accuracy"], setting)
        assert [high.excess(clean) for clean in (0.25, 0.5, 0.75)] == [0.25, 0.0, -0.25]
        assert high.option == setting.partition("=")[0]
    low = rule(ERROR, "study.clean_limit=12")
    assert [low.excess(clean) for clean in (10.0, 12.0, 15.0)] == [-2.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("metric", "settings", "words"),
    [
        (
            ERROR,
            ["study.min_clean=0.9"],
            "'error' is better when it is lower; write study.clean_limit=0.9, the largest",
        ),
        (
            METRICS["accuracy"],
            ["study.clean_limit=90"],
            "study.clean_limit: 'accuracy' is a share.*0.9 for 90 %; got 90",
        ),
        (METRICS["accuracy"], ["study.clean_limit=0"], "study.clean_limit: 'accuracy' is a share"),
        (ERROR, ["study.min_clean=0.9", "study.clean_limit=0.8"], "study: min_clean=0.9 and clean_limit=0.8 are two"),
        (ERROR, ["study.clean_limit=inf"], "study.clean_limit: wanted a finite number"),
    ],
)
def test_a_bound_that_is_none_is_refused(metric: Metric, settings: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rule(metric, *settings)


def test_scores_are_shown_in_the_unit() -> None:
    assert rule(METRICS["accuracy"]).shown(0.98765) == "98.77 %"
    assert rule(ERROR).shown(0.98765) == "0.9877 dB"
    assert rule(METRICS["cross_entropy"]).shown(1234.5678) == "1235"
    assert rule(ERROR).number(0.5) == "0.5"


def test_networks_are_judged_at_a_time_among_those_of_the_curve() -> None:
    config = load_toml(StudyConfig, None, ['evaluation.times=["1s", "1mo"]', "evaluation.validation_time=24h"])
    assert all_times(config) == ("1s", "24h", "1mo")
    config = load_toml(StudyConfig, None, ['evaluation.times=["1s", "1d"]', "evaluation.validation_time=24h"])
    assert all_times(config) == ("1s", "24h")
