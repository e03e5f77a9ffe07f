"""Studies survive what happens to workers, servers, databases and disks: nothing is lost, nothing is there twice."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.cli import main
from analogsim.recipes.study import storages
from analogsim.recipes.study.lease import Lease, LostLease
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.study.trials import give_up, try_again
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.tune import configure, tune
from tests.recipes.workers import EPOCHS, NAME, SETTINGS, Process, Study, free_port

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState


@pytest.fixture
def study(tmp_path: Path, migrated: Path) -> Iterator[Study]:
    """A working directory whose MLflow database is ready."""
    shutil.copy(migrated, tmp_path / "mlflow.db")
    made = Study(tmp_path)
    yield made
    made.end()


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    """A study in an SQLite file, opened as workers open it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return opened(tmp_path)


def opened(place: Path) -> Any:
    storage = open_storage(f"sqlite:///{place}/optuna.db", heartbeat=1, on_dead=try_again)
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True)


def errors(worker: Process) -> list[str]:
    """What a worker that failed says: one line, and nothing of Python's; before it that it is stopping, if slowly."""
    lines = [line for line in worker.err.read_text().splitlines() if line]
    assert "Traceback" not in worker.err.read_text()
    return [line for line in lines if not line.startswith(("analogsim: warning:", "analogsim: stopping;"))]


# Workers


@pytest.mark.slow
def test_workers_die_and_sleep_and_the_others_go_on(study: Study) -> None:
    def told(worker: Process, *words: str) -> None:
        study.until(lambda: all(each in worker.said for each in words), f"it says {words}", worker)

    killed, sleeper = (study.worker("study.trials=8") for _ in range(2))
    study.in_the_middle(killed, sleeper)
    killed.kill()
    told(sleeper, "its worker died; it is tried again")
    helper = study.worker("study.trials=8")
    (given,) = study.in_the_middle(sleeper)
    study.put_to_sleep(sleeper)
    told(helper, f"trial {given.number}: its worker died; it is tried again")
    sleeper.send(signal.SIGCONT)
    told(sleeper, f"trial {given.number}: the others took this worker for dead, and try it again")
    # and once more, in the comparison at the end
    study.until(lambda: any("comparing" in worker.said for worker in (sleeper, helper)), "one of them compares")
    ahead, behind = sorted((sleeper, helper), key=lambda worker: "comparing" not in worker.said)
    study.in_the_comparison(ahead)
    study.put_to_sleep(ahead)
    assert behind.code() == 0
    ahead.send(signal.SIGCONT)
    assert ahead.code() == 0
    told_last = "the others took this worker for dead, and one of them makes the comparison"
    assert told_last in ahead.said
    assert told_last not in behind.said

    found = study.count(8)
    failed = [trial for trial in found.trials if trial.state == State.FAIL]
    assert len(failed) == 2
    runs = {run.data.tags["optuna.trial.number"]: run for run in found.runs["trial"]}
    for dead in failed:
        assert runs[str(dead.number)].info.status == "FAILED"
        (again,) = [
            trial
            for trial in found.trials
            if trial not in failed and dead.number in trial.system_attrs.get("retry_history", ())
        ]
        assert again.params == dead.params
        # from its checkpoint: what the first one did is the beginning of what the second one has
        done, whole = (load_checkpoint(Path(trial.user_attrs["folder"], "checkpoint.pt")) for trial in (dead, again))
        assert len(dead.intermediate_values) <= done["epoch"] < whole["epoch"] == EPOCHS
        assert whole["history"][: done["epoch"]] == done["history"]


@pytest.mark.slow
def test_one_study_survives_every_way_to_stop_and_locked_databases(study: Study) -> None:
    worker = study.worker("study.trials=3")
    study.in_the_middle(worker)
    worker.kill()

    worker = study.worker("study.trials=3")
    # Until then the killed one may be at work, and the study's run is left to it.
    study.until(lambda: "its worker died" in worker.said, "the killed worker is found dead", worker)
    (stopped,) = study.in_the_middle(worker)
    worker.send(signal.SIGINT)
    assert worker.code() == 130
    how_to_go_on = [f"stopped; go on with: analogsim tune --study {NAME} --storage {study.storage}"]
    assert errors(worker) == how_to_go_on
    statuses = {run.info.run_name: run.info.status for run in study.runs()}
    assert statuses[NAME] == statuses[f"trial {stopped.number}"] == "KILLED"

    worker = study.worker("study.trials=3")
    study.in_the_comparison(worker)
    worker.send(signal.SIGTERM)
    assert worker.code() == 143
    assert errors(worker) == how_to_go_on
    assert {run.info.status for run in study.runs() if run.data.tags.get("role") == "final"} == {"KILLED"}

    worker = study.worker("study.trials=3")
    study.in_the_comparison(worker, "plain-trial-*")
    worker.kill()

    worker = study.worker("study.trials=4")
    study.in_the_middle(worker)
    with study.locked():
        time.sleep(10)
        assert worker.running
    assert worker.code() == 0
    assert "warning" not in worker.said
    found = study.count(4)
    assert found.states["FAIL"] == 2
    assert sum("retry_history" in trial.system_attrs for trial in found.trials) == 2


@pytest.mark.slow
def test_three_workers_begin_at_once(study: Study) -> None:
    (study.place / "mlflow.db").unlink()
    workers = [study.worker("study.trials=6", "study.pruner=median") for _ in range(3)]
    assert [worker.code() for worker in workers] == [0, 0, 0]
    assert sum("comparing the best trial" in worker.said for worker in workers) == 1
    found = study.count(6)
    assert sum(bool(trial.user_attrs.get("default")) for trial in found.trials) == 1
    results = [worker.out.read_text().partition("best trial:")[2] for worker in workers]
    assert results[0]
    assert len(set(results)) == 1


@pytest.mark.slow
def test_clocks_are_hours_apart_and_nobody_is_taken_for_dead(study: Study, tmp_path: Path) -> None:
    clocks = pytest.importorskip("benchmarks.harness.clocks", reason="comes with the checkout only")
    library = clocks.build(tmp_path) if sys.platform == "linux" else None
    if library is None:
        pytest.skip("needs Linux and a C compiler")
    workers = [
        study.worker("study.trials=6", LD_PRELOAD=str(library), STORM_SECONDS=seconds) for seconds in ("-3600", "7200")
    ]
    study.in_the_middle(*workers)
    assert [worker.code() for worker in workers] == [0, 0]
    assert not any("died" in worker.said or "for dead" in worker.said for worker in workers)
    found = study.count(6)
    assert found.states == {"COMPLETE": 6}
    began = sorted(trial.datetime_start for trial in found.trials)
    assert (began[-1] - began[0]).total_seconds() > 3600  # the clocks were


# Servers


@pytest.mark.slow
def test_the_tracking_server_goes_and_comes(study: Study) -> None:
    port = free_port()
    study.tracking = f"http://127.0.0.1:{port}"
    server = study.server(port)
    worker = study.worker("study.trials=6")

    def outage(number: signal.Signals) -> None:
        """The server goes in the middle of a trial, and another trial begins and ends without it."""
        (busy,) = study.in_the_middle(worker)
        server.kill(number)
        study.until(
            lambda: any(t.number > busy.number and t.state.is_finished() for t in study.trials()),
            "the study goes on without the server",
            worker,
        )

    outage(signal.SIGKILL)
    study.put_to_sleep(worker)  # the server takes longer to start than the trials that are left
    server = study.server(port)
    worker.send(signal.SIGCONT)
    outage(signal.SIGTERM)
    assert worker.code() == 0
    assert "MLflow has not taken everything yet: start the same command again when it answers" in worker.said
    server = study.server(port)
    worker = study.worker("study.trials=6")
    assert worker.code() == 0
    assert "not taken everything" not in worker.said
    assert study.count(6).states == {"COMPLETE": 6}


# Disks


@pytest.mark.slow
def test_the_folder_cannot_be_written_any_more(study: Study) -> None:
    folder, away = study.place / "runs" / NAME, study.place / "away"
    worker = study.worker("study.trials=3")
    study.in_the_middle(worker)
    study.put_to_sleep(worker)
    folder.rename(away)
    folder.write_text("in the way")
    worker.send(signal.SIGCONT)
    assert worker.code() == 2
    (line,) = errors(worker)
    assert line.startswith("analogsim: error: [Errno")
    assert str(folder.relative_to(study.place)) in line
    assert {trial.state for trial in study.trials()} <= {State.FAIL, State.WAITING, State.COMPLETE}
    folder.unlink()
    away.rename(folder)
    worker = study.worker("study.trials=3")
    assert worker.code() == 0
    assert study.count(3).states["FAIL"] == 1


def test_a_full_disk_stops_the_worker_and_not_the_study(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(settings=[*SETTINGS, "optimization.epochs=1", "tracking.enabled=false", "study.trials=2"])
    folder, sync = alone / "runs" / NAME / "trial-0001", os.fsync

    def full(file: int) -> None:
        if any(os.path.samestat(os.fstat(file), draft.stat()) for draft in folder.glob(".checkpoint.pt.*")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*trial-0001/checkpoint.pt'"):
            tune(config)
    assert not list(folder.glob(".*"))
    trials = tune(config).study.trials
    assert [trial.state for trial in trials] == [State.COMPLETE, State.FAIL, State.COMPLETE]
    assert trials[2].params == trials[1].params


def test_a_place_that_cannot_be_written_is_told_before_anything_is_made(
    alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (alone / "file").write_text("in the way")
    before = sorted(alone.rglob("*"))
    for words, told in (
        (["--out", "file"], r"out: cannot write to the folder 'file'"),
        (["--out", "file/runs"], r"out: cannot write to the folder 'file/runs'"),
        (["--out", "/proc/runs"], r"out: cannot write to the folder '/proc/runs'"),
        (["--storage", "sqlite:///file/optuna.db"], r"study.storage: cannot open sqlite:////.*/file/optuna.db"),
        (["--storage", "sqlite:///no/optuna.db"], r"study.storage: cannot open sqlite:////.*/no/optuna.db"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["tune", "--model", "mlp", *words])
        said = capsys.readouterr()
        assert ended.value.code == 2
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert said.err.startswith(f"analogsim: error: {told.partition('.*')[0]}")
        made = [path for path in sorted(alone.rglob("*")) if path not in before and path.name != "runs"]
        assert made == []


# The pieces


def test_a_database_that_stays_locked_is_told(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(alone)
    monkeypatch.setattr(storages, "_LOCKED", 0.3)
    with contextlib.closing(sqlite3.connect(alone / "optuna.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SystemExit) as ended:
            main(["tune", "--model", "mlp", "--no-tracking"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.match(r"analogsim: error: study.storage: .*optuna.db.*database is locked", said)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_a_trial_that_is_given_up_is_tried_again_once(shared: Any) -> None:
    shared.enqueue_trial({"x": 0.5}, user_attrs={"default": True})
    for retry in range(3):
        trial = shared.ask()
        assert trial.number == retry
        assert trial.suggest_float("x", 0, 1) == 0.5
        assert trial.user_attrs == {"default": True}  # nothing of the one before
        trial.set_user_attr("run_id", "of this one")
        give_up(shared, trial.number, retries=2)
        give_up(shared, trial.number, retries=2)  # as those do who find it dead at the same time
        states = [each.state for each in shared.trials]
        assert states == [State.FAIL] * (retry + 1) + [State.WAITING] * (retry < 2)
    assert shared.trials[2].system_attrs["retry_history"] == [0, 1]


def test_who_was_silent_learns_that_the_lease_is_lost(tmp_path: Path, shared: Any) -> None:
    mine, theirs = Lease(shared, "it", beat=1), Lease(opened(tmp_path), "it", beat=0.01)
    with mine.held(lambda: False):
        mine.check()
        with theirs.held(lambda: False):  # takes a second of ours for silence
            theirs.check()
            with pytest.raises(LostLease, match="it: another worker has taken it over"):
                mine.check()
        with pytest.raises(LostLease):
            mine.check()
    assert shared.user_attrs["it"] is None
