"""What lets many workers share an Optuna storage though any of them, or the database server, may die at any moment."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analogsim.errors import UnreachableError
from analogsim.recipes.study.optuna_private import (
    earlier_numbers,
    engine_of,
    heartbeats_table,
    id_of,
    reading_methods,
    signs_of_life,
    storage_of,
    watch_by,
)
from analogsim.recipes.tracking import stores
from analogsim.recipes.training.stopping import ending, pause

if TYPE_CHECKING:
    import optuna

SILENT = 4
"""Heartbeats without a sign of life after which a worker is dead."""
OUTAGE = 600.0  # seconds to wait for a database server that was there and is gone
_thread = threading.local()


def connect_options(url: str, locked: float) -> dict[str, Any]:
    """SQLAlchemy's options for an engine: whoever waits for a locked file loses seconds, who gives up loses the trial.

    Args:
        url: of the database.
        locked: seconds to wait for an SQLite file that another process has locked.
    """
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": locked}}
    if url.startswith(("postgresql:", "postgresql+psycopg")):  # those that hand their options on to libpq
        # A server that vanished without a word is noticed within a minute.
        alive = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
        return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10, **alive}}
    return {"pool_pre_ping": True}


@dataclass
class _Seen:
    sign: Any
    silent: float = 0.0


class Watch:
    """Watches the signs of life of trials by one clock, its own, which only goes forward.

    A sign is any value that its worker changes with every heartbeat; what it says does not matter, so that clocks may
    differ by hours, or be set back. What passes between two looks counts for two heartbeats at most: who slept himself,
    or could not reach the storage for a while, gives the others time for a sign before he takes them for dead.

    Args:
        beat: seconds between two signs.
    """

    def __init__(self, beat: float) -> None:
        self._beat = beat
        self._looked = -float("inf")
        self._seen: dict[int, _Seen] = {}

    def look(self, signs: Mapping[int, Any]) -> None:
        """Take note of the present signs of all that are at work."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * self._beat), now
        before, self._seen = self._seen, {}
        for key, sign in signs.items():
            known = before.get(key)
            same = known is not None and known.sign == sign
            self._seen[key] = _Seen(sign, known.silent + passed if known is not None and same else 0.0)

    def dead(self) -> list[int]:
        """Those that were silent for too long when they were last looked at."""
        return [key for key, seen in self._seen.items() if seen.silent > SILENT * self._beat]


def harden(storage: Any) -> None:
    """Make a database storage that was opened fit for many workers.

    SQLite: what is read and then written is one step; by itself two workers may both take the same waiting trial.
    Servers: one that is restarted is waited for, where Optuna would let the worker die. Both: a heartbeat that fails
    is followed by the next one, where Optuna would send none any more and the worker be taken for dead; and who is dead
    is seen by whether heartbeats come, where Optuna compares clocks: those of two machines that share a file, or the
    server's before and after it was set.
    """
    if storage.engine.dialect.name == "sqlite":
        _make_steps_whole(storage)
    else:
        _wait_for_server(storage.engine)
    beat = storage.record_heartbeat

    watch, guard = Watch(storage.heartbeat_interval), threading.Lock()

    def look() -> dict[int, int]:
        """Look at all that are at work, and by their trials tell the studies that they are of."""
        with _marked("reading"), storage.engine.begin() as connection:
            rows = connection.execute(signs_of_life()).all()
        with guard:
            watch.look({trial: sign for trial, _, sign in rows})
        return {trial: of_study for trial, of_study, _ in rows}

    def record_heartbeat(trial_id: int) -> None:
        with _marked("at_once"), contextlib.suppress(*storage_errors()):  # nobody should wait for a thread that waits
            beat(trial_id)
            look()  # so that a worker who is busy for long sees the deaths of others as soon as one who waits

    def dead(study_id: int) -> list[int]:
        studies = look()
        with guard:
            return [trial for trial in watch.dead() if studies.get(trial) == study_id]

    storage.record_heartbeat = record_heartbeat
    watch_by(storage, dead)


def _make_steps_whole(storage: Any) -> None:
    from sqlalchemy import event

    engine = storage.engine

    @event.listens_for(engine, "connect")
    def by_hand(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # else Python's driver begins a transaction only with the first write

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN" if getattr(_thread, "reading", False) else "BEGIN IMMEDIATE")

    for name in reading_methods(storage):
        setattr(storage, name, _reading(getattr(storage, name)))
    engine.dispose()  # connections made before


def _reading(method: Callable[..., Any]) -> Callable[..., Any]:
    """The same method, of which the database is told that it only reads, so that nobody waits for it."""

    @functools.wraps(method)
    def read(*arguments: Any, **options: Any) -> Any:
        with _marked("reading"):
            try:
                return method(*arguments, **options)
            except KeyboardInterrupt as stop:
                traceback.clear_frames(stop.__traceback__)  # rows half read keep the file locked as long as they live
                raise

    return read


def _wait_for_server(engine: Any) -> None:
    from sqlalchemy import event

    gave_up = False

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _: Any, arguments: Any, options: Any) -> Any:
        nonlocal gave_up
        began, told = time.monotonic(), False
        while True:
            try:
                connection = dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                gave_up = gave_up or time.monotonic() - began > OUTAGE
                if gave_up or ending() or getattr(_thread, "at_once", False):
                    raise
                if not told:
                    warnings.warn(f"study.storage: {stores.brief(error)}; waiting for it", RuntimeWarning, stacklevel=2)
                told = True
                pause(1.0)
            else:
                gave_up = False
                return connection


@contextlib.contextmanager
def _marked(name: str) -> Iterator[None]:
    """Mark what this thread does meanwhile."""
    before = getattr(_thread, name, False)
    setattr(_thread, name, True)
    try:
        yield
    finally:
        setattr(_thread, name, before)


def storage_errors() -> tuple[type[Exception], ...]:
    """What a storage raises when its database fails."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return (StorageInternalError, SQLAlchemyError)


def told(error: Exception) -> str:
    """What went wrong: Optuna's own error only says that something did."""
    return stores.brief(error.__cause__ if isinstance(error.__cause__, Exception) else error)


@contextlib.contextmanager
def storage_explained(url: str) -> Iterator[None]:
    """Turn the failure of a database into an error that says what to do."""
    try:
        yield
    except storage_errors() as error:
        raise UnreachableError(
            f"study.storage: {stores.shown(url)} failed: {told(error)}; the study is as it was then: start the "
            "same command again when the database is well"
        ) from error


def first_beats(study: optuna.Study) -> None:
    """Send a heartbeat for each trial at work that never had one.

    Optuna takes a worker for dead when its heartbeats end; one that died before the first would be at work for ever.
    """
    from optuna.trial import TrialState

    engine = engine_of(study)
    at_work = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.RUNNING]
    if engine is None or not at_work:
        return
    import sqlalchemy

    beats = heartbeats_table()
    with engine.begin() as connection:
        known = set(connection.execute(sqlalchemy.select(beats.c.trial_id)).scalars())
    storage = storage_of(study)
    for trial in at_work:
        if id_of(trial) not in known:
            storage.record_heartbeat(id_of(trial))


def retried(study: optuna.Study, number: int) -> bool:
    """Whether the trial is tried again, by another one."""
    return any(number in earlier_numbers(trial) for trial in study.get_trials(deepcopy=False))
