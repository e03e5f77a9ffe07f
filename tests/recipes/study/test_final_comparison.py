from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.metrics import METRICS
from analogsim.evaluation.report import Report
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.study import final_comparison
from analogsim.recipes.study.criterion import criterion
from analogsim.recipes.study.final_comparison import CONTROL, DEFAULT, PLAIN, RATE, TUNED, best_trial, why_none
from analogsim.recipes.tracking.tracker import NoRun
from analogsim.recipes.training.setup import load_data
from tests.recipes.reports import report

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
    assert list(found) == [PLAIN, CONTROL, DEFAULT, RATE, TUNED]
    assert [each.aware for each in found.values()] == [False, False, True, True, True]
    assert [each.trial for each in found.values()] == [None, None, 0, None, 1]
    folders = ["plain", "plain-trial-0001", "default", "rate-trial-0001", "tuned-trial-0001"]
    assert [each.folder for each in found.values()] == folders
    assert (found[RATE].config.optimization.lr, found[RATE].config.noise.end) == (0.01, config.noise.end)
    assert (found[CONTROL].config.optimization.lr, found[CONTROL].config.noise.end) == (0.01, config.noise.end)
    assert (found[TUNED].config.optimization.lr, found[TUNED].config.noise.end) == (0.01, 4)
    only_noise = study_of(({END: 4}, [0.9]))
    names = [each.name for each in final_comparison._contenders(only_noise, config, only_noise.best_trial)]
    assert names == [PLAIN, DEFAULT, TUNED]  # nothing else was tuned
    only_rate = study_of(({LR: 0.01}, [0.9]))
    names = [each.name for each in final_comparison._contenders(only_rate, config, only_rate.best_trial)]
    assert names == [PLAIN, CONTROL, DEFAULT, TUNED]  # the tuned one has the default settings but for its rate


def test_why_there_is_no_best_trial() -> None:
    config = load_toml(StudyConfig, None, ["study.min_clean=0.95"])
    rule = criterion(config, METRICS["accuracy"])
    assert why_none(study_of(), rule) == "no trial is complete, so there is nothing to compare"
    told = why_none(study_of(({END: 4}, [0.9])), rule)
    assert "the clean accuracy of study.min_clean=0.95; the highest is 0.9000: set a lower bound" in told
    lower = criterion(load_toml(StudyConfig, None, ["study.clean_limit=12"]), METRICS["cross_entropy"])
    told = why_none(study_of(({END: 4}, [14.0]), ({END: 3}, [13.5]), way="minimize"), lower)
    assert "the clean cross_entropy of study.clean_limit=12; the lowest is 13.5000: set a higher bound" in told


def test_every_network_is_trained_with_every_seed_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run says whether it saw noise; what a trial has trained already is taken over for the first seed."""
    settings = ["model=mlp", "data.limit=50", "seed=5", "study.final_seeds=2", "tracking.enabled=false"]
    config = load_toml(StudyConfig, None, settings)
    study = study_of(({END: 2, LR: 0.003}, [0.8]), ({END: 4, LR: 0.01}, [0.9]))
    told: list[tuple[str, dict[str, str], str]] = []
    colors: list[str] = []
    judged: list[tuple[int, bool]] = []
    copied: list[tuple[str, str]] = []

    class Runs:
        def final(self, _: Any, name: str, training: Any, tags: dict[str, str]) -> NoRun:
            colors.append(tags.pop("mlflow.runColor"))
            told.append((name, tags, training.path.parent.name))
            return NoRun()

    def judge(training: Any, config: Any, part: Any) -> Report:
        judged.append((training.config.seed, training.aware))
        return report(0.5 if part is data.validation else 0.9)

    data = load_data(config)
    monkeypatch.setattr(final_comparison, "_train_and_judge", lambda training, c, d, *_: judge(training, c, d.test))
    monkeypatch.setattr(final_comparison, "_judged", judge)
    monkeypatch.setattr(
        final_comparison, "copy_checkpoint", lambda source, to: copied.append((source.parent.name, to.parent.name))
    )
    made = final_comparison.compare(study, config, data, tmp_path, Runs())  # type: ignore[arg-type]
    assert made is not None
    names = (PLAIN, CONTROL, DEFAULT, RATE, TUNED)
    folders = ("plain", "plain-trial-0001", "default", "rate-trial-0001", "tuned-trial-0001")
    kinds = ("plain", "plain", "hardware-aware", "hardware-aware", "hardware-aware")
    assert told == [
        (f"{name}, seed {seed}", {"training": kind, "network": name}, f"{folder}-seed{seed}")
        for seed in (5, 6)
        for name, folder, kind in zip(names, folders, kinds, strict=True)
    ]
    assert len(set(colors[:5])) == 5  # a colour for each network, with every seed
    assert colors[5:] == colors[:5]
    # of the tuned network also the score on the data of the search, once: with the first seed
    assert judged == [(5, aware) for aware in (0, 0, 1, 1, 1, 1)] + [(6, aware) for aware in (0, 0, 1, 1, 1)]
    assert copied == [("trial-0000", "default-seed5"), ("trial-0001", "tuned-trial-0001-seed5")]
    assert {name: len(reports) for name, reports in made.reports.items()} == dict.fromkeys(names, 2)
    assert (made.trial.number, made.searched, made.validation.clean) == (1, 0.9, report(0.5).clean)
    assert load_toml(Config, tmp_path / "best.toml", []).noise.end == 4


def test_the_table_of_networks_has_digital_scores_where_one_is_not_the_clean_one() -> None:
    one, two = [report(0.9), report(0.8)], [report(0.9, digital=0.7), report(0.8, digital=0.6)]
    assert "digital" not in final_comparison._networks({PLAIN: one})
    rows = [line.split() for line in final_comparison._networks({PLAIN: one, TUNED: two}).splitlines()]
    assert rows[1][:5] == ["network", "seed", "clean", "digital", "1s"]
    scores = {tuple(row[:2]): row[2:] for row in rows if row[:1] in ([PLAIN], [TUNED])}
    assert scores[PLAIN, "0"][:2] == ["92.00", "92.00"]
    assert scores[TUNED, "1"][:2] == ["82.00", "60.00"]
    assert scores[TUNED, "all"][:6] == ["87.00", "±", "7.07", "65.00", "±", "7.07"]
