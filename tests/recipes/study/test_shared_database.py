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
sqlalchemy = pytest.importorskip("sqlalchemy", reason="needs analogsim-torch[recipes]")
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


def signed(shared: Any, number: int, sign: str) -> None:
    """A sign of life of a worker whose clock says this."""
    with shared._storage._backend.engine.begin() as connection:
        beats = sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = :sign WHERE trial_id = :number")
        assert connection.execute(beats, {"sign": sign, "number": number + 1}).rowcount == 1


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
@pytest.mark.parametrize("day", ["1999-01-01", "2199-01-01"])
def test_clocks_of_workers_are_not_compared(
    tmp_path: Path, shared: Any, day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two alive whose clocks are a lifetime off, one of the same clock that is dead."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    study = opened(tmp_path)  # its watch begins with this clock
    for number in range(3):
        assert study.ask().number == number
        study._storage._backend.record_heartbeat(number + 1)
        signed(study, number, f"{day} 00:00:00.000000")
    for beat in range(1, 9):
        now[0] += 1
        for number in (0, 1):
            signed(study, number, f"{day} 00:0{4 * number}:{10 + (beat if number else -beat)}.000000")
        found = at_work(study)
        assert found == (3 if beat <= 5 else 2)
    assert [trial.state for trial in study.trials] == [State.RUNNING, State.RUNNING, State.FAIL, State.WAITING]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with Study.optimize")
def test_who_was_cut_off_takes_nobody_for_dead_at_once(
    tmp_path: Path, shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    study = opened(tmp_path)
    study.ask()
    study._storage._backend.record_heartbeat(1)
    assert at_work(study) == 1
    now[0] += 3600  # the storage was away for all of them
    assert at_work(study) == 1
    for _ in range(3):
        now[0] += 1
        found = at_work(study)
    assert found == 0


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
    # nor where a signal came
    away = 1
    storage.engine.dispose()
    with monkeypatch.context() as patch:
        patch.setattr(shared_database, "ending", lambda: True)
        with pytest.raises(optuna.exceptions.StorageInternalError):
            assert study.trials == []
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


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_who_is_silent_for_more_than_four_beats_is_dead(clock: Clock) -> None:
    watch = shared_database.Watch(10)
    for passed in range(0, 50, 5):
        clock.now = 100.0 + passed
        watch.look({1: "as it was", 2: passed})
        assert watch.dead() == ([1] if passed > 40 else [])
    watch.look({2: 0})
    assert watch.dead() == []  # it is not at work any more


@pytest.mark.parametrize("signs", [range(0, -3600, -1), [7, 3607] * 30, ["b", "a", None] * 20])
def test_what_a_sign_says_does_not_matter(clock: Clock, signs: Any) -> None:
    watch = shared_database.Watch(10)
    for sign in signs:
        clock.now += 10
        watch.look({1: sign})
        assert watch.dead() == []


def test_who_slept_or_was_cut_off_gives_the_others_time(clock: Clock) -> None:
    """After an hour away the first look counts for two beats, whoever was silent."""
    watch = shared_database.Watch(10)
    watch.look({1: 0, 2: 0})
    clock.now += 3600
    watch.look({1: 0, 2: 0})
    assert watch.dead() == []
    for _ in range(3):
        clock.now += 10
        watch.look({1: 1, 2: 0})
    assert watch.dead() == [2]
