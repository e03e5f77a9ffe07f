from __future__ import annotations

from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.study import final_comparison
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.final_comparison import CONTROL, DEFAULT, PLAIN, TUNED, best_trial, why_none

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
LR, END = "optimization.lr", "noise.end"


def study_of(*trials: tuple[dict[str, float], list[float]], directions: int = 1, way: str = "maximize") -> Any:
    study = optuna.create_study(directions=[way] * directions)
    for params, values in trials:
        distributions = {name: optuna.distributions.FloatDistribution(0, 10) for name in params}
        attributes = {"clean": values[0], "default": True} if params.get(END) == 2 else {"clean": values[0]}
        trial = optuna.trial.create_trial(
            params=params, distributions=distributions, values=values, user_attrs=attributes
        )
        study.add_trial(trial)
    return study


def test_the_best_trial_of_a_front_is_the_best_on_the_drifted_chip() -> None:
    assert best_trial(study_of()) is None
    assert best_trial(study_of(directions=2)) is None
    front = study_of(({END: 1}, [0.9, 0.1]), ({END: 2}, [0.5, 0.6]), ({END: 3}, [0.6, 0.6]), directions=2)
    best = best_trial(front)
    assert best is not None
    assert best.number == 2
    front = study_of(({END: 1}, [9, 1]), ({END: 2}, [5, 6]), ({END: 3}, [4, 7]), directions=2, way="minimize")
    best = best_trial(front)
    assert best is not None
    assert best.number == 0
    mixed = optuna.create_study(directions=["minimize", "maximize"])
    for values in ([3.0, 1.0], [1.0, 1.0], [2.0, 0.5]):
        mixed.add_trial(optuna.trial.create_trial(values=values))
    best = best_trial(mixed)
    assert best is not None
    assert best.number == 1


def test_each_gain_has_its_contender() -> None:
    config = load_toml(StudyConfig, None, [])
    study = study_of(({END: 2, LR: 0.003}, [0.8]), ({END: 4, LR: 0.01}, [0.9]))
    best = best_trial(study)
    assert best is not None
    found = {each.name: each for each in final_comparison._contenders(study, config, best)}
    assert list(found) == [PLAIN, CONTROL, DEFAULT, TUNED]
    assert [each.aware for each in found.values()] == [False, False, True, True]
    assert [each.trial for each in found.values()] == [None, None, 0, 1]
    assert [each.folder for each in found.values()] == ["plain", "plain-trial-0001", "default", "tuned-trial-0001"]
    assert (found[CONTROL].config.optimization.lr, found[CONTROL].config.noise.end) == (0.01, config.noise.end)
    assert (found[TUNED].config.optimization.lr, found[TUNED].config.noise.end) == (0.01, 4)
    only_noise = study_of(({END: 4}, [0.9]))
    names = [each.name for each in final_comparison._contenders(only_noise, config, only_noise.best_trial)]
    assert names == [PLAIN, DEFAULT, TUNED]  # nothing else was tuned


def test_why_there_is_no_best_trial() -> None:
    config = load_toml(StudyConfig, None, ["study.min_clean=0.95"])
    rule = criterion(config, METRICS["accuracy"])
    assert why_none(study_of(), rule) == "no trial is complete, so there is nothing to compare"
    told = why_none(study_of(({END: 4}, [0.9])), rule)
    assert "the clean accuracy of study.min_clean=0.95; the highest is 0.9000: set a lower bound" in told
    lower = criterion(load_toml(StudyConfig, None, ["study.clean_limit=12"]), METRICS["cross_entropy"])
    told = why_none(study_of(({END: 4}, [14.0]), ({END: 3}, [13.5]), way="minimize"), lower)
    assert "the clean cross_entropy of study.clean_limit=12; the lowest is 13.5000: set a higher bound" in told
