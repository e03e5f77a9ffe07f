from __future__ import annotations

from pathlib import Path

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
