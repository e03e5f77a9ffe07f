"""Opening an Optuna storage that many workers share: which one, that it answers, and what to do where it does not."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from analogsim.errors import InvalidValueError, MissingPackageError, UnavailableError, UnreachableError
from analogsim.recipes.study import shared_database
from analogsim.recipes.study.optuna_private import make_database
from analogsim.recipes.tracking import stores
from analogsim.recipes.training.stopping import pause
from analogsim.utils.files import write_whole
from analogsim.utils.packages import how_to_install

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

_LOCKED = 120  # seconds to wait for an SQLite file that another process has locked
_OPENING = 10  # attempts to make the tables, which several workers may do at once


class _Quiet:
    """How many threads are within `quietly`, and the filters that they found."""

    def __init__(self) -> None:
        self.lock, self.within = threading.Lock(), 0
        self.filters: warnings.catch_warnings[None] = warnings.catch_warnings()


_quiet = _Quiet()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings by which Optuna marks parts of itself as experimental."""
    from optuna.exceptions import ExperimentalWarning

    # One filter for as long as anybody is within: Python's filters are those of the process, and threads that put
    # theirs back one after the other would take each other's away.
    with _quiet.lock:
        if not _quiet.within:
            _quiet.filters = warnings.catch_warnings()
            _quiet.filters.__enter__()
            warnings.simplefilter("ignore", ExperimentalWarning)
        _quiet.within += 1
    try:
        yield
    finally:
        with _quiet.lock:
            _quiet.within -= 1
            if not _quiet.within:
                _quiet.filters.__exit__(None, None, None)


def storage_url(given: str | None) -> str:
    """Choose the storage: `given`, else ``OPTUNA_STORAGE``, else ``optuna.db`` in the working directory.

    The path of an SQLite file is made absolute, so that it stays the same when the directory changes.

    Raises:
        ValueError: it is not the URL of a database.
    """
    url = given or os.environ.get("OPTUNA_STORAGE") or "sqlite:///optuna.db"
    if not re.match(r"[a-z][\w+]*://", url):
        raise InvalidValueError(
            f"study.storage: {url!r} is not the URL of a database; write sqlite:///optuna.db, or "
            "postgresql+psycopg://user@host/name for several machines"
        )
    file = database_file(url)
    if file is None:
        return url
    _, mark, options = url.partition("?")
    return f"sqlite:///{file.absolute().as_posix()}{mark}{options}"


def database_file(url: str) -> Path | None:
    """The file of an SQLite database; None for a server, or one in memory."""
    if not url.startswith("sqlite:///") or url.startswith("sqlite:///:memory:"):
        return None
    return Path(url.removeprefix("sqlite:///").partition("?")[0])


def open_storage(url: str, *, heartbeat: int, on_dead: Callable[[optuna.Study, FrozenTrial], None]) -> BaseStorage:
    """Open the storage, made if there is none.

    Args:
        url: from `storage_url`.
        heartbeat: seconds between the signs of life of a worker.
        on_dead: called once with each trial whose worker has died.

    Raises:
        ConnectionError: it does not answer, cannot be made or cannot be written.
        UnavailableError: it is MLflow's.
        ImportError: Optuna or the database's driver is not installed.
    """
    try:
        from optuna.storages import RDBStorage
    except ImportError as error:
        raise MissingPackageError(f"analogsim tune needs optuna: {how_to_install('recipes')}") from error
    began = time.monotonic()
    for attempt in range(_OPENING):
        try:
            with quietly():
                _have_database(url)
                _refuse_mlflow(url)
                storage = RDBStorage(
                    url,
                    engine_kwargs=shared_database.connect_options(url, _LOCKED),
                    heartbeat_interval=heartbeat,
                    grace_period=shared_database.SILENT * heartbeat,
                    heartbeat_stale_trial_callback=on_dead,
                )
            shared_database.harden(storage)
            return storage
        except UnavailableError:
            raise
        except ImportError as error:
            raise MissingPackageError(
                f"study.storage: no driver for {stores.shown(url)}: {stores.brief(error)}; for PostgreSQL: "
                'pip install "psycopg[binary]" and write postgresql+psycopg://...; for MySQL: pip install pymysql and '
                "write mysql+pymysql://..."
            ) from error
        except Exception as error:
            # Two workers that make the same tables: the second finds them made when it tries again.
            tried = attempt == _OPENING - 1 or time.monotonic() - began > _LOCKED
            if tried or not re.search(r"exists|UNIQUE|locked|duplicate", str(error)):
                raise UnreachableError(
                    f"study.storage: cannot open {stores.shown(url)}: {stores.brief(error)}; is the server up, does "
                    "the folder exist, may it be written?"
                ) from error
            pause(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def _have_database(url: str) -> None:
    """Make an SQLite database that is not there elsewhere, and put it in its place whole.

    A worker that is killed while the tables are made leaves none, and what it began is taken away by the next one.
    """
    file = database_file(url)
    if file is None or _holds_something(file):
        return
    with stores.alone(url):  # two that put theirs in the same place would lose what went into the first
        if not _holds_something(file):
            write_whole(file, make_database)


def _holds_something(file: Path) -> bool:
    return file.is_dir() or (file.exists() and file.stat().st_size > 0)


def _refuse_mlflow(url: str) -> None:
    """Refuse a database with MLflow's tables: the two would spoil each other's note of their versions."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    file = database_file(url)
    if file is not None and not file.exists():
        return
    engine = sqlalchemy.create_engine(
        url, poolclass=NullPool, connect_args=shared_database.connect_options(url, _LOCKED).get("connect_args", {})
    )
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
    if "experiments" in tables and "studies" not in tables:
        raise UnavailableError(
            f"study.storage: {stores.shown(url)} is MLflow's database; Optuna needs one of its own, such as "
            "sqlite:///optuna.db or, on a server, what `createdb optuna` makes"
        )
