from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from analogsim.recipes.study.lease import Lease

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
