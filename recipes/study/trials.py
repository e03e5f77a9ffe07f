"""The trials of a study that many workers share: how many are left to do, and what becomes of those of the dead."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from analogsim.recipes.study import shared_database
from analogsim.recipes.study.lease import exchange
from analogsim.recipes.study.storages import quietly

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

DEFAULT = "default"  # the attribute of the trial that has the values of the configuration
_ID = "analogsim:id"


def counted(trials: Sequence[FrozenTrial]) -> int:
    """How many trials are done, at work or waiting; one that failed is as if it had never been."""
    from optuna.trial import TrialState

    return sum(trial.state != TrialState.FAIL for trial in trials)


def work_left(study: optuna.Study, wanted: int) -> bool:
    """Whether there is a trial to be started: one that waits, or one fewer than wanted."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return any(trial.state == TrialState.WAITING for trial in trials) or counted(trials) < wanted


def surplus(study: optuna.Study, number: int, wanted: int) -> bool:
    """Whether trial `number`, already begun, is one too many: two workers may have seen the same last place free."""
    return counted([trial for trial in study.get_trials(deepcopy=False) if trial.number < number]) >= wanted


def at_work(study: optuna.Study) -> int:
    """How many trials are being worked on; the dead among them are given up first."""
    import optuna
    from optuna.trial import TrialState

    with quietly():
        optuna.storages.fail_stale_trials(study)
    shared_database.first_beats(study)
    return sum(trial.state == TrialState.RUNNING for trial in study.get_trials(deepcopy=False))


def try_again(study: optuna.Study, trial: FrozenTrial, retries: int | None = None) -> None:
    """Put a trial that was given up back into the queue, once, unless it was tried that often already."""
    import optuna

    if shared_database.retried(study, trial.number):
        return
    # How it was measured and where it lies is its own; the next one tells its own.
    trial.user_attrs = {key: value for key, value in trial.user_attrs.items() if key == DEFAULT}
    with quietly():
        optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=retries)(study, trial)


def give_up(study: optuna.Study, number: int, retries: int | None = None) -> None:
    """End a trial of this worker that it cannot finish, so that it is tried again at once."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False)[number].state == TrialState.RUNNING:
        study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
    trial = study.get_trials()[number]
    if trial.state == TrialState.FAIL:
        try_again(study, trial, retries)


def identity(study: optuna.Study) -> str:
    """What tells a study from another one of the same name."""
    if _ID not in study.user_attrs:
        exchange(study, _ID, None, uuid.uuid4().hex)
    return str(study.user_attrs[_ID])
