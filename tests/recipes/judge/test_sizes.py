import pytest

from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.sizes import plan


def clock(per_sample: float, fixed: float = 0.01) -> Clock:
    return Clock(600, now=lambda: 0.0, fixed=fixed, per_sample=per_sample)


def sizes(which: Clock, available: int = 1000):
    return plan(which, times=5, remedies=25, layers=20, available=available)


def test_a_quick_network_has_all_samples_and_many_chips():
    found = sizes(clock(1e-5))
    assert (found.samples, found.final, found.groups) == (1000, 25, 20)


def test_a_slower_one_has_fewer_samples_that_fit():
    which = clock(0.01)
    found = sizes(which)
    assert 16 < found.samples < 1000
    visits = 30 + 3 * 37 + 36 + 27
    assert which.estimate(found.samples, visits) == pytest.approx(450, rel=0.05)


def test_one_that_takes_seconds_has_the_least():
    assert sizes(clock(2.0)).samples == 16
    assert sizes(clock(2.0), available=5).samples == 5


def test_samples_are_kept_where_chips_are_what_takes_time():
    found = sizes(clock(0.001, fixed=30.0))
    assert (found.samples, found.tried) == (1000, 2)
