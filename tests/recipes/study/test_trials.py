from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.study.trials import at_work, counted, surplus, work_left

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def silent() -> Any:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(verbosity)


def study_of(*states: Any) -> Any:
    """A study with a trial in each of these states, in their order."""
    study = optuna.create_study()
    for state in states:
        values = [1.0] if state == State.COMPLETE else None
        study.add_trial(optuna.trial.create_trial(state=state, values=values))
    return study


def test_trials_that_failed_are_done_again() -> None:
    study = study_of(State.COMPLETE, State.PRUNED, State.FAIL, State.RUNNING, State.WAITING)
    assert counted(study.trials) == 4
    assert not work_left(study_of(State.COMPLETE, State.RUNNING), 2)
    assert work_left(study_of(State.COMPLETE, State.FAIL), 2)
    assert work_left(study_of(State.COMPLETE, State.COMPLETE, State.WAITING), 2)


def test_one_trial_too_many_is_seen_by_who_began_it() -> None:
    study = study_of(State.COMPLETE, State.FAIL, State.RUNNING, State.RUNNING)
    assert not surplus(study, 2, wanted=2)
    assert surplus(study, 3, wanted=2)
    assert not surplus(study, 3, wanted=3)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_a_dead_worker_is_found_by_its_silence(tmp_path: Path) -> None:
    dead: list[int] = []
    storage = open_storage(
        f"sqlite:///{tmp_path}/o.db", heartbeat=1, on_dead=lambda _, trial: dead.append(trial.number)
    )
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert at_work(study) == 1
    deadline = time.monotonic() + 60
    while at_work(study):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert dead == [0]
    assert study.trials[0].state == State.FAIL
