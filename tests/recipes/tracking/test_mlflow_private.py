from __future__ import annotations

import logging
import sys
import warnings

import pytest

from analogsim.recipes.tracking import mlflow_private
from analogsim.recipes.tracking.mlflow_private import importing_sql_store, quieten, view_tag


def test_the_steps_of_making_a_database_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    names = ("alembic", "mlflow.store.db.utils")
    before = {name: logging.getLogger(name).level for name in names}
    caplog.set_level(logging.INFO)
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.NOTSET)
        quieten()
        for name in names:
            logging.getLogger(name).info("step 1 of %s", name)
            logging.getLogger(name).warning("something of %s", name)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
    assert caplog.messages == [f"something of {name}" for name in names]


def test_an_error_that_comes_to_us_anyway_is_not_told_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    quieten()
    logger = logging.getLogger("mlflow.store.db.utils")
    try:
        raise OSError("no such database")
    except OSError:
        logger.exception("SQLAlchemy database error")
        logger.error("and this is all of it")
    assert caplog.messages == ["and this is all of it"]


def test_the_first_client_of_a_database_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, mlflow_private.SQL_STORE, raising=False)

    def told(words: str, kind: type[Warning]) -> bool:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            with importing_sql_store():
                warnings.warn(words, kind, stacklevel=1)
        return bool(heard)

    assert not told("The ``noload`` loader is deprecated", DeprecationWarning)
    assert told("The ``noload`` loader is deprecated", UserWarning)
    assert told("another one", DeprecationWarning)


def test_a_view_is_kept_under_the_key_that_the_link_names() -> None:
    assert view_tag("abc") == "mlflow.sharedViewState.abc"
