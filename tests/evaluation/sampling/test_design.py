from __future__ import annotations

import math

import numpy as np
import pytest

from analogsim.evaluation.sampling.design import EVENLY, Design, chances_for, through, variance_of


def population(units: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, what is expected, deviations and weights."""
    rng = np.random.default_rng(0)
    deviations = rng.exponential(size=units) + 0.01
    expected = rng.normal(size=units)
    weights = rng.uniform(0.5, 1.5, size=units)
    weights[:7] = 0
    return expected + deviations * rng.normal(size=units), expected, deviations, weights / weights.sum()


def test_mean_and_variance_are_unbiased_whatever_is_expected() -> None:
    """Over 3,000 chips, within 4 standard errors."""
    scores, expected, deviations, weights = population()
    chances = chances_for(deviations, weights, np.ones(400, int), 60)
    for guess in (expected, np.zeros(400)):
        design = Design(chances[None], guess[None], weights)
        found = np.array([design.estimate(0, i, scores[i]) for i in (design.asked(seed)[0] for seed in range(3000))])
        means, variances = found.T
        assert abs(means.mean() - weights @ scores) < 4 * means.std() / math.sqrt(3000)
        squares = (means - weights @ scores) ** 2
        assert abs(squares.mean() - variances.mean()) < 4 * (squares - variances).std() / math.sqrt(3000)
        truth = variance_of(chances, np.abs(scores - guess), weights)
        assert variances.mean() == pytest.approx(truth, rel=0.05)


def test_all_units_are_exact() -> None:
    scores, expected, _, weights = population()
    design = Design((weights > 0).astype(float)[None], expected[None], weights)
    index = design.asked(3)[0]
    assert len(index) == 393
    mean, variance = design.estimate(0, index, scores[index])
    assert mean == pytest.approx(weights @ scores, rel=1e-12)
    assert variance == 0


def test_a_chip_is_asked_the_same_always_and_alike_at_all_times() -> None:
    _, expected, deviations, weights = population()
    chances = np.stack([chances_for(deviations, weights, np.ones(400, int), count) for count in (50, 100)])
    design = Design(chances, np.stack([expected] * 2), weights)
    few, many = design.asked(5)
    np.testing.assert_array_equal(few, design.asked(5)[0])
    assert set(few) <= set(many)
    assert set(few) != set(design.asked(6)[0])
    numbers = np.concatenate([design.numbers(seed) for seed in range(100)])
    assert abs(numbers.mean() - 0.5) < 4 / math.sqrt(12 * len(numbers))
    assert 0 <= numbers.min() < numbers.max() < 1


@pytest.mark.parametrize("samples", [1, 20, 150, 380])
@pytest.mark.parametrize("sized", [False, True])
def test_chances_add_up_and_none_is_nothing(samples: int, sized: bool) -> None:
    _, _, deviations, weights = population()
    sizes = np.random.default_rng(1).integers(1, 4, 400) if sized else np.ones(400, int)
    chances = chances_for(deviations, weights, sizes, samples)
    assert (chances * sizes).sum() == pytest.approx(samples, rel=0.05)
    assert chances.max() <= 1
    np.testing.assert_array_equal(chances == 0, weights == 0)
    even = samples * weights / (weights * sizes).sum()
    assert (chances >= np.minimum(EVENLY * even, 1) * 0.999).all()


def test_the_chances_are_better_than_even_ones() -> None:
    _, _, deviations, weights = population()
    best = variance_of(chances_for(deviations, weights, np.ones(400, int), 60), deviations, weights)
    even = variance_of(chances_for(np.ones(400), weights, np.ones(400, int), 60), deviations, weights)
    assert best < 0.7 * even
    assert (chances_for(deviations, weights, np.ones(400, int), 393) == (weights > 0)).all()
    none = chances_for(np.zeros(400), weights, np.ones(400, int), 60)
    assert none.sum() == pytest.approx(60, rel=0.05), "where nothing is known to differ all are asked alike"


def test_a_score_that_bends_is_unbiased_to_second_order() -> None:
    """An exponential of estimates with a deviation of 0.1: plain ones are 0.5 % too large."""
    rng = np.random.default_rng(0)
    found = np.array([through(math.exp, 1 + 0.1 * each, 0.01) for each in rng.normal(size=20_000)])
    error = found[:, 0].std() / math.sqrt(len(found))
    assert abs(found[:, 0].mean() - math.e) < 4 * error + 1e-4 * math.e
    assert found[:, 1].mean() == pytest.approx(found[:, 0].var(), rel=0.05)
    assert through(math.exp, 1.0, 0.0) == (math.e, 0.0)
    assert through(lambda mean: 2 * mean, 1.0, 0.25) == pytest.approx((2.0, 1.0))
