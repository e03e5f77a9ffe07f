"""One call, or none, for a loop of one's own."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.integrations.report_scores import ends
from tests.recipes.reports import report

for package in ("mlflow", "matplotlib", "pandas"):
    pytest.importorskip(package, reason="needs analogsim-torch[recipes]")

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:mlflow"
)


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """MLflow on a store in a folder."""
    import mlflow

    from analogsim.recipes.tracking import stores

    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # set_tracking_uri writes it, too: here it is taken back afterwards
    stores.connect(uri)
    mlflow.set_tracking_uri(uri)
    yield mlflow
    mlflow.end_run()
    mlflow.set_tracking_uri(None)


def artifacts(mlflow: Any, run_id: str) -> list[str]:
    return sorted(found.path for found in mlflow.MlflowClient().list_artifacts(run_id, "test"))


def no_room(report: analogsim.Report, part: str) -> dict[str, float]:
    raise OSError("no room")


def test_a_report_in_the_active_run(mlflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = report(0.9)
    with mlflow.start_run() as run:
        mlflow.log_metric("loss", 0.1, step=3)
        assert analogsim.log_report(made) == run.info.run_id
        analogsim.log_report(report(0.95), step=3)
        assert mlflow.active_run().info.run_id == run.info.run_id
    client = mlflow.MlflowClient()
    held = client.get_run(run.info.run_id).data
    assert held.metrics["test/accuracy/drifted_1d"] == pytest.approx(report(0.95).mean[2])
    assert held.tags["metric.better"] == "higher"
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "test/accuracy/drifted_1d")]
    assert sorted(steps) == [0, 3]
    assert artifacts(mlflow, run.info.run_id) == [
        *("test/chips.json", "test/chips_3.json"),
        *("test/drift.png", "test/drift_3.png"),
    ]
    table = client.load_table(run.info.experiment_id, "test/chips.json", [run.info.run_id])
    assert table["accuracy"].tolist() == made.to_frame()["accuracy"].tolist()
    drifted = client.get_metric_history(run.info.run_id, "test/accuracy/drift")
    assert {86400, 3600, 1} < {metric.step for metric in drifted}

    # Without an active run: one of its own, which has ended.
    own = analogsim.log_report(made, part="plain")
    assert own != run.info.run_id
    assert mlflow.active_run() is None
    assert client.get_run(own).info.status == "FINISHED"
    assert client.get_run(own).data.metrics["plain/accuracy/clean"] == made.clean

    # autolog: every report that evaluate gives, one step after another.
    from analogsim.integrations.mlflow import autolog

    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(4, 2), "pcm")
    data = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))]
    autolog()
    autolog(part="validation")
    try:
        with mlflow.start_run() as logged:
            for _ in range(2):
                found = analogsim.evaluate(analog, data, chips=2, times=["1d"])
        monkeypatch.setattr("analogsim.integrations.mlflow.ends", no_room)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert analogsim.evaluate(analog, data, chips=2, times=["1d"]) == found
        assert any(
            "autolog: the report is not in MLflow: no room; log it with analogsim.log_report" in str(one.message)
            for one in said
        )
    finally:
        autolog(disable=True)
        monkeypatch.setattr("analogsim.integrations.mlflow.ends", ends)
    history = client.get_metric_history(logged.info.run_id, "validation/accuracy/drifted_1d")
    assert [(metric.step, metric.value) for metric in history] == [(0, found.mean[0]), (1, found.mean[0])]
    with mlflow.start_run() as quiet:
        analogsim.evaluate(analog, data, chips=1, times=["1d"])
    assert client.get_run(quiet.info.run_id).data.metrics == {}


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"report": 0.9}, TypeError, "log_report: give what analogsim.evaluate returns, got 0.9"),
        ({"step": 1.5}, TypeError, "step must be an integer, got 1.5"),
        ({"part": "../up"}, ValueError, "part must be a word that MLflow takes in names, such as 'test', got '../up'"),
    ],
)
def test_bad_input(given: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told) as raised:
        analogsim.log_report(**{"report": report(), **given})
    assert isinstance(raised.value, analogsim.AnalogsimError)


def test_without_mlflow_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['mlflow'] = None; from analogsim.integrations.mlflow import autolog; autolog()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingPackageError: log_report needs MLflow" in done.stderr
    assert 'pip install "analogsim-torch[recipes]"' in done.stderr
