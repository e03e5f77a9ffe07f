"""Studies of other tasks than telling classes: direction, unit and name of the metric go through everything."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analogsim.evaluation import Metric
from analogsim.evaluation.report import Report
from analogsim.recipes import tune
from analogsim.recipes.cli import main
from analogsim.recipes.compare import compare
from analogsim.recipes.tasks.task import TASKS, Regression
from analogsim.recipes.training.loop import Training
from analogsim.recipes.tune import configure, objective
from analogsim.recipes.tune import tune as run_study

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")

CODE = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analogsim.evaluation import Metric
from analogsim.recipes.tasks.task import Regression


class Distance(Regression):
    name = "distance"
    metric = Metric("distance (mm)", lambda a, t: (a - t).abs().flatten(1).mean(1), unit="mm", higher_is_better=False)
    also = (Metric("within 1 mm", lambda a, t: ((a - t).abs() < 1).float().flatten(1).mean(1), unit="%"),)


def data():
    x = torch.randn(240, 4, generator=torch.Generator().manual_seed(0))
    y = x[:, :1] * x[:, 1:2] + x[:, 2:3]
    return tuple(TensorDataset(x[first:last], y[first:last]) for first, last in ((0, 160), (160, 200), (200, 240)))


def build():
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


def narrow():
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))


class Characters(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, 8)
        self.head = nn.Linear(8, vocabulary)

    def forward(self, tokens):
        return self.head(self.embedding(tokens))
"""
SETTINGS = [
    *("data.batch_size=32", "optimization.epochs=1", "optimization.lr=0.02", "evaluation.chips=3", "study.trials=2"),
    *('evaluation.times=["1s", "1d"]', "evaluation.validation_chips=1", "study.chips=3", "study.heartbeat=2"),
    *("study.pruner=none", "search={noise={end={low=0.5, high=8.0}}}"),
    "search.optimization.lr={low=0.0001, high=0.05, log=true}",
]
OWN = ["model=nets.py:build", "data.name=nets.py:data", "task=nets.py:Distance", "study.name=mine"]
TEXT = ["model=nets.py:Characters", "data.name=text:book.txt(context=16)", "study.name=letters"]
OFF = "tracking.enabled=false"


@pytest.fixture
def code(alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's own network, data and task, and a text."""
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    (alone / "nets.py").write_text(CODE)
    (alone / "book.txt").write_text("the quick brown fox jumps over the lazy dog; " * 60)
    return alone


def report_of(result: tune.Tuned, number: int) -> Report:
    return Report.from_dict(json.loads((result.folder / f"trial-{number:04d}" / "report.json").read_text()))


def test_an_error_is_made_small(code: Path) -> None:
    lines: list[str] = []
    result = run_study(configure(settings=[*SETTINGS, *OWN, OFF, "study.percentile=10"]), show=lines.append)
    study, final = result.study, result.final
    assert ([way.name for way in study.directions], study.metric_names) == (["MINIMIZE"], ["drifted distance (mm)"])
    values = [trial.value for trial in study.trials]
    assert values == [pytest.approx(np.percentile(report_of(result, n).at("1d"), 90)) for n in range(2)]
    assert final is not None
    assert final.trial.value == study.best_value == min(values)
    assert all(made.unit == "mm" and made.tail == 0.95 for made in final.reports["tuned"])
    text = str(result)
    assert "distance (mm) of the tuned network 1d after programming [mm], 90th percentile of chips:" in text
    assert "test distance (mm) [mm] on fresh chips" in text
    assert "95th pct. 1d" in text
    assert "%" not in text[text.index("\n\n", text.index("setting")) :]
    told = [line for line in lines if line.startswith("trial ")]
    assert f"(best: trial {final.trial.number}, {min(values):.4g} mm)" in told[-1]


@pytest.mark.slow
def test_a_front_of_two_errors_and_a_bound_on_the_clean_one(code: Path) -> None:
    given = [*SETTINGS, *OWN, OFF, "study.trials=3"]
    result = run_study(configure(settings=[*given, "study.pareto=true", "study.name=front"]))
    study, final = result.study, result.final
    assert [way.name for way in study.directions] == ["MINIMIZE", "MINIMIZE"]
    assert final is not None
    assert final.trial.values[1] == min(trial.values[1] for trial in study.best_trials)
    assert "clean against drifted distance (mm) [mm], the front:" in str(result)
    clean = sorted(trial.user_attrs["clean"] for trial in study.trials)
    bound = (clean[0] + clean[1]) / 2  # only one trial of these is below it
    result = run_study(configure(settings=[*given, f"study.clean_limit={bound}", "study.name=bounded"]))
    assert result.study.best_trial.user_attrs["clean"] <= bound
    assert Counter(trial.user_attrs["clean"] <= bound for trial in result.study.trials) == Counter(
        all(value <= 0 for value in trial.constraints.values()) for trial in result.study.trials
    )
    none = run_study(configure(settings=[*SETTINGS, *OWN, OFF, "study.clean_limit=1e-6", "study.name=too low"]))
    assert none.final is None
    assert "no trial reaches the clean distance (mm) of study.clean_limit=1e-06; the lowest is" in str(none)


def test_code_is_named_again_or_trusted(code: Path, fail: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run_study(configure(settings=[*SETTINGS, *OWN, OFF, "study.trials=1"]))
    (code / "nets.py").write_text(CODE + "\nprint('it runs')\n")
    told = fail("tune", "--study", "mine", "--trials", "2")
    assert told.startswith("study 'mine' names code, ")
    for option, text in (("data", "nets.py:data"), ("model", "nets.py:build"), ("task", "nets.py:Distance")):
        assert f"--{option} {text}" in told
    main(["tune", "--study", "mine", "--trials", "2", "--trust", "--quiet"])
    assert "it runs" in capsys.readouterr().out
    named = ["--data", "nets.py:data", "--model", "nets.py:build", "--task", "nets.py:Distance"]
    main(["tune", "--study", "mine", "--trials", "2", *named, "--quiet"])
    study = optuna.load_study(study_name="mine", storage="sqlite:///optuna.db")
    assert len(study.trials) == 2
    (code / "nets.py").write_text(CODE.replace("higher_is_better=False", "higher_is_better=True"))
    assert "was begun by another metric" in fail("tune", "--study", "mine", "--trials", "4", *named, "--quiet")


@pytest.mark.slow
def test_networks_of_ones_own_are_searched(code: Path) -> None:
    choices = "search.model=['nets.py:build', 'nets.py:narrow']"
    result = run_study(configure(settings=[*SETTINGS, *OWN, OFF, choices, "study.name=both"]))
    assert {trial.params["model"] for trial in result.study.trials} <= {"nets.py:build", "nets.py:narrow"}
    again = ["model=nets.py:build", "data.name=nets.py:data", "task=nets.py:Distance", "study.name=both"]
    with pytest.raises(ValueError, match=r"searches among code, nets\.py:build, nets\.py:narrow, which"):
        tune.load(None, again)
    assert tune.load(None, again, trust=True).search == configure(settings=[*SETTINGS, *OWN, choices]).search


def test_a_language_model(code: Path) -> None:
    result = run_study(configure(settings=[*SETTINGS, *TEXT, OFF]))
    assert [way.name for way in result.study.directions] == ["MINIMIZE"]
    assert result.final is not None
    (metric,) = {made.metric for made in result.final.reports["tuned"]}
    assert metric == TASKS["language-modelling"].metric.name
    assert f"test {metric} on fresh chips" in str(result)
    assert "95th pct. 1d" in str(result)


class Absolute(Regression):
    """A task that is handed over as a value."""

    name = "absolute"
    metric = Metric("absolute", lambda answer, target: (answer - target).abs().flatten(1), higher_is_better=False)
    also = ()


def test_values_in_python(code: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(120, 4)
    data = tuple(TensorDataset(part, part.sum(1, keepdim=True)) for part in (x[:60], x[60:90], x[90:]))
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    before = [weight.clone() for weight in network.parameters()]
    worst = Metric("worst", lambda answer, target: (answer - target).abs().amax(1), higher_is_better=False)
    config = configure(settings=[*SETTINGS, OFF, "study.name=values"])
    result = run_study(config, model=network, data=data, task=Absolute(), metric=worst)
    assert result.final is not None
    assert {made.metric for made in result.final.reports["plain"]} == {"worst"}
    assert all(torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))  # copies learn
    goal = objective(settings=[*SETTINGS, OFF], model=network, data=data, task=Absolute(), metric=worst)
    study = optuna.create_study(direction="minimize")
    study.enqueue_trial(result.study.trials[0].params)
    study.optimize(goal, n_trials=1)
    assert study.trials[0].value == result.study.trials[0].value
    with pytest.raises(ValueError, match=r"search\.model: there is one network, which was handed over"):
        objective(settings=[*SETTINGS, OFF, "search.model=['mlp', 'lenet5']"], model=network, data=data)
    unknown = Metric("mine", lambda answer, target: (answer - target).flatten(1))
    with pytest.raises(ValueError, match=r"tune: it is not known whether a higher 'mine' is better"):
        run_study(config, model=network, data=data, task=Absolute(), metric=unknown)


def test_what_cannot_be_searched_is_told_before_any_work(code: Path) -> None:
    for change, words in (
        ("optimization.epochs=0", "epochs=0 trains nothing, so that there is nothing to search"),
        ("search.task=['regression', 'classification']", "task cannot be searched"),
        ("search.metric=['accuracy', 'loss']", "metric cannot be searched"),
        ("model=nets.py:biuld", "did you mean 'build'"),
        ("search.model=['nets.py:build', 'nets.py:biuld']", "did you mean 'build'"),
    ):
        with pytest.raises((ValueError, ImportError), match=words):
            configure(settings=[*SETTINGS, *OWN, OFF, change])
    assert {path.name for path in code.iterdir()} <= {"nets.py", "book.txt", "__pycache__"}


def test_going_on_names_the_code(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run_epoch", stopped)
    with pytest.raises(KeyboardInterrupt) as told:
        run_study(configure(settings=[*SETTINGS, *OWN, OFF]))
    named = "--data nets.py:data --model nets.py:build --task nets.py:Distance"
    assert told.value.__notes__ == [f"go on with: analogsim tune --study mine {named}"]


def test_a_study_is_not_lost_to_what_is_reported_beside(code: Path) -> None:
    def broken(answer: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise TypeError("it takes something else")

    class Besides(Absolute):
        also = (Metric("broken", broken),)

    x = torch.linspace(-1, 1, 60)[:, None]
    data = tuple(TensorDataset(x, x.square()) for _ in range(3))
    config = configure(settings=[*SETTINGS, OFF, "study.trials=1"])
    with pytest.warns(RuntimeWarning, match="broken is left out of the comparison: it takes something else"):
        result = run_study(config, model=nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 1)), data=data, task=Besides())
    assert result.final is not None


@pytest.mark.slow
def test_an_error_in_mlflow(here: Path, code: Path, store: Any) -> None:
    result = run_study(configure(settings=[*SETTINGS, *OWN]))
    runs = store.client.search_runs(["1"])
    by_role = {role: [run for run in runs if run.data.tags["role"] == role] for role in ("study", "trial", "final")}
    assert len(by_role["trial"]) == 2
    part = "distance _mm_"  # MLflow takes no parentheses
    for run in by_role["trial"]:
        trial = result.study.trials[int(run.data.tags["optuna.trial.number"])]
        mean, tail = (run.data.metrics[f"search/{part}/drifted_1d{end}"] for end in ("", "_p95"))
        assert (mean + tail) / 2 == pytest.approx(trial.value)
        assert {f"search/{part}/drifted_1d_p95", f"validation/{part}/drifted_1d"} <= set(run.data.metrics)
        assert (run.data.tags["metric"], run.data.tags["metric.better"]) == ("distance (mm)", "lower")
    for run in by_role["final"]:
        assert {f"test/{part}/drifted_1d", "test/within 1 mm/drifted_1d"} <= set(run.data.metrics)
        assert run.data.tags["metric"] == "distance (mm)"
    assert not [name for run in runs for name in run.data.metrics if "accuracy" in name]
    shown = compare(experiment="analogsim", filter="tags.role = 'final'", order=f"test/{part}/drifted_1d")
    means = [made.at("1d").mean() for made in shown.reports.values()]
    assert means == sorted(means)
    (code / "nets.py").unlink()
    folders = sorted(path.parent for path in (result.folder / "final").glob("*/report.json"))
    again = compare(folders)  # nothing that the runs name is imported
    assert len(again.reports) == len(folders)
    assert "95th pct." in str(again)
