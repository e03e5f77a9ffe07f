import pytest

from analogsim.recipes.judge.clock import Clock


def test_costs_are_learnt():
    clock = Clock(100, now=lambda: 0.0)
    clock.set_costs((8, 0.18), (108, 1.18))
    assert clock.per_sample == pytest.approx(0.01)
    assert clock.fixed == pytest.approx(0.1)
    assert clock.estimate(200, 3) == pytest.approx(3 * 2.1)
    assert clock.samples_for(2.1) == pytest.approx(200, abs=1)
    for _ in range(20):
        clock.learn(200, 3, 2 * 3 * 2.1)
    assert clock.estimate(200, 3) == pytest.approx(2 * 3 * 2.1, rel=1e-3)


def test_one_measurement_is_taken_for_samples_alone():
    clock = Clock(100)
    clock.set_costs((8, 16.0), (8, 16.0))
    assert (clock.fixed, clock.per_sample) == (0.0, 2.0)


def test_what_is_left():
    now = iter((5.0, 25.0, 125.0))
    clock = Clock(100, now=lambda: next(now))
    assert clock.left == 80
    assert clock.left == -20


def test_what_data_go_through_first_takes_longer_and_the_rest_does_not():
    clock = Clock(100.0, fixed=0.0, per_sample=0.1)
    clock.learn(10, 2, 20.0, "affine")
    assert clock.estimate(10, 2, "affine") == pytest.approx(20.0)
    assert clock.estimate(10, 2) == pytest.approx(2.0)
    assert clock.estimate(10, 2, "not measured yet") == pytest.approx(2.0)
    clock.learn(10, 2, 10.0, "affine")
    assert clock.estimate(10, 2, "affine") == pytest.approx(15.0)
