"""What we rely on in MLflow without a promise, in one place: tags that its pages read, what it logs and warns of.

All was checked on MLflow 3.17.2; `tests/whole/test_private_members.py` asks each for what we rely on, and
fails with its name. How the state of a page is written stands in `analogsim.recipes.tracking.page_views`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

CHECKED = ("3.17.2",)

LOGGED_ARTIFACTS = "mlflow.loggedArtifacts"
"""The tag by which MLflow's pages know which artifacts are tables: ``[{"path": ..., "type": "table"}]`` in JSON."""

MODEL_TRAINING = "workflowType=machine_learning"
"""What a link says to open the pages for training; without it they are those for GenAI, until a user chooses."""

RUN_COLOR = "mlflow.runColor"
"""The tag of a run by which charts give it a colour ``#rrggbb``; without it two runs may have the same."""

EXPERIMENT_KIND = ("mlflow.experimentKind", "custom_model_development")
"""The tag of an experiment by which earlier versions of MLflow 3 choose the same pages."""

CHATTY = ("alembic", "mlflow.store.db.utils")
"""Loggers that tell each step of making a database."""

ARTIFACT_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""The tables and columns of a database in which places of artifacts stand."""

SQL_STORE = "mlflow.store.tracking.sqlalchemy_store"
"""The module of stores in a database; it uses a part of SQLAlchemy that is deprecated."""


def view_tag(key: str) -> str:
    """The tag of an experiment that keeps a state of the page of its runs, as the button "Share" writes it."""
    return f"mlflow.sharedViewState.{key}"


def quieten() -> None:
    """Take out of the logs what is no news: the steps of making a database, and errors that come to us anyway."""
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_no_traceback)


def _is_no_traceback(record: logging.LogRecord) -> bool:
    return record.exc_info is None  # the error itself comes to us, and is told in one line


def make_database(file: Path) -> None:
    """Make the tables of a new database in a file, and close it."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{file.as_posix()}"
    store: Callable[[str, str], object] = SqlAlchemyStore
    store(uri, "./mlruns")  # the place that MLflow's own client gives its first experiment
    SqlAlchemyStore._engine_map.pop(uri).dispose()


@contextlib.contextmanager
def importing_sql_store() -> Iterator[None]:
    """Without the warning that comes with the first client of a database in a process, see `SQL_STORE`."""
    if SQL_STORE in sys.modules:
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader", category=DeprecationWarning)
        yield
