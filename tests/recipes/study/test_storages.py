from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analogsim.recipes.study.storages import open_storage, storage_url

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


def test_the_storage_is_chosen(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert storage_url(None) == f"sqlite:///{alone}/optuna.db"
    assert storage_url("sqlite:///a/b.db?timeout=3") == f"sqlite:///{alone}/a/b.db?timeout=3"
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql+psycopg://me@host/name")
    assert storage_url(None) == "postgresql+psycopg://me@host/name"
    assert storage_url("sqlite:////x.db") == "sqlite:////x.db"
    with pytest.raises(ValueError, match=r"study.storage: 'optuna.db' is not the URL of a database; write sqlite:///"):
        storage_url("optuna.db")


def test_a_storage_that_cannot_be_opened_is_told(tmp_path: Path, closed_port: int) -> None:
    def opened(url: str) -> None:
        open_storage(url, heartbeat=1, on_dead=lambda *_: None)

    with pytest.raises(ConnectionError, match=r"study.storage: cannot open sqlite:////.*unable to open database file"):
        opened(f"sqlite:///{tmp_path}/missing/optuna.db")
    with pytest.raises(ImportError, match=r"no driver for oracle://.*psycopg"):
        opened("oracle://host/name")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be taken for one " * 20)
    with pytest.raises(ConnectionError, match="file is not a database"):
        opened(f"sqlite:///{tmp_path}/text.db")


def test_the_database_of_mlflow_is_refused_and_left_as_it_was(tmp_path: Path, migrated: Path) -> None:
    place = tmp_path / "mlflow.db"
    shutil.copy(migrated, place)
    before = place.read_bytes()
    with pytest.raises(
        OSError, match=r"study.storage: sqlite:.*mlflow.db is MLflow's database; Optuna needs one of its"
    ):
        open_storage(f"sqlite:///{place}", heartbeat=1, on_dead=lambda *_: None)
    assert place.read_bytes() == before
