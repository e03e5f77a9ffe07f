import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import analogsim
from analogsim.evaluation.journal import Journal
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.judge.bench import Bench, NoTimeError, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.samples import Samples
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


def test_what_is_known_of_data_that_are_gone_is_not_taken_for_that_of_others(bench, samples):
    # Python gives the address of what is gone to the next one.
    for count in range(2, 30):
        assert bench.measure(Variant(), Part(samples.take(count), 5, (1.0,)), 2).report.samples == count


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


class Threads:
    """Workers as they would be elsewhere: they get everything pickled."""

    def submit(self, function, /, *args):
        pool = ThreadPoolExecutor(1)
        try:
            return pool.submit(function, pickle.loads(pickle.dumps(replace(*args, caller=("elsewhere", 0)))))
        finally:
            pool.shutdown(wait=False)


def test_workers_send_the_scores_of_samples_back(bench, subject, part):
    shared = Bench(subject, bench.metric, Clock(1e6), executor=Threads())
    for variant in (Variant(), Variant(compensation="column+batch-norm").with_digital(["0"])):
        one, other = bench.measure(variant, part, 3), shared.measure(variant, part, 3)
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.report.values, other.report.values)


def test_a_journal_holds_them_and_nothing_is_judged_twice(bench, subject, part, tmp_path):
    def kept():
        return Bench(subject, bench.metric, Clock(1e6), journal=Journal(tmp_path / "chips.jsonl", "net"))

    kept().measure(Variant(), part, 2)
    kept().ablate(Variant(), part, 2)
    size = (tmp_path / "chips.jsonl").stat().st_size
    again = kept()
    again.ablate(Variant(), part, 2)
    found = again.measure(Variant(), part, 2)
    assert (tmp_path / "chips.jsonl").stat().st_size == size
    assert again.clock.factor == 1.0  # nothing is learnt of what took no time
    more = again.measure(Variant(), part, 3)
    assert (found.anew, more.anew) == (0, 1)
    np.testing.assert_array_equal(more.rows, bench.measure(Variant(), part, 3).rows)


def test_chips_of_a_journal_need_no_time(bench, subject, part, tmp_path):
    def kept(seconds):
        return Bench(subject, bench.metric, Clock(seconds, per_sample=1.0), journal=Journal(tmp_path / "chips.jsonl"))

    first = kept(1e6)
    rows = first.measure(Variant(), part, 2).rows
    first.ablate(Variant(), part, 3)
    again = kept(1.0)
    assert again.kept(Variant(), part) == 2
    assert again.kept(Variant(), part, parts=True) == 3
    assert again.kept(Variant(compensation="column"), part) == 0
    assert again.estimate(Variant(), part, 2) == 0
    np.testing.assert_array_equal(again.measure(Variant(), part, 2, reserve=5.0).rows, rows)
    with pytest.raises(NoTimeError):
        again.measure(Variant(), part, 3)
    assert bench.kept(Variant(), part) == 0


def test_faults_that_weights_are_laid_around_reach_workers(model, samples, part):
    analog = analogsim.convert(model, "stuck-at")
    subject = Subject(analog, [inputs for inputs, _ in samples], "stuck-at", "ideal")
    variant = replace(Variant(compensation=None), laid_around=True)
    rows = [
        Bench(subject, METRICS["accuracy"], Clock(1e6), **how).measure(variant, replace(part, times=("0s",)), 2).rows
        for how in ({}, {"executor": Threads()})
    ]
    np.testing.assert_array_equal(*rows)


def test_where_samples_tell_nothing_chips_do(bench, part):
    found = bench.measure(Variant(), part, 4)
    unknown = replace(found, rows=np.full_like(found.rows, np.nan), clean=np.full_like(found.clean, np.nan))
    assert unknown.loss().mean == pytest.approx(found.loss().mean)
    assert unknown.loss().error == pytest.approx(found.report.values[:, -1].std(ddof=1) / 2)


def test_one_answer_to_all_samples(bench, samples, subject):
    """No better than the most frequent class, and the variance of the targets for who says their mean."""
    most = float(torch.cat([target for _, target in samples]).bincount().max()) / 60
    assert bench.score_constant(samples) <= most
    exact = Samples([(inputs, subject.digital(inputs).detach()) for inputs, _ in samples])
    targets = torch.cat([target for _, target in exact])
    squares = Bench(subject, METRICS["mean_squared_error"], Clock(1e6))
    assert squares.score_constant(exact) == pytest.approx(float(targets.var(0, correction=0).mean()), rel=1e-4)
    with pytest.raises(TypeError, match="only of answers there is a mean"):
        Bench(subject, METRICS["loss"], Clock(1e6)).score_constant(samples)


def test_slow_compensations_do_not_make_others_look_slow(bench, part):
    bench.clock.set_costs((8, 0.1), (60, 0.1))
    fast, slow = Variant(), Variant(compensation="global+affine")
    before = bench.estimate(fast, part, 2)
    bench.clock.learn(60, 1, 50.0, "affine")
    assert bench.estimate(slow, part, 2) > 20 * bench.estimate(fast, part, 2)
    assert bench.estimate(fast, part, 2) == before
