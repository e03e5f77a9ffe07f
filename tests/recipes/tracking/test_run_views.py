from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.tracking import run_views, stores
from analogsim.recipes.tracking.links import compare_link, experiment_link
from analogsim.recipes.tracking.page_views import view_in
from analogsim.recipes.tracking.run_views import list_link, list_scores, listed, side_by_side
from analogsim.recipes.tracking.tracked_run import Run

pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")

NAMES = [
    *("train/loss", "test/accuracy/drift", "test/accuracy/drift_p05", "test/accuracy/clean"),
    *("test/accuracy/drifted_1s", "test/accuracy/drifted_1s_std", "test/accuracy/drifted_1d"),
    *("test/accuracy/drifted_1d_p05", "test/accuracy/drifted_1y"),
]


@pytest.fixture
def run(here: Path) -> Run:
    return Run.start(experiment="exp", name="first", params={})


def tags(run: Run) -> dict[str, str]:
    found: dict[str, str] = stores.connect(run.uri).get_experiment(run.experiment_id).tags
    return found


def state_of(run: Run, key: str) -> dict[str, Any]:
    view = view_in(tags(run)[f"mlflow.sharedViewState.{key}"])
    assert view is not None
    return view[1]


def test_the_list_has_columns_for_training_device_and_scores(run: Run) -> None:
    assert list_link(run) == experiment_link(run.uri, run.experiment_id)  # there is no view yet, and no error
    list_scores(run, "accuracy", ["1d", "1y"])
    state = state_of(run, "analogsim")
    scores = ["clean", "drifted_1d", "drifted_1d_std", "drifted_1y", "drifted_1y_std"]
    columns = [f"params.`{name}`" for name in ("training", "device", "model")]
    columns += [f"metrics.`test/accuracy/{name}`" for name in scores]
    assert state["selectedColumns"] == columns
    assert state["columnOrder"][-len(columns) :] == columns
    assert state["searchFilter"] == ""
    assert [chart["metricKey"] for chart in state["compareRunCharts"]] == ["test/accuracy/drift"]
    assert list_link(run).endswith("?workflowType=machine_learning&viewStateShareKey=analogsim")
    assert listed(run.uri, run.experiment_id, tags(run), 5001).startswith("http://127.0.0.1:5001/")


def test_other_scores_join_those_that_are_shown(run: Run) -> None:
    list_scores(run, "accuracy", ["1d"])
    before = tags(run)
    list_scores(run, "accuracy", ["1d"])
    assert tags(run) == before  # nothing is written where nothing is new
    list_scores(run, "perplexity", ["1y"])
    state = state_of(run, "analogsim")
    scores = [column for column in state["selectedColumns"] if column.startswith("metrics.")]
    assert scores[0] == "metrics.`test/perplexity/clean`"
    assert scores[3:] == [f"metrics.`test/accuracy/{name}`" for name in ("clean", "drifted_1d", "drifted_1d_std")]
    assert len(state["compareRunCharts"]) == 2
    for number in range(20):
        list_scores(run, f"metric {number}", ["1d"])
    assert len(state_of(run, "analogsim")["selectedColumns"]) == 3 + 16
    assert all(len(value) < 5000 for value in tags(run).values())  # what older versions of MLflow take


def test_an_experiment_is_one_of_training_also_where_an_earlier_version_made_it(run: Run, here: Path) -> None:
    kind = "mlflow.experimentKind"
    assert tags(run)[kind] == "custom_model_development"
    client = stores.connect(run.uri)
    client.delete_experiment_tag(run.experiment_id, kind)
    list_scores(run, "accuracy", ["1d"])
    assert tags(run)[kind] == "custom_model_development"
    client.set_experiment_tag(run.experiment_id, kind, "genai_development")  # a user's own choice
    list_scores(run, "loss", ["1d"])
    assert tags(run)[kind] == "genai_development"


def test_a_view_that_is_none_of_ours_is_made_anew(run: Run) -> None:
    client = stores.connect(run.uri)
    for wrong in ("", "{}", '{"state": "deflate;AAAA"}', '{"state": 1}', "[]", '{"name": "a", "createdAt": 1}'):
        client.set_experiment_tag(run.experiment_id, "mlflow.sharedViewState.analogsim", wrong)
        list_scores(run, "accuracy", ["1d"])
        assert state_of(run, "analogsim")["selectedColumns"]


def test_runs_stand_side_by_side_with_their_curves_first(run: Run) -> None:
    other = Run.start(experiment="exp", name="second", params={})
    link = side_by_side([other, run], NAMES, title="both", params=["training", "noise.end"])
    base, _, key = link.removesuffix("&compareRunsMode=CHART").partition("&viewStateShareKey=")
    assert base == experiment_link(run.uri, run.experiment_id)
    assert link != base
    state = state_of(run, key)
    ids = ", ".join(f"'{each}'" for each in sorted([run.run_id, other.run_id]))
    assert state["searchFilter"] == f"attributes.run_id IN ({ids})"
    first, second, third = state["compareRunCharts"]
    assert (first["metricKey"], first["xAxisScaleType"]) == ("test/accuracy/drift", "log")
    assert third["metricKey"] == "test/accuracy/drift_p05"
    assert second["type"] == "PARALLEL"
    assert second["selectedParams"] == ["training", "noise.end"]
    assert second["selectedMetrics"] == [f"test/accuracy/{end}" for end in ("clean", "drifted_1s", "drifted_1y")]
    assert "metrics.`test/accuracy/drifted_1s_std`" in state["selectedColumns"]
    assert "metrics.`train/loss`" not in state["selectedColumns"]
    # the same runs have the same page, in any order
    assert side_by_side([run, other], NAMES, title="both") == link
    # and MLflow finds them by what the page searches for
    found = stores.connect(run.uri).search_runs([run.experiment_id], state["searchFilter"])
    assert {each.info.run_id for each in found} == {run.run_id, other.run_id}


def test_without_curves_in_common_there_is_mlflows_own_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = Run.start(experiment="other", name="second", params={})
    assert side_by_side([run, elsewhere], NAMES, title="") == compare_link([run, elsewhere])
    assert side_by_side([run], ["train/loss"], title="") == compare_link([run])
    with pytest.raises(ValueError, match="got 0 runs"):
        side_by_side([], NAMES, title="")
    monkeypatch.setattr(stores, "connect", lambda uri: 1 / 0)
    monkeypatch.setattr(stores, "errors", lambda: (ZeroDivisionError,))
    assert side_by_side([run], NAMES, title="") == compare_link([run])
    assert list_link(run) == experiment_link(run.uri, run.experiment_id)
    list_scores(run, "accuracy", ["1d"])


def test_the_oldest_views_make_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_views, "_KEPT", 2)
    runs = [run, *(Run.start(experiment="exp", name=f"{place}", params={}) for place in range(2))]
    times = iter(range(100, 200))
    monkeypatch.setattr("analogsim.recipes.tracking.page_views.time.time", lambda: next(times))
    list_scores(run, "accuracy", ["1d"])
    keys = [side_by_side([each], NAMES, title="").partition("&viewStateShareKey=")[2].split("&")[0] for each in runs]
    kept = {name.removeprefix("mlflow.sharedViewState.") for name in tags(run) if "sharedViewState" in name}
    assert kept == {"analogsim", *keys[1:]}
    side_by_side([runs[-1]], NAMES, title="")  # which takes its own place
    assert {name for name in tags(run) if "side-by-side" in name} == {f"mlflow.sharedViewState.{k}" for k in keys[1:]}
