"""What a worker of a study does: one trial after the other, until there is none left to do, by anybody."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from analogsim.recipes.study import final_comparison
from analogsim.recipes.study.criterion import Criterion
from analogsim.recipes.study.objectives import Objective, Surplus
from analogsim.recipes.study.optuna_private import hidden_by
from analogsim.recipes.study.shared_database import storage_errors, told
from analogsim.recipes.study.trials import at_work, give_up, work_left
from analogsim.utils.times import seconds

if TYPE_CHECKING:
    import optuna

_FAILURES = 3  # of the storage, one after the other, each after waiting for it
_DRAW = 20.0  # progress is drawn at most every so many times as long as drawing takes


def take_trials(study: optuna.Study, goal: Objective, show: Callable[[str], None]) -> bool:
    """Do trials until there is none left to do, by anybody; False where only the time is up."""
    config = goal.config
    until = math.inf if config.study.timeout is None else time.monotonic() + seconds(config.study.timeout)
    drawn, drawing, waiting = -math.inf, 0.0, False

    def step() -> bool | None:
        nonlocal drawn, drawing, waiting
        goal.runs.send_unsent(study, wait=False)
        in_time = time.monotonic() < until
        if in_time and work_left(study, config.study.trials):
            waiting = False
            _one_trial(study, goal, show)
            if time.monotonic() > drawn + _DRAW * drawing:
                began = time.monotonic()
                goal.runs.log_progress(study, wait=False)
                drawn, drawing = time.monotonic(), time.monotonic() - began
            return None
        others = at_work(study)
        if not others and not (in_time and work_left(study, config.study.trials)):
            return True
        if others and not in_time:
            return False
        if others and not waiting:
            show(f"waiting for {others} trial(s) of other workers, in case one of them dies")
        waiting = True
        time.sleep(min(5.0, config.study.heartbeat / 2))
        return None

    failures = 0
    while True:
        try:
            done = step()
        except storage_errors() as error:  # a server that was stopped in the middle of an answer
            failures += 1
            if failures == _FAILURES:
                raise
            show(f"the storage failed, and is tried again: {told(error)}")
            continue
        failures = 0
        if done is not None:
            return done


def _one_trial(study: optuna.Study, goal: Objective, show: Callable[[str], None]) -> None:
    import optuna

    goal.forget()
    known = len(goal.notes)
    try:
        _optimize(study, goal)
    except KeyboardInterrupt:
        if goal.number is not None:  # tried again, from its last checkpoint, when the study goes on
            with contextlib.suppress(*storage_errors()):  # of a database that is away: others find this worker dead
                give_up(study, goal.number)
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError) as refused:
        if not (goal.lost or goal.ended or _was_given_away(study, goal, refused)):
            raise
        if goal.number is not None:
            show(f"trial {goal.number}: the others took this worker for dead, and try it again")
        return
    except Exception as hiding:
        error = hidden_by(hiding, storage_errors())
        if goal.number is not None and isinstance(error, (OSError, *storage_errors())):  # no fault of the trial
            give_up(study, goal.number, goal.config.study.retries)
        raise error from error.__cause__
    for note in goal.notes[known:]:
        show(note)
    if goal.number is not None:
        show(_line(study, goal.criterion, goal.number))


def _optimize(study: optuna.Study, goal: Objective) -> None:
    """One trial; a signal that ends it is raised also where Optuna could not tell the storage, and raises that."""
    try:
        study.optimize(goal, n_trials=1, catch=(Surplus,))
    except Exception:
        if isinstance(goal.raised, KeyboardInterrupt):
            raise goal.raised from None
        raise


def _was_given_away(study: optuna.Study, goal: Objective, error: Exception) -> bool:
    """Whether it is Optuna that refuses to end the trial at work, which others have ended, whatever happened in it."""
    if goal.begun is None or error is goal.raised:
        return False
    return study.get_trials(deepcopy=False)[goal.begun].state.is_finished()


def _line(study: optuna.Study, rule: Criterion, number: int) -> str:
    trial = study.get_trials(deepcopy=False)[number]
    best = final_comparison.best_trial(study)
    values = "  ".join(rule.shown(value) for value in trial.values or ())
    until = "" if best is None else f"  (best: trial {best.number}, {rule.shown(best.values[-1])})"
    took = trial.duration.total_seconds() if trial.duration else 0.0
    settings = ", ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in trial.params.items())
    return f"trial {number}  {trial.state.name.lower()}  {values}{until}  {took:.0f} s  {settings}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
