from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study.beginning import merged, open_study, refuse_code, stored_settings, without_secrets
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.tune import configure

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


@pytest.fixture(autouse=True)
def no_storage_from_outside(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)


def config(*settings: str) -> StudyConfig:
    return configure(settings=["model=mlp", "data.limit=100", "study.name=mine", *settings])


def opened(metric: str, *settings: str) -> Any:
    made = config("tracking.enabled=false", *settings)
    rule = criterion(made, METRICS[metric])
    return open_study(made, rule, StudyRuns(made, load_data(made), rule), lambda *_: None)


@pytest.mark.parametrize(("metric", "better"), [("accuracy", "higher"), ("cross_entropy", "lower")])
def test_what_it_was_begun_with_is_kept(metric: str, better: str) -> None:
    study = opened(metric, "noise.end=3")
    assert [way.name for way in study.directions] == [{"higher": "MAXIMIZE", "lower": "MINIMIZE"}[better]]
    assert study.metric_names == [f"drifted {metric}"]
    stored = stored_settings(config())
    assert stored is not None
    assert stored["noise"]["end"] == 3
    assert opened(metric, "noise.end=3").user_attrs == study.user_attrs
    assert stored_settings(config("study.name=another")) is None
    other = {"accuracy": "cross_entropy", "cross_entropy": "accuracy"}[metric]
    with pytest.raises(
        ValueError, match=rf"'mine' was begun by another metric \(metric: {metric}.*now metric: {other}"
    ):
        opened(other, "noise.end=3")
    with pytest.raises(ValueError, match=r"was begun with noise\.end=3\.0, now it is 1\.0"):
        opened(metric)


def test_a_study_of_before_is_one_of_accuracy() -> None:
    study = opened("accuracy")
    study.set_user_attr("analogsim:metric", None)  # they have none
    with pytest.raises(ValueError, match="begun by another metric"):
        opened("cross_entropy")
    assert opened("accuracy").study_name == "mine"


def test_settings_are_merged_but_search_spaces_are_not() -> None:
    below = {"noise": {"end": 1.0, "ramp": 0.5}, "search": {"noise": {"end": {"low": 1, "high": 2}}}, "seed": 3}
    above = {"noise": {"end": 2.0}, "search": {"noise": {"ramp": {"low": 0.1, "high": 0.2}}}}
    assert merged(below, above) == {"noise": {"end": 2.0, "ramp": 0.5}, "search": above["search"], "seed": 3}


def test_code_that_only_the_study_names_is_not_run() -> None:
    begun: dict[str, Any] = {"model": "nets.py:build", "data": {"name": "my.nets:data"}, "noise": {"end": 2.0}}
    with pytest.raises(ValueError, match=r"study 'my own' names code, my.nets:data, nets.py:build, which") as told:
        refuse_code(begun, {"seed": 1}, "my own")
    command = "analogsim tune --study 'my own' --data my.nets:data --model nets.py:build (or --trust"
    assert command in str(told.value)
    with pytest.raises(ValueError, match=r"names code, my.nets:data, which"):
        refuse_code(begun, {"model": "nets.py:build"}, "my own")
    with pytest.raises(ValueError, match=r"names code, nets.py:build, which"):  # another one is not this one
        refuse_code(begun, {"model": "nets.py:other", "data": {"name": "my.nets:data"}}, "my own")
    refuse_code(begun, {"model": "nets.py:build", "data": {"name": "my.nets:data"}}, "my own")
    for source in ("digits", "folder:images", "text:book", "npz:a.npz"):
        refuse_code({"data": {"name": source}, "model": "mlp"}, {}, "mine")
    searched = {"search": {"model": {"choices": ["mlp", "nets.py:build"]}, "noise": {"end": {"low": 1, "high": 2}}}}
    with pytest.raises(ValueError, match=r"study 'mine' searches among code, nets.py:build, which .*\[search\] again"):
        refuse_code(searched, {}, "mine")
    refuse_code(searched, searched, "mine")


def test_no_password_is_kept_where_others_read() -> None:
    secret = ["study.storage=postgresql://me:hunter2@host/name", "tracking.uri=http://me:hunter2@host"]
    given = config(*secret)
    assert "hunter2" in str(given)
    assert "hunter2" not in str(without_secrets(given))
    assert "hunter2" not in str(training_config(given))
    open_server = config("tracking.uri=http://host:5000")
    assert without_secrets(open_server).tracking.uri == "http://host:5000"
