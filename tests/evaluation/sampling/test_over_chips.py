from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analogsim.evaluation.sampling.over_chips import (
    Sampled,
    chip_variance,
    chips_needed,
    half_width,
    quantile,
    quantile_interval,
)


def estimates(rng: np.random.Generator, chips: int, noise: float) -> tuple[np.ndarray, Sampled]:
    """Chips with mean 0.8 and deviation 0.01, and what samples make of them; their variance is told within 10 %."""
    values = 0.8 + 0.01 * rng.normal(size=(chips, 2)) + noise * rng.normal(size=(chips, 2))
    told = noise**2 * rng.uniform(0.9, 1.1, size=(chips, 2))
    return values, Sampled(told, np.full((chips, 2), 200), 200)


def test_without_samples_it_is_numpys() -> None:
    values = np.random.default_rng(0).normal(size=(50, 3))
    for sampled in (None, Sampled(np.zeros((50, 3)), np.full((50, 3), 9), 9)):
        np.testing.assert_allclose(chip_variance(values, sampled), values.var(axis=0, ddof=1))
        np.testing.assert_array_equal(quantile(values, sampled, 0.1), np.quantile(values, 0.1, axis=0))
    half = half_width(values, 0.9)
    interval = stats.t.interval(0.9, 49, loc=0, scale=values.std(axis=0, ddof=1) / np.sqrt(50))
    np.testing.assert_allclose(half, interval[1])


def test_variance_and_quantile_are_those_of_the_chips() -> None:
    """Means over 400 experiments within 4 standard errors."""
    rng = np.random.default_rng(0)
    variances, tails = [], []
    for _ in range(400):
        values, sampled = estimates(rng, 300, 0.015)
        variances.append(chip_variance(values, sampled)[0])
        tails.append(quantile(values, sampled, 0.05)[0])
        assert values[:, 0].var(ddof=1) > 2 * 1e-4, "the spread of the estimates is another"
    for found, true in ((variances, 1e-4), (tails, 0.8 - 1.645 * 0.01)):
        error = np.std(found) / np.sqrt(len(found))
        assert abs(np.mean(found) - true) < 4 * error


def test_the_intervals_hold_what_they_say() -> None:
    """Of 400 experiments: 95 % within 4 standard errors (1.1 %), with 1.5 % for laws that are not quite normal."""
    rng = np.random.default_rng(1)
    within = {"order": 0, "samples": 0}
    true = 0.8 + 0.01 * stats.norm.ppf(0.05)
    for _ in range(400):
        values, sampled = estimates(rng, 250, 0.015)
        low, high = quantile_interval(values, sampled, 0.05, 0.95)[:, 0]
        within["samples"] += low <= true <= high
        low, high = quantile_interval(0.8 + 0.01 * rng.normal(size=(250, 1)), None, 0.05, 0.95)[:, 0]
        within["order"] += low <= true <= high
    for share in within.values():
        assert 0.95 - 0.06 < share / 400 < 0.995


def test_what_cannot_be_had_is_nan_or_infinite() -> None:
    rng = np.random.default_rng(2)
    values, sampled = estimates(rng, 20, 0.3)
    assert np.isnan(quantile(values, sampled, 0.05)).all()
    assert np.isnan(quantile_interval(values, sampled, 0.05, 0.95)).all()
    for needed, share in zip(
        chips_needed(values, sampled), chip_variance(values, sampled) / values.var(axis=0, ddof=1), strict=True
    ):
        assert needed is None if share <= 0 else needed > 20
    low, high = quantile_interval(values, None, 0.05, 0.95)
    assert np.isneginf(low).all(), "20 chips say nothing of what the 5th percentile is at least"
    assert np.isfinite(high).all()
    low, _ = quantile_interval(rng.normal(size=(72, 1)), None, 0.05, 0.95)
    assert np.isfinite(low).all()


@pytest.mark.parametrize("sampled", [None, Sampled(np.full((1, 2), 1e-4), np.ones((1, 2), int), "auto")])
def test_one_chip_has_no_spread(sampled: Sampled | None) -> None:
    values = np.array([[0.5, 0.6]])
    assert np.isnan(chip_variance(values, sampled)).all()
    assert np.isnan(half_width(values)).all()
    assert np.isnan(quantile(values, sampled, 0.5)).all() == (sampled is not None)


def test_nothing_that_varies_is_known() -> None:
    values = np.full((5, 1), 0.9)
    sampled = Sampled(np.zeros((5, 1)), np.ones((5, 1), int), 3)
    assert quantile(values, sampled, 0.05)[0] == 0.9
    assert half_width(values)[0] == 0


def test_it_is_stored_joined_and_cut() -> None:
    rng = np.random.default_rng(3)
    one, two = (estimates(rng, chips, 0.01)[1] for chips in (3, 2))
    assert Sampled.from_dict(one.to_dict()) == one
    assert one != two
    both = Sampled.merged([one, two], np.array([3, 4, 0, 1, 2]))
    assert both is not None
    assert both.at(slice(2, 5), slice(None)) == one
    assert both.at([0, 1], [0, 1]) == two
    assert Sampled.merged([None], np.arange(1)) is None
