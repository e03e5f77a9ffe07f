from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.study import shared_database
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.study.trials import at_work, try_again
from tests.recipes.workers import NAME

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
State = optuna.trial.TrialState


@pytest.fixture
def shared(tmp_path: Path) -> Any:
    """A study in an SQLite file, opened as workers open it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return opened(tmp_path)


def opened(place: Path) -> Any:
    storage = open_storage(f"sqlite:///{place}/optuna.db", heartbeat=1, on_dead=try_again)
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_two_workers_never_take_the_same_trial(tmp_path: Path, shared: Any) -> None:
    for _ in range(30):
        shared.enqueue_trial({})
    begin, taken, guard = threading.Barrier(4), [], threading.Lock()

    def take() -> None:
        study = opened(tmp_path)
        begin.wait()
        for _ in range(10):
            number = study.ask().number
            with guard:
                taken.append(number)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(taken) == list(range(40))


def test_only_one_worker_is_the_first(tmp_path: Path, shared: Any) -> None:
    won, begin = [], threading.Barrier(4)

    def claim(name: str) -> None:
        study = opened(tmp_path)
        begin.wait()
        for turn in range(10):
            if shared_database.exchange(study, f"turn {turn}", None, name):
                won.append(turn)

    threads = [threading.Thread(target=claim, args=(str(index),)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(won) == list(range(10))
    assert not shared_database.exchange(shared, "turn 0", "nobody", "me")
    assert shared_database.exchange(shared, "turn 0", shared.user_attrs["turn 0"], None)
    assert shared_database.exchange(shared, "turn 0", None, "me")
    assert shared.user_attrs["turn 0"] == "me"


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_a_worker_that_died_before_its_first_heartbeat_is_found(shared: Any) -> None:
    shared.enqueue_trial({"x": 0.5})
    assert shared.ask().suggest_float("x", 0, 1) == 0.5
    deadline = time.monotonic() + 60
    while at_work(shared):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [trial.state for trial in shared.trials] == [State.FAIL, State.WAITING]
    assert shared.trials[1].params == {"x": 0.5}


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every machine has PostgreSQL: here SQLite plays a server, to see who waits for it, and how long."""
    storage: Any = open_storage(f"sqlite:///{tmp_path}/optuna.db", heartbeat=1, on_dead=try_again)
    study = optuna.create_study(storage=storage, study_name=NAME)
    shared_database._wait_for_server(storage.engine)
    real, away, pauses = storage.engine.dialect.connect, 3, []

    def connect(*arguments: Any, **options: Any) -> Any:
        nonlocal away
        away -= 1
        if away >= 0:
            raise sqlite3.OperationalError("the server is restarting")
        return real(*arguments, **options)

    monkeypatch.setattr(storage.engine.dialect, "connect", connect)
    monkeypatch.setattr(time, "sleep", pauses.append)
    storage.engine.dispose()
    with pytest.warns(RuntimeWarning, match="study.storage: the server is restarting; waiting for it") as told:
        assert study.trials == []
    assert (len(pauses), len(told)) == (3, 1)
    # nobody waits for a heartbeat: the next one comes
    away = 1
    storage.engine.dispose()
    storage.record_heartbeat(0)
    assert len(pauses) == 3
    # nor for ever; and once it took too long, no more until the server is back
    away = 10**6
    monkeypatch.setattr(shared_database, "OUTAGE", 0.0)
    storage.engine.dispose()
    for _ in range(2):
        with pytest.raises(optuna.exceptions.StorageInternalError):
            assert study.trials == []
    assert len(pauses) == 3
    told_in_the_end = r"study.storage: sqlite://.* failed: .*the server is restarting; .* again"
    with pytest.raises(ConnectionError, match=told_in_the_end), shared_database.storage_explained("sqlite:///x.db"):
        assert study.trials == []
    away = 0
    assert study.trials == []
