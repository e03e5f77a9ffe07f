import threading
import time

import pytest

from analogsim.recipes.tasks.sources import threads


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(threads, "CHUNK", 3)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 50])
def test_results_come_in_order(count):
    assert threads.in_threads(lambda value: value * value, range(count)) == [at * at for at in range(count)]


def test_the_first_error_is_raised_and_the_rest_left():
    done = []

    def fail(value):
        done.append(value)
        if value % 100 == 50:
            raise ValueError(f"at {value}")
        time.sleep(1e-4)

    with pytest.raises(ValueError, match="at 50"):
        threads.in_threads(fail, range(10_000))
    assert len(done) < 5_000


def test_several_threads_take_part():
    met = threading.Barrier(2, timeout=20)
    threads.in_threads(lambda value: met.wait() if value in (0, 3) else None, range(6))
