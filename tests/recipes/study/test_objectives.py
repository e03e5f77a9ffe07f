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


class Epochs:
    """A training of so many epochs, of which `made` are made; each scores worse than the one before."""

    def __init__(self, made: int, total: int) -> None:
        self._total = total
        self.history = [self._metrics(epoch) for epoch in range(1, made + 1)]
        self.told: list[tuple[int, float]] = []

    @staticmethod
    def _metrics(epoch: int) -> dict[str, float]:
        return {"validation/accuracy/drifted_1d": 1 / epoch}

    @property
    def epoch(self) -> int:
        return len(self.history)

    @property
    def done(self) -> bool:
        return self.epoch == self._total

    def set_random_state(self) -> None:
        pass

    def save(self) -> None:
        pass

    def run_epoch(self, _: Any) -> dict[str, float]:
        self.history.append(self._metrics(self.epoch + 1))
        return self.history[-1]

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.told.append((step, values["validation/accuracy/drifted_1d"]))


@pytest.mark.parametrize(
    ("total", "settings", "state", "epochs"),
    [
        (3, [], "PRUNED", 2),  # by the first epoch of its own
        (2, [], "COMPLETE", 2),  # the last epoch is not for nothing
        (3, ["study.pareto=true"], "COMPLETE", 3),  # of several objectives none is reported on the way
    ],
)
def test_a_trial_that_is_behind_ends_at_once(
    tmp_path: Path, total: int, settings: list[str], state: str, epochs: int
) -> None:
    class Always(optuna.pruners.BasePruner):  # type: ignore[misc]
        def prune(self, study: Any, trial: Any) -> bool:
            return True

    objective, training = goal("accuracy", tmp_path, *settings), Epochs(made=1, total=total)

    def run(trial: Any) -> Any:
        objective._train(trial, training, training)  # type: ignore[arg-type]
        return [0.5, 0.5] if settings else 0.5

    study = optuna.create_study(directions=["maximize"] * (2 if settings else 1), pruner=Always())
    study.optimize(run, n_trials=1)
    (trial,) = study.trials
    assert (trial.state.name, training.epoch) == (state, epochs)
    known = {} if settings else {1: 1.0, 2: 0.5}  # those of a trial that is gone on with too
    assert trial.intermediate_values == known
    assert training.told == [(epoch, 1 / epoch) for epoch in range(2, epochs + 1)]
