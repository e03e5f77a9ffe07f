"""What we rely on in Optuna without a promise, in one place: private members, and the layout of its tables.

All was checked on Optuna 5.0.0; `tests/whole/test_private_members.py` asks each for what we rely on, and fails with its
name. `analogsim.recipes.study.shared_database` also puts methods of its own in the place of a storage's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    import sqlalchemy
    from optuna.trial import FrozenTrial

CHECKED = ("5.0.0",)


def make_database(file: Path) -> None:
    """Make the tables of a new database in a file, and close it."""
    from optuna.storages import RDBStorage

    storage = RDBStorage(f"sqlite:///{file.absolute().as_posix()}")
    storage.remove_session()
    storage.engine.dispose()


def storage_of(study: optuna.Study) -> Any:
    """The storage that a study is in, with Optuna's cache around a database."""
    return study._storage


def engine_of(study: optuna.Study) -> Any:
    """SQLAlchemy's engine of the database below a study; None where there is no database."""
    return getattr(getattr(storage_of(study), "_backend", None), "engine", None)


def journal_of(study: optuna.Study) -> str | None:
    """The file of a journal that a study is in; None where it is in something else."""
    backend = getattr(storage_of(study), "_backend", None)
    path = getattr(backend, "_file_path", None)
    return path if isinstance(path, str) else None


def watch_by(storage: Any, dead: Callable[[int], list[int]]) -> None:
    """Have a database storage ask `dead` for the ids of a study's trials whose workers died."""
    storage._get_stale_trial_ids = dead


def hidden_by(error: Exception, kinds: tuple[type[Exception], ...]) -> Exception:
    """The failure of a storage as it was told how a trial ended, where Optuna's loop hides it; else the error itself.

    The loop asserts that a trial that was told is not at work any more, also where telling failed.
    """
    if isinstance(error, AssertionError) and isinstance(error.__context__, kinds):
        return error.__context__
    return error


def id_of(trial: FrozenTrial) -> int:
    """What the storage knows a trial by; its number counts within its study only."""
    return trial._trial_id


def reading_methods(storage: Any) -> list[str]:
    """The names of the methods of a database storage that only read."""
    return [name for name in dir(storage) if name.startswith("get_") or name in ("_get_trials", "_get_stale_trial_ids")]


def earlier_numbers(trial: FrozenTrial) -> Sequence[int]:
    """The numbers of the trials that a trial tries again, as `RetryHeartbeatStaleTrialCallback` notes them."""
    numbers: Sequence[int] = trial.system_attrs.get("retry_history", ())
    return numbers


def attributes_table() -> sqlalchemy.TableClause:
    """The table of the studies' attributes; each value is JSON, and each study has a key once."""
    from sqlalchemy import column, table

    return table("study_user_attributes", column("study_id"), column("key"), column("value_json"))


def heartbeats_table() -> sqlalchemy.TableClause:
    """The table of the last sign of life of each trial."""
    from sqlalchemy import column, table

    return table("trial_heartbeats", column("trial_id"))


def signs_of_life() -> sqlalchemy.Select[Any]:
    """Asks for the trials at work that gave one: the trial's id, its study's, and when, by whatever clock."""
    from sqlalchemy import String, cast, column, select, table

    trials = table("trials", column("trial_id"), column("study_id"), column("state"))
    beats = table("trial_heartbeats", column("trial_id"), column("heartbeat"))
    both = trials.join(beats, trials.c.trial_id == beats.c.trial_id)
    at_work = cast(trials.c.state, String) == "RUNNING"  # a type of its own in PostgreSQL
    return select(trials.c.trial_id, trials.c.study_id, beats.c.heartbeat).select_from(both).where(at_work)
