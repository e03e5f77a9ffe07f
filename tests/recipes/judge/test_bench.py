import numpy as np
import pytest

import analogsim
from analogsim.recipes.judge.bench import NoTimeError
from analogsim.recipes.judge.variant import Variant


def test_it_measures_what_evaluate_does(bench, subject, part, samples):
    found = bench.measure(Variant(), part, 3)
    expected = analogsim.evaluate(subject.analog, samples, chips=3, seed=5, times=("1s", "1y"))
    np.testing.assert_array_equal(found.report.values, expected.values)
    np.testing.assert_allclose(found.rows.mean(2), expected.values)
    assert found.clean.mean() == expected.clean


def test_more_chips_are_added_to_those_that_are_known(bench, part):
    bench.measure(Variant(), part, 2)
    asked = []
    ask = bench.ask
    bench.ask = lambda variant, part, seeds: asked.append(list(seeds)) or ask(variant, part, seeds)
    found = bench.measure(Variant(("other name",)), part, 3)
    assert asked == [[7]]
    assert found.report.seeds == (5, 6, 7)


def test_differences_are_of_the_same_chips(bench, part):
    one, other = bench.measure(Variant(), part, 3), bench.measure(Variant().with_digital(["0"]), part, 2)
    apart = other.over(one)
    assert apart.mean == pytest.approx((other.report.values - one.report.values[:2])[:, 1].mean())
    assert one.loss().mean == pytest.approx(one.report.clean - one.report.mean[1])


def test_what_would_take_too_long_is_not_begun(bench, part):
    bench.clock.per_sample = 1.0
    bench.clock.budget = 100
    with pytest.raises(NoTimeError):
        bench.measure(Variant(), part, 1)


def test_the_digital_network(bench, samples):
    value, row = bench.score_clean(samples)
    assert value == 1.0
    assert row.shape == (60,)
