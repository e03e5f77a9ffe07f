from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from analogsim.errors import UnavailableError
from analogsim.recipes.study.lease import Lease, exchange
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.study.trials import identity, try_again
from tests.recipes.workers import NAME

optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")


@pytest.fixture(autouse=True)
def silent() -> Any:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(verbosity)


def test_one_worker_at_a_time_holds_a_lease() -> None:
    study = optuna.create_study()
    inside, most, done = 0, 0, []
    guard = threading.Lock()

    def work(name: int) -> None:
        nonlocal inside, most
        with Lease(study, "it", beat=1).held(lambda: len(done) == 2) as ours:
            if ours:
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.3)
                with guard:
                    inside -= 1
                    done.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == 1
    assert len(done) == 2  # what is done need not be done again
    assert study.user_attrs["it"] is None


def test_a_lease_that_is_held_for_eight_beats_is_nobody_elses() -> None:
    """Who waits takes it for lost after four silent ones."""
    study, beat = optuna.create_study(), 0.25
    done, entered = threading.Event(), threading.Event()

    def wait() -> None:
        with Lease(study, "it", beat).held(done.is_set) as ours:
            if ours:
                entered.set()

    other = threading.Thread(target=wait)
    holder = Lease(study, "it", beat)
    with holder.held(lambda: False) as ours:
        assert ours
        other.start()
        assert not entered.wait(8 * beat)
        holder.check()
        done.set()
    other.join(60)
    assert not entered.is_set()


def test_the_lease_of_a_dead_worker_is_taken_over() -> None:
    study = optuna.create_study()
    study.set_user_attr("it", ["somebody who died", 3])
    began = time.monotonic()
    with Lease(study, "it", beat=0.1).held(lambda: False) as ours:
        assert ours
        assert time.monotonic() - began > 0.4
        first = study.user_attrs["it"]
        deadline = time.monotonic() + 30
        while study.user_attrs["it"] == first:  # renewed, for the others to see
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_lease_is_given_back_when_work_fails() -> None:
    study = optuna.create_study()
    with pytest.raises(KeyError), Lease(study, "it", beat=1).held(lambda: False):
        raise KeyError
    assert study.user_attrs["it"] is None


def opened(place: Path) -> Any:
    storage = open_storage(f"sqlite:///{place}/optuna.db", heartbeat=1, on_dead=try_again)
    return optuna.create_study(storage=storage, study_name=NAME, load_if_exists=True)


def test_only_one_worker_is_the_first(tmp_path: Path) -> None:
    shared = opened(tmp_path)
    won, begin = [], threading.Barrier(4)

    def claim(name: str) -> None:
        study = opened(tmp_path)
        begin.wait()
        for turn in range(10):
            if exchange(study, f"turn {turn}", None, name):
                won.append(turn)

    threads = [threading.Thread(target=claim, args=(str(index),)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(won) == list(range(10))
    assert not exchange(shared, "turn 0", "nobody", "me")
    assert exchange(shared, "turn 0", shared.user_attrs["turn 0"], None)
    assert exchange(shared, "turn 0", None, "me")
    assert shared.user_attrs["turn 0"] == "me"


IN_A_JOURNAL = """
import sys, time, warnings
warnings.simplefilter("ignore")
import optuna
from optuna.storages.journal import JournalFileBackend
from analogsim.errors import UnavailableError
from analogsim.recipes.study.lease import exchange
optuna.logging.set_verbosity(optuna.logging.ERROR)
storage = optuna.storages.JournalStorage(JournalFileBackend(sys.argv[1]))
study = optuna.load_study(study_name="faults", storage=storage)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(40):
    if exchange(study, f"turn {turn}", None, sys.argv[2]):
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
        exchange(study, "it", None, "me")
    assert study.user_attrs == {}

    class Elsewhere(optuna.storages.InMemoryStorage):
        """In another process, say."""

    study = optuna.create_study(storage=Elsewhere())
    monkeypatch.setattr(optuna.storages, "InMemoryStorage", int)
    with pytest.raises(UnavailableError, match=r"Elsewhere has no step that two workers cannot both make"):
        identity(study)
