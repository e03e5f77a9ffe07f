from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.study import objectives
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.objectives import Objective, Surplus
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.study.work import take_trials
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.tune import configure

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (
            "accuracy",
            ["12.00 %  (best: trial 0, 12.00 %)", "14.00 %  (best: trial 1, 14.00 %)", "13.00 %  (best: trial 1"],
        ),
        (
            "cross_entropy",
            ["0.12  (best: trial 0, 0.12)", "0.14  (best: trial 0, 0.12)", "0.13  (best: trial 0, 0.12)"],
        ),
    ],
)
def test_each_trial_is_told_with_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, told: list[str]
) -> None:
    scores = iter((0.12, 0.14, 0.13))

    def scored(goal: Objective, trial: optuna.Trial) -> float:
        goal.number = trial.number
        return next(scores)

    monkeypatch.setattr(objectives.Objective, "__call__", scored)
    config = configure(settings=["model=mlp", "data.limit=100", "study.trials=3", "tracking.enabled=false"])
    data, rule = load_data(config), criterion(config, METRICS[metric])
    study = optuna.create_study(directions=rule.directions)
    lines: list[str] = []
    goal = Objective(config, data, rule, StudyRuns(config, data, rule), lambda _: tmp_path, wanted=3)
    assert take_trials(study, goal, lines.append)
    assert [line.split("complete")[1].strip()[: len(part)] for line, part in zip(lines, told, strict=True)] == told


def test_a_storage_that_fails_as_a_trial_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: Optuna's loop has an assertion in the place of the error, which no one could act on."""
    monkeypatch.setattr(
        objectives.Objective, "__call__", lambda goal, trial: setattr(goal, "number", trial.number) or 0.5
    )
    config = configure(settings=["model=mlp", "data.limit=100", "study.trials=2", "tracking.enabled=false"])
    data, rule = load_data(config), criterion(config, METRICS["accuracy"])
    study = optuna.create_study(directions=rule.directions, storage=f"sqlite:///{tmp_path}/optuna.db")
    tell, failing = study._storage.set_trial_state_values, [True]

    def fails(trial: int, state: Any, values: Any = None) -> bool:
        if state == State.COMPLETE and failing:
            failing.pop()
            raise optuna.exceptions.StorageInternalError("full") from sqlite3.OperationalError("disk is full")
        return bool(tell(trial, state, values))

    monkeypatch.setattr(study._storage, "set_trial_state_values", fails)
    lines: list[str] = []
    goal = Objective(config, data, rule, StudyRuns(config, data, rule), lambda _: tmp_path, wanted=2)
    assert take_trials(study, goal, lines.append)
    assert lines[0] == "the storage failed, and is tried again: disk is full"
    assert [trial.state for trial in study.trials] == [State.FAIL, State.COMPLETE, State.COMPLETE]
    assert study.trials[1].system_attrs["retry_history"] == [0]


def of_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: Callable[[optuna.Trial], float]
) -> tuple[optuna.Study, Objective]:
    """A study of two trials, the first of which goes so, and what works on it."""
    went: list[int] = []

    def value(goal: Objective, trial: optuna.Trial) -> float:
        went.append(trial.number)
        goal.number = trial.number if len(went) > 1 else goal.number
        return first(trial) if len(went) == 1 else 0.5

    monkeypatch.setattr(objectives.Objective, "_value", value)
    config = configure(settings=["model=mlp", "data.limit=100", "study.trials=2", "tracking.enabled=false"])
    data, rule = load_data(config), criterion(config, METRICS["accuracy"])
    study = optuna.create_study(directions=rule.directions, storage=f"sqlite:///{tmp_path}/optuna.db")
    return study, Objective(config, data, rule, StudyRuns(config, data, rule), lambda _: tmp_path, wanted=2)


@pytest.mark.parametrize("error", [OSError("full"), ValueError("of the network"), Surplus()])
def test_whatever_happens_in_a_trial_that_others_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Optuna then says of any of it that it cannot tell a FAIL trial."""

    def first(trial: optuna.Trial) -> float:
        study.tell(trial.number, state=State.FAIL)
        raise error

    study, goal = of_two(tmp_path, monkeypatch, first)
    assert take_trials(study, goal, lambda _: None)
    assert [trial.state for trial in study.trials] == [State.FAIL, State.COMPLETE, State.COMPLETE]


def test_an_error_of_a_trial_that_is_ours_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(trial: optuna.Trial) -> float:
        raise ValueError("of the network")

    study, goal = of_two(tmp_path, monkeypatch, first)
    with pytest.raises(ValueError, match="of the network"):
        take_trials(study, goal, lambda _: None)


def test_a_signal_is_obeyed_also_where_the_trial_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def first(trial: optuna.Trial) -> float:
        study.tell(trial.number, state=State.FAIL)
        raise KeyboardInterrupt

    study, goal = of_two(tmp_path, monkeypatch, first)
    with pytest.raises(KeyboardInterrupt):
        take_trials(study, goal, lambda _: None)
    assert [trial.state for trial in study.trials] == [State.FAIL]


def test_a_signal_is_obeyed_at_once_also_where_the_storage_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first(trial: optuna.Trial) -> float:
        def away(*_: Any) -> None:
            raise optuna.exceptions.StorageInternalError("away")

        monkeypatch.setattr(study._storage, "set_trial_state_values", away)
        goal.number = trial.number
        raise KeyboardInterrupt

    study, goal = of_two(tmp_path, monkeypatch, first)
    with pytest.raises(KeyboardInterrupt):
        take_trials(study, goal, lambda _: None)
