from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

from analogsim.evaluation import Metric
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.page_views import study_links, view_tags


@dataclass(frozen=True)
class Somewhere:
    run_id: str = "abc"
    experiment_id: str = "7"
    uri: str = "http://host:5000"


def unpacked(value: str) -> tuple[str, dict[str, Any]]:
    """The name and the state of a view."""
    view = json.loads(value)
    assert set(view) == {"name", "createdAt", "updatedAt", "state"}
    kind, _, packed = view["state"].partition(";")
    assert kind == "deflate"
    return view["name"], json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_views_of_a_study() -> None:
    config = load_toml(StudyConfig, None, ["search={noise={end={low=1, high=2}}, optimization={lr={low=1, high=2}}}"])
    tags = view_tags(config, criterion(config, METRICS["accuracy"]), "mine", "abc")
    (_, trials), (_, finals) = map(unpacked, tags.values())
    assert trials["searchFilter"] == "tags.mlflow.parentRunId = 'abc' and tags.role = 'trial'"
    assert trials["orderByKey"] == "metrics.`objective`"
    assert {"params.`noise.end`", "params.`optimization.lr`", "tags.`optuna.trial.state`"} < set(
        trials["selectedColumns"]
    )
    assert "metrics.`search/accuracy/drifted_1d`" in trials["selectedColumns"]
    assert trials["orderByAsc"] is finals["orderByAsc"] is False
    assert [chart["type"] for chart in trials["compareRunCharts"]] == ["LINE", "PARALLEL", "LINE"]
    assert trials["compareRunCharts"][1]["selectedMetrics"] == ["objective"]
    assert trials["compareRunCharts"][0]["xAxisScaleType"] == "log"
    assert [chart["type"] for chart in finals["compareRunCharts"]] == ["LINE", "PARALLEL", "LINE", "LINE"]
    assert finals["compareRunCharts"][1]["selectedParams"] == ["training", "noise.end", "optimization.lr"]
    assert "metrics.`test/accuracy/drifted_1y_p05`" in finals["selectedColumns"]
    assert all(len(value) < 5000 for value in tags.values())  # what older versions of MLflow take
    # the links name the very keys
    links = study_links(Somewhere())
    assert all(f"viewStateShareKey={key.removeprefix('mlflow.sharedViewState.')}" in links for key in tags)


def test_a_front_has_two_goals() -> None:
    config = load_toml(StudyConfig, None, ["study.pareto=true", "evaluation.validation_time=1mo"])
    _, trials = unpacked(next(iter(view_tags(config, criterion(config, METRICS["accuracy"]), "mine", "abc").values())))
    assert trials["compareRunCharts"][1]["selectedMetrics"] == ["search/accuracy/clean", "search/accuracy/drifted_1mo"]
    assert trials["orderByKey"] == "metrics.`search/accuracy/drifted_1mo`"
    assert trials["selectedColumns"].count("metrics.`search/accuracy/clean`") == 1


def test_views_go_by_the_metric_of_the_study() -> None:
    config = load_toml(StudyConfig, None, ["evaluation.validation_time=1mo"])
    error = Metric("error (dB)", lambda output, target: output - target, unit="dB", higher_is_better=False)
    (_, trials), (_, finals) = map(unpacked, view_tags(config, criterion(config, error), "mine", "abc").values())
    assert trials["orderByAsc"] is finals["orderByAsc"] is True  # the best first
    assert "metrics.`search/error _dB_/drifted_1mo`" in trials["selectedColumns"]
    assert finals["orderByKey"] == "metrics.`test/error _dB_/drifted_1mo`"
    assert "metrics.`test/error _dB_/drifted_1y_p95`" in finals["selectedColumns"]
    charts = [chart["metricKey"] for chart in finals["compareRunCharts"] if "metricKey" in chart]
    assert charts == ["test/error _dB_/drift", "test/error _dB_/drift_p95", "train/loss"]
