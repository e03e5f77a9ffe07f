"""Workers as on several machines: Optuna's storage in PostgreSQL, MLflow's server over PostgreSQL."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.report import Report
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.training.checkpoint import load_checkpoint
from tests.recipes.workers import EPOCHS, Study, free_port

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
pytest.importorskip("psycopg", reason="needs analogsim-torch[postgres]")
pytest.importorskip("benchmarks", reason="comes with the checkout only")
from benchmarks.harness.postgres import Postgres, programs

pytestmark = pytest.mark.slow


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    bin_folder = programs()
    if bin_folder is None:
        pytest.skip("needs PostgreSQL's initdb and pg_ctl: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="analogsim-postgres-") as folder:  # tmp_path is closed to other users
        made = Postgres(Path(folder), bin_folder)
        yield made
        made.stop()


@pytest.fixture
def study(tmp_path: Path, postgres: Postgres) -> Iterator[Study]:
    made = Study(tmp_path, storage=postgres.url("optuna"))
    yield made
    made.end()


def test_two_machines_one_of_them_dies_and_the_database_is_restarted(
    study: Study, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    port = free_port()
    study.server(
        port, "--backend-store-uri", postgres.url("mlflow"), "--artifacts-destination", str(study.place / "artifacts")
    )
    study.tracking = f"http://127.0.0.1:{port}"
    places = [study.place / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    dies, lives = (study.worker("study.trials=8", place=place) for place in places)
    study.in_the_middle(dies, lives)
    dies.kill()
    places[0].rename(study.place / "out of reach")  # as the disk of another machine
    study.until(lambda: "its worker died; it is tried again" in lives.said, "it is found dead", lives)
    (busy,) = study.in_the_middle(lives)
    postgres.stop()
    study.until(lambda: "; waiting for it" in lives.said, "the worker waits for the database", lives)
    postgres.start()
    assert lives.code() == 0

    found = study.count(8)
    # the trial at work then went on; or, where the stop fell into the middle of an answer, was tried again
    assert found.states["FAIL"] == 1 + (found.trials[busy.number].state.name == "FAIL")
    # all of it can be had without either machine's disk
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

    def fetched(run: Any, path: str) -> str:
        return str(found.client.download_artifacts(run.info.run_id, path, str(tmp_path_factory.mktemp("fetched"))))

    for run in found.runs["trial"]:
        if run.info.status == "FINISHED":
            report = json.loads(Path(fetched(run, "report.json")).read_text())
            assert Report.from_dict(report).labels == ("1s", "1d")
            assert load_checkpoint(fetched(run, "checkpoint/checkpoint.pt"))["epoch"] == EPOCHS
            assert run.info.artifact_uri.startswith("mlflow-artifacts:/")


def test_each_needs_a_database_of_its_own_that_is_there(postgres: Postgres) -> None:
    """Told in seconds: MLflow by itself asks a database that is not there for eight minutes."""

    def opened(name: str) -> None:
        storage: Any = open_storage(postgres.url(name), heartbeat=1, on_dead=lambda *_: None)
        storage.engine.dispose()

    began = time.monotonic()
    with pytest.raises(
        ConnectionError, match=r'database "missing" does not exist.*is there such a database \(`createdb`\)'
    ):
        Run.start(experiment="e", name="n", uri=postgres.url("missing"), params={})
    with pytest.raises(ConnectionError, match=r'cannot open .*database "missing" does not exist'):
        opened("missing")
    assert time.monotonic() - began < 30
    opened("optuna")
    with pytest.raises(OSError, match=r"tracking.uri: .*/optuna is the database of Optuna's studies"):
        Run.start(experiment="e", name="n", uri=postgres.url("optuna"), params={})
    Run.start(experiment="e", name="n", uri=postgres.url("mlflow"), params={}).end()
    with pytest.raises(OSError, match=r"study.storage: .*/mlflow is MLflow's database"):
        opened("mlflow")
    opened("optuna")
