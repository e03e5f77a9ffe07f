"""How a trial ended: as its folder tells, as Optuna has it, and as MLflow has been told."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from analogsim.utils.digests import unsealed

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

OUTCOME, CHECKPOINT = "trial.json", "checkpoint.pt"
FOLDER, RUN, LOGGED = "folder", "run_id", "logged"  # attributes of a trial
SENT = "analogsim:logged"  # the same as LOGGED, of trials that were sent when they had ended; of the study


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial's checkpoint and report lie."""
    return folder / f"trial-{number:04d}"


@dataclass
class Outcome:
    """How a trial went, as far as MLflow is to know.

    Attributes:
        number: of the trial.
        folder: where its checkpoint and report lie.
        run_id: of its MLflow run; None where none could be made.
        state: COMPLETE, PRUNED, STOPPED (by Ctrl-C) or FAIL.
        why: it was pruned.
        metrics: of the whole trial.
    """

    number: int
    folder: str
    run_id: str | None = None
    state: str = "FAIL"
    why: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


def unsent(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have ended, but not in MLflow, or not in the same way."""
    sent = study.user_attrs.get(SENT, {})
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
        and FOLDER in trial.user_attrs
        and trial.state.name not in (in_optuna(trial.user_attrs.get(LOGGED)), sent.get(str(trial.number)))
    ]


def folder_of(trial: FrozenTrial, place: Path | None = None) -> Path:
    """Where a trial's checkpoint and report lie: where its worker noted, or in the study's folder, which was moved.

    Args:
        trial: of a study.
        place: the study's folder as it is now, if it is known.
    """
    noted = Path(trial.user_attrs[FOLDER])
    moved = None if place is None else trial_folder(place, trial.number)
    return moved if moved is not None and moved.is_dir() and not noted.is_dir() else noted


def can_be_sent(trial: FrozenTrial, place: Path | None = None) -> bool:
    """Whether all that there is to tell of a trial lies here; that it failed can be told from anywhere."""
    return trial.state.name == "FAIL" or (folder_of(trial, place) / CHECKPOINT).is_file()


def outcome_of(trial: FrozenTrial, place: Path | None = None) -> tuple[Outcome, bool]:
    """How a trial ended, and whether its worker itself ended it, and tells MLflow nothing any more."""
    folder, run_id = str(folder_of(trial, place)), trial.user_attrs.get(RUN)
    path = Path(folder) / OUTCOME
    if path.is_file():
        try:
            outcome = Outcome(**{**unsealed(json.loads(path.read_text(encoding="utf-8"))), "folder": folder})
        except (ValueError, TypeError) as error:  # what it holds besides is in the storage and in the other files
            warnings.warn(f"study: {str(path)!r} is left out: {error}", RuntimeWarning, stacklevel=2)
        else:
            if in_optuna(outcome.state) == trial.state.name:
                return outcome, True
            run_id = run_id or outcome.run_id
    return Outcome(trial.number, folder, run_id, trial.state.name, why="its worker died, or was taken for dead"), False


def in_optuna(state: str | None) -> str | None:
    """Optuna's name for a state."""
    return "FAIL" if state == "STOPPED" else state
