from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.objectives import Objective
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.tune import configure
from tests.recipes.reports import report

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")

SETTINGS = ["model=mlp", "data.limit=100", "optimization.epochs=1", "study.chips=2", "tracking.enabled=false"]


def goal(metric: str, folder: Path, *settings: str) -> Objective:
    config = configure(settings=[*SETTINGS, *settings])
    data, rule = load_data(config), criterion(config, METRICS[metric])
    return Objective(config, data, rule, StudyRuns(config, data, rule), lambda _: folder)


@pytest.mark.parametrize(
    ("metric", "settings", "directions"),
    [
        ("accuracy", [], ["maximize"]),
        ("cross_entropy", [], ["minimize"]),
        ("cross_entropy", ["study.pareto=true"], ["minimize", "minimize"]),
    ],
)
def test_a_study_has_the_direction_of_the_metric(
    tmp_path: Path, metric: str, settings: list[str], directions: list[str]
) -> None:
    other = [{"maximize": "minimize", "minimize": "maximize"}[directions[0]], *directions[1:]]
    with pytest.raises(
        ValueError, match=rf"must {directions[0]} {len(directions)} value.* {metric}; .*got \['{other[0]}"
    ):
        optuna.create_study(directions=other).optimize(goal(metric, tmp_path, *settings), n_trials=1)


def test_a_bound_is_told_to_optuna_and_what_is_no_number_is_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = report(3.0, metric="cross_entropy")
    monkeypatch.setattr(Objective, "_train", lambda *_: None)
    monkeypatch.setattr(Training, "judge", lambda *_, **__: made)
    settings = ("study.clean_limit=3", "study.percentile=0")
    study = optuna.create_study(direction="minimize")
    study.optimize(goal("cross_entropy", tmp_path, *settings), n_trials=1)
    assert study.trials[0].value == made.at("1d").max()  # the bad end of the chips is above
    assert study.trials[0].constraints == {"clean": pytest.approx(0.02)}  # 3.02 is no clean score that counts
    for lost in (float("nan"), float("inf")):
        broken: Any = report(3.0, metric="cross_entropy", clean=lost)
        monkeypatch.setattr(Training, "judge", lambda *_, made=broken, **__: made)
        study.optimize(goal("cross_entropy", tmp_path / str(lost), *settings), n_trials=1)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "PRUNED"]
