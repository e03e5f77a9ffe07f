"""No network is chosen by the chips that it is judged on: each purpose has chips of its own, by number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import analogsim
from analogsim.recipes.tune import configure, tune

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")

SETTINGS = [
    "model=mlp",
    "data.limit=200",
    "data.batch_size=16",
    "data.validation=0.3",
    "optimization.epochs=2",
    "evaluation.chips=3",
    'evaluation.times=["1d"]',
    "evaluation.validation_chips=2",
    "study.chips=4",
    "study.trials=2",
    "study.final_seeds=1",
    "study.heartbeat=2",
    "study.pruner='none'",
    "search.optimization.lr={low=0.0001, high=0.05, log=true}",
    "tracking.enabled=false",
]


def test_training_search_and_final_comparison_have_chips_of_their_own(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    used: set[int] = set()
    evaluate = analogsim.evaluate

    def noted(*args: Any, **options: Any) -> analogsim.Report:
        report = evaluate(*args, **options)
        used.update(report.seeds)
        return report

    monkeypatch.setattr(analogsim, "evaluate", noted)
    found = tune(configure(settings=SETTINGS), show=lambda line: None)
    trials = [json.loads(path.read_text()) for path in (alone / found.folder).glob("trial-*/report.json")]
    assert len(trials) == 2
    search = {seed for report in trials for seed in report["seeds"]}
    assert found.final is not None
    final = {seed for reports in found.final.reports.values() for report in reports for seed in report.seeds}
    validation = used - search - final
    assert final == set(range(3))
    assert validation == set(range(1_000_000, 1_000_002))
    assert search == set(range(2_000_000, 2_000_004))
