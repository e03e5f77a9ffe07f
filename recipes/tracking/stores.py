"""Opening an MLflow store: which one, that it answers, and errors that say what to do where it does not."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
import sqlite3
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from analogsim.errors import (
    InvalidValueError,
    MissingFileError,
    MissingPackageError,
    UnavailableError,
    UnreachableError,
)
from analogsim.recipes.tracking import mlflow_private
from analogsim.utils.files import write_whole
from analogsim.utils.packages import how_to_install

if TYPE_CHECKING:
    from mlflow import MlflowClient

_OPENING = threading.Lock()  # the migrations of a new database are not safe in threads
_OTHERWISE = (
    "unset MLFLOW_TRACKING_URI to use a local database, or switch tracking off: --no-tracking, tracking.enabled=false"
)
_LOCKED = 60.0  # seconds to wait for a database that another process holds; by itself SQLite waits for five
_MADE = 600.0  # and for one that another process is making
_ARTIFACTS = "mlartifacts"
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "postgres": 5432, "mysql": 3306, "mssql": 1433}

PASSWORD = "MLFLOW_TRACKING_PASSWORD"
"""The variable from which a password comes that is not kept with an address."""

_LEFT_OUT = "***"
# user:password@ of an address, the password with any sign but blanks and not that port/... of a server; and options.
_PASSWORDS = re.compile(
    r"(?<=://)([^\s/@:]*:)(?!\d+/)\S*@|([?&](?:password|passwd|pwd|sslpassword|token)=)[^&\s'\"]*", re.IGNORECASE
)


def tracking_uri(uri: str | None) -> str:
    """Choose the store: `uri`, else ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory.

    The path of an SQLite store is made absolute, so that it stays the same store when the directory changes. A password
    that was left out where the address was kept comes from ``MLFLOW_TRACKING_PASSWORD``, or from
    ``MLFLOW_TRACKING_URI`` where that is the same address.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    if lacks_password(chosen):
        chosen = _with_password(chosen)
    path = _database(chosen)
    if path is None:
        return chosen
    options = chosen[len(f"sqlite:///{path}") :]
    return f"sqlite:///{Path(path).absolute().as_posix()}{options}"


def check_exists(uri: str) -> None:
    """Refuse a database that is not there, for those who only read: opening it would make an empty one.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the URI is a path.
    """
    path = _database(uri)
    if path is not None and not Path(path).is_file():
        raise MissingFileError(
            f"no MLflow database {path!r}: go to the directory in which `analogsim train` was started, name its "
            f"database with --uri sqlite:///FOLDER/mlflow.db, or make the first runs: analogsim train"
        )
    if path is None and ":" not in uri and Path(uri).is_file():
        raise InvalidValueError(
            f"tracking URI {uri!r}: this is a path; write sqlite:///{Path(uri).absolute().as_posix()}"
        )


def lacks_password(uri: str | None) -> bool:
    """Whether an address had a password, which is not kept."""
    return uri is not None and _LEFT_OUT in uri


def _with_password(uri: str) -> str:
    """An address with the password that the environment holds, if it does."""
    whole, password = os.environ.get("MLFLOW_TRACKING_URI", ""), os.environ.get(PASSWORD)
    if shown(whole) == uri:
        return whole
    return uri if not password else uri.replace(_LEFT_OUT, quote(password, safe=""))


def connect(uri: str) -> MlflowClient:
    """A client of the store, which is made or migrated if it is a database; see ``explained`` for the errors.

    Warns:
        UserWarning: the database was moved; its artifacts are looked for and kept beside it from now on.
    """
    if lacks_password(uri):
        raise InvalidValueError(
            f"tracking.uri: the password of {uri} is kept nowhere; set {PASSWORD} to it, or MLFLOW_TRACKING_URI to the "
            "whole address, or leave tracking out: --no-tracking"
        )
    path = _database(uri)
    if path is None:
        reach(uri)
    elif Path(path).is_dir():
        raise UnreachableError(
            f"cannot reach the MLflow store {uri}: {path!r} is a folder; name a file in it, such as "
            f"sqlite:///{path.rstrip('/')}/mlflow.db"
        )
    # by itself MLflow tries again for minutes, prints links and reports usage; a user's own settings stay
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    mlflow_private.quieten()
    with _OPENING, contextlib.ExitStack() as scope:
        if not is_http(uri):
            scope.enter_context(mlflow_private.importing_sql_store())
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MissingPackageError(
                f"tracking needs mlflow: {how_to_install('recipes')}, or set tracking.enabled=false"
            ) from error
        scope.enter_context(alone(uri))
        if path is not None:
            _ready(Path(path), _patience(uri))
        elif not is_http(uri) and urlsplit(uri).scheme.partition("+")[0] in _PORTS:
            _answer(uri)
        return MlflowClient(tracking_uri=_patient(uri))


def _ready(path: Path, patience: float) -> None:
    """Have a database that is whole: a new one is made elsewhere, and one that was moved finds its artifacts again."""
    if not path.exists() or not path.stat().st_size:
        write_whole(path, mlflow_private.make_database)
        return
    beside = path.parent / _ARTIFACTS
    with contextlib.closing(sqlite3.connect(path, timeout=patience)) as database:
        try:
            _refuse_optuna({name for (name,) in database.execute("SELECT name FROM sqlite_master")}, str(path))
            held = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        except sqlite3.DatabaseError:  # another version's, or none: MLflow has its own words for that
            return
        for (place,) in held:
            if _was_moved(place, beside, database):
                _move(place, beside.as_uri(), database)
                warnings.warn(
                    f"the MLflow database {str(path)!r} was moved: artifacts that it knew in {place} are those beside "
                    "it now, and new ones go there",
                    stacklevel=4,
                )


def _was_moved(place: str | None, beside: Path, database: sqlite3.Connection) -> bool:
    """Whether artifacts of ours are not beside the database any more, or also there, in the copy that goes with it."""
    if not place or not place.startswith("file://") or not place.endswith(f"/{_ARTIFACTS}"):
        return False
    there = Path(unquote(urlsplit(place).path))
    if os.path.realpath(there) == os.path.realpath(beside):
        return False
    if not there.exists():
        return True
    runs = database.execute("SELECT run_uuid FROM runs WHERE substr(artifact_uri, 1, ?) = ?", (len(place), place))
    return beside.is_dir() and any((beside / run).exists() for (run,) in runs)


def _move(place: str, to: str, database: sqlite3.Connection) -> None:
    """Put another place of artifacts into all that a database says of them, in one step."""
    with database:
        database.execute("BEGIN IMMEDIATE")
        for table, column in mlflow_private.ARTIFACT_COLUMNS:
            with contextlib.suppress(sqlite3.OperationalError):  # a table that this version of MLflow has not
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (to, len(place) + 1, place, len(place) + 1, f"{place}/"),
                )


def _patient(uri: str) -> str:
    """The same store, opened so that a lock of another process is waited for; a user's own timeout stays."""
    if _database(uri) is None or re.search(r"[?&]timeout=", uri):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}timeout={_LOCKED:g}"


def _patience(uri: str) -> float:
    """Seconds for which the lock of another process is waited for."""
    given = re.search(r"[?&]timeout=([\d.]+)", uri)
    return float(given[1]) if given else _LOCKED


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Keep other processes from opening the same database: several that make a new one at once spoil it.

    What is half made when the body fails is taken away, so that the next one can make it anew.
    """
    database = _database(uri)
    if database is None:
        yield
        return
    path = Path(database)
    key = hashlib.sha256(os.path.realpath(path).encode()).hexdigest()[:16]
    gate = Path(tempfile.gettempdir(), f"analogsim-{key}.lock")
    with contextlib.ExitStack() as scope:
        with contextlib.suppress(sqlite3.Error):  # where there can be no lock, opening is as safe as MLflow has it
            lock = sqlite3.connect(gate, timeout=_MADE, isolation_level=None)
            scope.callback(lock.close)
            lock.execute("BEGIN EXCLUSIVE")  # ends with the connection, also where the process is killed
        spoilt = not path.exists()
        try:
            yield
            spoilt = False
        finally:
            # the lock goes only where the database is whole: who waits for it still does not need it any more
            for part in (path, path.with_name(f"{path.name}-journal")) if spoilt else (gate,):
                with contextlib.suppress(OSError):
                    part.unlink()


def reach(uri: str) -> None:
    """Fail within seconds where nothing listens at the address of a server, which MLflow would ask for minutes.

    Raises:
        OSError: nothing does, or the address is none.
    """
    try:
        parts = urlsplit(uri)
        usual = _PORTS.get(parts.scheme.partition("+")[0])
        if usual is None:
            return
        host, port = parts.hostname, parts.port or usual
        if not host and not is_http(uri):  # a socket of this machine, or its name stands elsewhere
            return
        if not host:
            raise InvalidValueError("there is no host in it")
        if parts.scheme in getproxies() and not proxy_bypass(host):
            return  # only the proxy can tell
        socket.create_connection((host, port), timeout=3).close()
    except ValueError as error:
        raise UnreachableError(str(error)) from error


@functools.cache
def _answer(uri: str) -> None:
    """Ask a database server once, and briefly, whether it lets us in: MLflow by itself asks for eight minutes."""
    import sqlalchemy
    from sqlalchemy.pool import NullPool

    driver = sqlalchemy.make_url(uri).drivername
    patience = {"connect_timeout": 10} if re.search("psycopg|pymysql|mysqldb", driver) else {}
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool, connect_args=patience)
    with engine.connect() as connection:
        _refuse_optuna(set(sqlalchemy.inspect(connection).get_table_names()), shown(uri))


def _refuse_optuna(tables: set[str], name: str) -> None:
    """Refuse a database with the tables of a study: the two would spoil each other's note of their versions."""
    if "studies" in tables and "experiments" not in tables:
        raise UnavailableError(
            f"tracking.uri: {name} is the database of Optuna's studies; MLflow needs one of its own, such as "
            "sqlite:///mlflow.db or, on a server, what `createdb mlflow` makes"
        )


def artifact_folder(uri: str) -> Path | None:
    """Where the artifacts of a database on disk go: beside it. A server decides for itself, None."""
    path = _database(uri)
    return None if path is None else Path(path).parent / _ARTIFACTS


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment of that name, made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        folder = artifact_folder(uri)
        artifacts = None if folder is None else folder.as_uri()
        try:
            kind = dict([mlflow_private.EXPERIMENT_KIND])
            return str(client.create_experiment(name, artifact_location=artifacts, tags=kind))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return experiment_id(client, name, uri)  # another process has made it since
    if found.lifecycle_stage == "deleted":
        raise InvalidValueError(
            f"the experiment {name!r} in {shown(uri)} is deleted: choose another name, or bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _database(uri: str) -> str | None:
    """The path of an SQLite store on disk."""
    found = re.match(r"sqlite:///([^?]+)", uri)
    return found[1] if found and found[1] != ":memory:" else None


@contextlib.contextmanager
def explained(uri: str, otherwise: str = _OTHERWISE) -> Iterator[None]:
    """Turn what goes wrong at the start into an error that says what to do, `otherwise` at its end."""
    try:
        yield
    except (InvalidValueError, MissingPackageError):  # which say it all; of others the store is to be named
        raise
    except ImportError as error:
        raise MissingPackageError(
            f"MLflow at {shown(uri)} needs a package that is not installed: {brief(error)}; pip install it, and name "
            "the driver in the address: postgresql+psycopg://..., mysql+pymysql://..."
        ) from error
    except ValueError as error:
        raise InvalidValueError(f"MLflow at {shown(uri)}: {brief(error)}") from error
    except errors() as error:
        if getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            raise InvalidValueError(f"MLflow at {shown(uri)}: {brief(error)}") from error
        path = _database(uri)
        cure = (
            "start it (`mlflow server`)" if is_http(uri) else "is the server up, is there such a database (`createdb`)"
        )
        if path is not None:
            cure = f"if {path!r} was left half made, move it away and a new one is made"
        raise UnreachableError(
            f"cannot reach the MLflow store {shown(uri)}: {brief(error)}; {cure}, {otherwise}"
        ) from error


def errors() -> tuple[type[Exception], ...]:
    """What a store may raise; the errors of requests are OSErrors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def brief(error: Exception) -> str:
    """The first line of an error, if it has one, without passwords."""
    return shown((str(error) or type(error).__name__).split("\n", 1)[0])[:300]


def is_http(uri: str) -> bool:
    """Whether the store is a server."""
    return uri.startswith(("http://", "https://"))


def shown(uri: str) -> str:
    """An address, or text with addresses in it, without passwords."""
    return re.sub(_PASSWORDS, lambda found: f"{found[1] or found[2]}{_LEFT_OUT}{'@' if found[1] else ''}", uri)
