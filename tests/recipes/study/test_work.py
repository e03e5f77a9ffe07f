from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.study import objectives
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.objectives import Objective
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
