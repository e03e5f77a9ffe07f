from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.study.outcome import Outcome, can_be_sent, in_optuna, outcome_of, trial_folder, unsent

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


def ended(folder: Path, state: str, **attributes: Any) -> Any:
    study = optuna.create_study()
    value = 1.0 if state == "COMPLETE" else None
    given = {"folder": str(folder), **attributes}
    study.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState[state], value=value, user_attrs=given))
    return study


def test_its_folder_tells_how_a_trial_ended_unless_optuna_has_it_otherwise(tmp_path: Path) -> None:
    (trial,) = ended(tmp_path, "FAIL", run_id="abc").trials
    lost = Outcome(0, str(tmp_path), "abc", "FAIL", why="its worker died, or was taken for dead")
    assert outcome_of(trial) == (lost, False)
    stopped = Outcome(0, str(tmp_path), "abc", "STOPPED", metrics={"seconds": 2.0})
    (tmp_path / "trial.json").write_text(json.dumps(asdict(stopped)))
    assert outcome_of(trial) == (stopped, True)  # by Ctrl-C, which Optuna calls a failure too
    assert in_optuna("STOPPED") == in_optuna("FAIL") == "FAIL"
    (tmp_path / "trial.json").write_text(json.dumps(asdict(Outcome(0, str(tmp_path), "abc", "COMPLETE"))))
    assert outcome_of(trial) == (lost, False)


def test_a_trial_of_a_study_that_was_moved_lies_in_it(tmp_path: Path) -> None:
    (trial,) = ended(tmp_path / "old" / "trial-0000", "COMPLETE").trials
    new = tmp_path / "new" / "trial-0000"
    new.mkdir(parents=True)
    done = Outcome(0, trial.user_attrs["folder"], "abc", "COMPLETE")
    (new / "trial.json").write_text(json.dumps(asdict(done)))
    (new / "checkpoint.pt").write_text("")
    assert not can_be_sent(trial)
    assert can_be_sent(trial, tmp_path / "new")
    assert outcome_of(trial, tmp_path / "new") == (Outcome(0, str(new), "abc", "COMPLETE"), True)
    old = tmp_path / "old" / "trial-0000"
    old.mkdir(parents=True)  # where it was noted it is taken, whatever lies elsewhere
    assert not can_be_sent(trial, tmp_path / "new")


def test_what_mlflow_holds_in_the_same_way_is_sent(tmp_path: Path) -> None:
    assert len(unsent(ended(tmp_path, "COMPLETE"))) == 1
    assert unsent(ended(tmp_path, "COMPLETE", logged="COMPLETE")) == []
    assert unsent(ended(tmp_path, "FAIL", logged="STOPPED")) == []
    (trial,) = unsent(ended(tmp_path, "FAIL", logged="COMPLETE"))
    assert can_be_sent(trial)  # from anywhere
    (trial,) = unsent(ended(tmp_path, "COMPLETE"))
    assert not can_be_sent(trial)
    (tmp_path / "checkpoint.pt").write_text("")
    assert can_be_sent(trial)
    assert trial_folder(tmp_path, 7) == tmp_path / "trial-0007"
