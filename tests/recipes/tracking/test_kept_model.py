from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.tracking import tracked_run
from analogsim.recipes.tracking.kept_model import model_name
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.tracking.used_data import UsedData

pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")

DATA = UsedData("digits", "0123", "evaluation", "test", 7)
NAME = "plain, pcm, mlp"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked_run, "_LATEST", 0.0)


@pytest.fixture
def run(here: Path) -> Run:
    (here / "checkpoint.pt").write_bytes(b"weights")
    return Run.start(experiment="exp", name="first", params={"a": 1})


class Failing:
    """A client of which one method fails, before or after it has done what it is asked."""

    def __init__(self, run: Run, method: str, error: Exception, *, after: bool = False) -> None:
        self.client, self.method, self.error, self.after, self.times = run._client, method, error, after, 1
        run._client = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            fails = name == self.method and self.times > 0
            if fails and not self.after:
                self.times -= 1
                raise self.error
            answer = getattr(self.client, name)(*args, **kwargs)
            if fails:
                self.times -= 1
                raise self.error
            return answer

        return call


def keep(run: Run, place: Path, score: float = 0.5) -> None:
    run.inputs([DATA])
    run.model(NAME, place / "checkpoint.pt", step=3)
    run.metrics({"test/accuracy/clean": score}, 3, on=DATA)


def found(run: Run) -> tuple[list[Any], Any]:
    """The models of the experiment, and the run."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=run.uri)
    return list(client.search_logged_models([run.experiment_id])), client.get_run(run.run_id)


def check(run: Run) -> None:
    """One model, ready, with its checkpoint, its score and the run's parameters."""
    (model,), logged = found(run)
    assert (model.name, str(model.status), model.source_run_id, model.params) == (NAME, "READY", run.run_id, {"a": "1"})
    assert [(m.key, m.value, m.dataset_name) for m in model.metrics] == [("test/accuracy/clean", 0.5, "digits")]
    assert [(each.model_id, each.step) for each in logged.outputs.model_outputs] == [(model.model_id, 3)]
    assert [each.dataset.digest for each in logged.inputs.dataset_inputs] == ["0123"]
    history = run._client.get_metric_history(run.run_id, "test/accuracy/clean")
    assert [(point.value, point.step) for point in history] == [(0.5, 3)]
    place = Path(model.artifact_location.removeprefix("file://"))
    assert [file.read_bytes() for file in place.iterdir()] == [b"weights"]


def test_a_model_has_its_checkpoint_and_its_scores(run: Run, here: Path) -> None:
    keep(run, here)
    run.end()
    check(run)


def test_a_run_that_is_gone_on_with_has_one_model(run: Run, here: Path) -> None:
    keep(run, here)
    again = Run.start(experiment="exp", name="first", run_id=run.run_id, params={"a": 1})
    keep(again, here)
    again.end()
    check(again)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    "method", ["create_logged_model", "log_model_artifact", "log_outputs", "finalize_logged_model"]
)
def test_what_fails_is_sent_again_and_stays_one_model(run: Run, here: Path, method: str, after: bool) -> None:
    Failing(run, method, ConnectionError("away"), after=after)
    with pytest.warns(RuntimeWarning, match="waits"):
        keep(run, here)
    run.end()
    check(run)


@pytest.mark.parametrize("method", ["create_logged_model", "log_inputs"])
@pytest.mark.parametrize("code", ["ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED", ""])
def test_a_store_that_knows_no_models_has_the_run(run: Run, here: Path, method: str, code: str) -> None:
    from mlflow.exceptions import MlflowException

    error = NotImplementedError("none")
    if code:
        error = MlflowException("none")
        error.error_code = code
    Failing(run, method, error).times = 9
    with pytest.warns(RuntimeWarning, match=r"this MLflow has no place for (the model|data): none"):
        keep(run, here)
    run.end()
    assert run.delivered
    models, logged = found(run)
    assert (len(models), logged.data.metrics) == (int(method == "log_inputs"), {"test/accuracy/clean": 0.5})


def test_a_checkpoint_that_is_not_there_is_refused(run: Run) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file '.*none.pt' to keep as a model"):
        run.model("m", "none.pt", step=0)


def test_names_are_legal(run: Run, here: Path) -> None:
    assert model_name("plain, a/b:c.d%e\"f'g") == "plain, a_b_c_d_e_f_g"
    assert model_name("") == "model"
    run.model("a/b:c.d%e\"f'g", here / "checkpoint.pt", step=0)
    run.end()
    assert found(run)[0][0].name == "a_b_c_d_e_f_g"
