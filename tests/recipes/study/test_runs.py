from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.outcome import Outcome
from analogsim.recipes.study.runs import PARENT, StudyRuns
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.study.trials import try_again
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.tune import configure
from tests.recipes.workers import NAME

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    """A study in an SQLite file, opened as workers open it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return opened(tmp_path)


def opened(place: Path) -> Any:
    storage = open_storage(f"sqlite:///{place}/optuna.db", heartbeat=1, on_dead=try_again)
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True)


def runs_of(study: Any, *settings: str) -> StudyRuns:
    config = configure(settings=["model=mlp", "data.limit=100", "study.heartbeat=1", *settings])
    return StudyRuns(config, load_data(config), criterion(config, METRICS["accuracy"]))


def test_a_run_whose_worker_died_before_it_wrote_it_down_is_found(here: Path, store: Any, shared: Any) -> None:
    runs = runs_of(shared)
    runs.open(shared)
    parent = runs.parent.run_id
    shared.set_user_attr(PARENT, None)  # it made the run, and died
    again = runs_of(shared)
    again.open(shared)
    assert (again.parent.run_id, shared.user_attrs[PARENT]) == (parent, parent)
    # the same for a trial: it has a folder, and in MLflow a run, of which Optuna knows nothing
    tags = {"mlflow.parentRunId": parent, "optuna.trial.number": "0", "role": "trial"}
    run_id = store.client.create_run("1", tags=tags).info.run_id
    shared.add_trial(optuna.trial.create_trial(state=State.FAIL, user_attrs={"folder": str(here / "trial-0000")}))
    assert again.send_unsent(shared) == 0
    run = store.run(run_id)
    assert (run.info.status, run.data.tags["optuna.trial.state"]) == ("FAILED", "FAIL")
    assert run.data.tags["optuna.trial.why"] == "its worker died, or was taken for dead"
    assert len(store.client.search_runs(["1"])) == 2


def test_a_trial_that_ended_otherwise_than_mlflow_knows_is_told_again(here: Path, store: Any, shared: Any) -> None:
    """Its worker said COMPLETE to MLflow, and was taken for dead before it said so to Optuna."""
    runs = runs_of(shared)
    runs.open(shared)
    run_id = store.client.create_run("1", tags={"optuna.trial.state": "COMPLETE"}).info.run_id
    store.client.set_terminated(run_id, "FINISHED")
    attributes = {"folder": str(here / "trial-0000"), "run_id": run_id, "logged": "COMPLETE"}
    shared.add_trial(optuna.trial.create_trial(state=State.FAIL, user_attrs=attributes))
    shared.add_trial(optuna.trial.create_trial(state=State.COMPLETE, value=1.0, user_attrs=attributes))
    assert runs.send_unsent(shared) == 0
    assert store.run(run_id).info.status == "FAILED"
    assert shared.user_attrs["analogsim:logged"] == {"0": "FAIL"}  # and trial 1 needed nothing


def test_runs_that_nobody_will_end_are_ended(here: Path, store: Any, shared: Any) -> None:
    """An answer of MLflow's was lost, and the request made again; a worker slept as it was given away."""
    runs = runs_of(shared)
    runs.open(shared)

    def made(number: int, status: str = "RUNNING") -> str:
        tags = {"mlflow.parentRunId": runs.parent.run_id, "optuna.trial.number": str(number), "role": "trial"}
        run_id = str(store.client.create_run("1", tags=tags).info.run_id)
        if status != "RUNNING":
            store.client.set_terminated(run_id, status)
        return run_id

    noted, twin = made(0, "FINISHED"), made(0)
    attributes = {"folder": str(here), "run_id": noted, "logged": "COMPLETE"}
    shared.add_trial(optuna.trial.create_trial(state=State.COMPLETE, value=1.0, user_attrs=attributes))
    late, later = made(1), made(1)
    shared.add_trial(optuna.trial.create_trial(state=State.FAIL, user_attrs={"folder": str(here), "logged": "FAIL"}))
    at_work, unsent = made(2), made(3)
    shared.add_trial(optuna.trial.create_trial(state=State.RUNNING))
    shared.add_trial(optuna.trial.create_trial(state=State.FAIL, user_attrs={"folder": str(here), "run_id": unsent}))
    assert runs.end_strays(shared)
    found = {run.info.run_id: run.info.status for run in store.client.search_runs(["1"])}
    del found[runs.parent.run_id]
    kept = late if late in found else later
    assert found == {noted: "FINISHED", kept: "FAILED", at_work: "RUNNING", unsent: "RUNNING"}
    assert store.run(kept).data.tags["optuna.trial.state"] == "FAIL"
    assert store.run(twin).info.lifecycle_stage == "deleted"
    assert runs_of(shared, "tracking.enabled=false").end_strays(shared)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_a_run_made_after_its_trial_was_given_away_is_ended(
    here: Path, store: Any, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker slept while it asked for the run: those who found the trial dead knew of none."""
    runs = runs_of(shared)
    runs.open(shared)
    trial = shared.ask()
    set_attribute = trial.set_user_attr

    def given_away(name: str, value: Any) -> None:
        if name == "run_id":
            shared.tell(trial.number, state=State.FAIL)
            raise optuna.exceptions.UpdateFinishedTrialError
        set_attribute(name, value)

    monkeypatch.setattr(trial, "set_user_attr", given_away)
    config = training_config(runs._config, {})
    training = Training(config, runs._data, aware=True, path=here / "checkpoint.pt")
    outcome = Outcome(0, str(here))
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError), runs.trial(trial, outcome, training):
        raise AssertionError("it has no trial")
    assert store.run(outcome.run_id).info.status == "FAILED"
    assert store.run(outcome.run_id).data.tags["optuna.trial.state"] == "FAIL"


def test_a_study_has_its_run_once_it_is_opened_and_without_mlflow_needs_none(here: Path, shared: Any) -> None:
    runs = runs_of(shared)
    assert not runs.opened(shared)
    runs.open(shared)
    assert runs.opened(shared)
    assert runs_of(optuna.create_study(), "tracking.enabled=false").opened(optuna.create_study())


@pytest.mark.parametrize(("holder", "wait", "told"), [(None, False, True), ("other", False, False)])
def test_progress_is_told_by_one_worker(
    here: Path, store: Any, shared: Any, holder: str | None, wait: bool, told: bool
) -> None:
    """Who need not wait leaves it to the one who does it now, and does it where nobody does."""
    runs = runs_of(shared)
    runs.open(shared)
    for name in ("analogsim:progress", "analogsim:sending"):
        shared.set_user_attr(name, holder and [holder, 1])
    run_id = store.client.create_run("1").info.run_id
    attributes = {"folder": str(here / "trial-0000"), "run_id": run_id}
    shared.add_trial(optuna.trial.create_trial(state=State.FAIL, user_attrs=attributes))
    assert runs.log_progress(shared, wait=wait) is told
    assert runs.send_unsent(shared, wait=wait) == (0 if told else 1)
