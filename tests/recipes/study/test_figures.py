from __future__ import annotations

from typing import Any

import pytest

from analogsim.recipes.study.figures import figures, file_name, importances

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


def study_of(count: int, *, many: bool = False) -> Any:
    study = optuna.create_study(directions=["maximize"] * (2 if many else 1))
    for index in range(count):
        trial = optuna.trial.create_trial(
            params={"x": float(index), "y": float(index % 2)},
            distributions={name: optuna.distributions.FloatDistribution(0, 10) for name in "xy"},
            values=[index / 10] * (2 if many else 1),
        )
        study.add_trial(trial)
    return study


def test_importances_need_several_trials() -> None:
    assert importances(study_of(3)) == {}
    found = importances(study_of(8))
    assert set(found) == {"x", "y"}
    assert sum(found.values()) == pytest.approx(1)


def test_there_are_as_many_figures_as_the_trials_allow() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    assert list(figures(study_of(0), ["drifted accuracy"])) == []
    few = [path for path, _ in figures(study_of(2), ["drifted accuracy"])]
    assert few == ["figures/intermediate_values.png", "figures/history.png"]
    many = [path for path, _ in figures(study_of(5, many=True), ["clean accuracy", "drifted F1/macro"])]
    assert many[0] == "figures/pareto_front.png"
    assert "figures/history_clean accuracy.png" in many
    assert "figures/history_drifted F1_macro.png" in many


def test_the_name_of_an_objective_is_part_of_a_path() -> None:
    assert file_name("drifted F1/macro (%)") == "drifted F1_macro ___"
