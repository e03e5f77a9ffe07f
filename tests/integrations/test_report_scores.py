"""Names and numbers of a report in MLflow."""

from __future__ import annotations

import pytest

from analogsim.integrations.report_scores import curves, ends, read_as
from tests.recipes.reports import report


def test_scores_at_every_time() -> None:
    made = report(0.9, times=(1.0, 3600.0))
    found = ends(made, "test")
    assert found["test/accuracy/clean"] == made.clean
    assert found["test/accuracy/drifted_1h"] == made.mean[1]
    assert found["test/accuracy/drifted_1s_p05"] == pytest.approx(made.quantile(0.05)[0])
    assert found["test/accuracy/drifted_1h_std"] == pytest.approx(made.std[1])
    assert len(found) == 1 + 2 * 3


def test_what_is_not_there_is_no_metric() -> None:
    one = report(0.9, times=(1.0,)).only(["1s"])
    alone = type(one)(**{**vars(one), "values": one.values[:1], "seeds": (0,)})
    assert not any(name.endswith("_std") for name in ends(alone, "test"))


def test_the_lower_score_may_be_the_better_one() -> None:
    made = report(0.9, metric="cross_entropy", higher_is_better=False)
    assert "test/cross_entropy/drifted_1d_p95" in ends(made, "test")
    assert read_as(made) == {"metric": "cross_entropy", "metric.unit": made.unit, "metric.better": "lower"}


def test_curves_are_over_whole_seconds() -> None:
    made = report(0.9, times=(0.2, 0.4, 3600.0))
    assert curves(made, "test")["test/accuracy/drift"] == {0: made.mean[1], 3600: made.mean[2]}
    assert set(curves(made, "test")) == {"test/accuracy/drift", "test/accuracy/drift_p05"}
