"""Opening an MLflow store: which one, that it answers, and errors that say what to do where it does not."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from mlflow import MlflowClient

_OPENING = threading.Lock()  # the migrations of a new database are not safe in threads


def tracking_uri(uri: str | None) -> str:
    """Choose the store: `uri`, else ``MLFLOW_TRACKING_URI``, else ``mlflow.db`` in the working directory.

    The path of an SQLite store is made absolute, so that it stays the same store when the directory changes.
    """
    chosen = uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    path = _database(chosen)
    if path is None:
        return chosen
    options = chosen[len(f"sqlite:///{path}") :]
    return f"sqlite:///{Path(path).absolute().as_posix()}{options}"


def connect(uri: str) -> MlflowClient:
    """A client of the store, which is made or migrated if it is a database; see ``explained`` for the errors."""
    if is_http(uri):
        _reach(uri)
    # by itself MLflow tries again for minutes, prints links and reports usage; a user's own settings stay
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with _OPENING, contextlib.ExitStack() as scope:
        if not is_http(uri) and "mlflow.store.tracking.sqlalchemy_store" not in sys.modules:
            # the first client imports that module, which uses a deprecated part of SQLAlchemy
            scope.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="The ``noload`` loader", category=DeprecationWarning)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ImportError(
                "tracking needs mlflow: pip install 'analogsim-torch[recipes]', or set tracking.enabled=false"
            ) from error
        return MlflowClient(tracking_uri=uri)


def _reach(uri: str) -> None:
    """Fail within seconds where nothing listens at an http address."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        if not host:
            raise ValueError("there is no host in it")
        if parts.scheme in getproxies() and not proxy_bypass(host):
            return  # only the proxy can tell
        socket.create_connection((host, port), timeout=3).close()
    except (OSError, ValueError) as error:
        raise _unreachable(uri, error) from error


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment of that name, made if there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = _database(uri)  # a server decides for itself where artifacts go; we, beside the database
        artifacts = None if path is None else (Path(path).parent / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return experiment_id(client, name, uri)  # another process has made it since
    if found.lifecycle_stage == "deleted":
        raise ValueError(
            f"the experiment {name!r} in {shown(uri)} is deleted: choose another name, or bring it back with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _database(uri: str) -> str | None:
    """The path of an SQLite store on disk."""
    found = re.match(r"sqlite:///([^?]+)", uri)
    return found[1] if found and found[1] != ":memory:" else None


@contextlib.contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what goes wrong at the start into an error that says what to do."""
    try:
        yield
    except (ConnectionError, ValueError, ImportError):
        raise
    except errors() as error:
        if getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            raise ValueError(f"MLflow at {shown(uri)}: {brief(error)}") from error
        raise _unreachable(uri, error) from error


def errors() -> tuple[type[Exception], ...]:
    """What a store may raise; the errors of requests are OSErrors."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError)


def _unreachable(uri: str, cause: Exception) -> ConnectionError:
    return ConnectionError(
        f"cannot reach the MLflow store {shown(uri)}: {brief(cause)}; start it (`mlflow server`), unset "
        "MLFLOW_TRACKING_URI to use a local database, or switch tracking off: --no-tracking, tracking.enabled=false"
    )


def brief(error: Exception) -> str:
    """The first line of an error, if it has one."""
    return (str(error) or type(error).__name__).split("\n", 1)[0][:300]


def is_http(uri: str) -> bool:
    """Whether the store is a server."""
    return uri.startswith(("http://", "https://"))


def ui_address(uri: str) -> str:
    """Where the store is looked at: a server at itself, a database through ``mlflow ui``."""
    return shown(uri).rstrip("/") if is_http(uri) else "http://127.0.0.1:5000"


def shown(uri: str) -> str:
    """`uri` without the password in it."""
    return re.sub(r"(?<=://)([^/@:]*):[^/@]*@", r"\1:***@", uri)
