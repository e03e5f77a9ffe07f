from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from analogsim.errors import UnavailableError
from analogsim.recipes.study import shared_database
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.study.trials import at_work, identity, try_again
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


IN_A_JOURNAL = """
import sys, time, warnings
warnings.simplefilter("ignore")
import optuna
from optuna.storages.journal import JournalFileBackend
from analogsim.errors import UnavailableError
from analogsim.recipes.study import shared_database
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.JournalStorage(JournalFileBackend(sys.argv[1]))
study = optuna.load_study(study_name="faults", storage=storage)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(40):
    if shared_database.exchange(study, f"turn {turn}", None, sys.argv[2]):
        print(turn, flush=True)
"""


def in_a_journal(place: Path) -> Any:
    backend = optuna.storages.journal.JournalFileBackend(str(place / "journal.log"))
    return optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name=NAME, load_if_exists=True)


@pytest.mark.slow
def test_only_one_process_is_the_first_in_a_journal(tmp_path: Path) -> None:
    """Reading and writing are two steps of a journal: without a lock most turns are won by several."""
    study = in_a_journal(tmp_path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", IN_A_JOURNAL, str(tmp_path / "journal.log"), str(index)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    won = {int(turn): str(name) for name, turns in enumerate(said) for turn in turns}
    assert sum(map(len, said)) == 40
    assert {turn: study.user_attrs[f"turn {turn}"] for turn in range(40)} == won


def test_a_storage_that_cannot_keep_two_workers_apart_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = in_a_journal(tmp_path)
    (tmp_path / "journal.log.steps").mkdir()
    with pytest.raises(UnavailableError, match=r"journal\.log\.steps cannot be locked \(Is a directory\).*RDBStorage"):
        shared_database.exchange(study, "it", None, "me")
    assert study.user_attrs == {}

    class Elsewhere(optuna.storages.InMemoryStorage):
        """In another process, say."""

    study = optuna.create_study(storage=Elsewhere())
    monkeypatch.setattr(optuna.storages, "InMemoryStorage", int)
    with pytest.raises(UnavailableError, match=r"Elsewhere has no step that two workers cannot both make"):
        identity(study)


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
