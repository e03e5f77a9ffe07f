import numpy as np
import pytest

import analogsim
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.judge.bench import Bench, NoTimeError, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.variant import Subject, Variant


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


def test_clean_samples_of_learned_ranges_are_those_behind_the_converters(model, samples):
    learned = "standard(input_range='learned')"
    analog = analogsim.convert(model, "pcm", crossbar=learned)
    inputs = [each for each, _ in samples]
    analogsim.calibrate(analog, inputs, percentile=60)
    bench = Bench(Subject(analog, inputs, "pcm", learned), METRICS["accuracy"], Clock(1e6))
    found = bench.measure(Variant(), Part(samples, 5, ("1s", "1y")), 2)
    assert found.report.digital == 1
    assert found.report.clean < 1
    assert found.clean.mean() == pytest.approx(found.report.clean)
    np.testing.assert_allclose(found.rows.mean(2), found.report.values)
