"""The tools of the fit against the slow obvious way."""

import math

import numpy as np
import pytest

from analogsim.fit.estimate import (
    Basis,
    NormalLaw,
    bayes,
    bins,
    evaluate,
    fit_scale,
    median_by,
    normal_scale,
    select,
)
from tests.fit.conftest import K


def test_medians_of_groups():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 20, 100)
    group[group == 7] = 8
    values = generator.normal(size=100)
    got = median_by(values, group, 20)
    for one in range(20):
        expected = np.median(values[group == one]) if (group == one).any() else np.nan
        assert got[one] == pytest.approx(expected, nan_ok=True)


def test_the_likelihood_of_a_cell_that_may_be_at_zero_is_a_density():
    """Against the integral over the conductance, and with integral one."""
    mean, std, noise, zero = 0.3, 1.0, 0.4, -0.5
    y = np.linspace(-6, 8, 2801)
    law = NormalLaw(y, Basis.of(np.linspace(0, 1, len(y)), 1), np.full_like(y, noise**2), np.full_like(y, zero))
    density = np.exp(-law.surprise((np.array([mean]), np.array([std])))) / math.sqrt(2 * math.pi)
    g = np.linspace(0, 9, 20001)[1:] + zero

    def normal(value, sd):
        return np.exp(-0.5 * (value / sd) ** 2) / sd / math.sqrt(2 * math.pi)

    off = 0.5 * math.erfc((mean - zero) / std / math.sqrt(2))
    for place in range(0, len(y), 200):
        above = (normal(g - mean, std) * normal(y[place] - g, noise)).sum() * (g[1] - g[0])
        expected = above + off * normal(y[place] - zero, noise)
        assert density[place] == pytest.approx(expected, rel=2e-3, abs=1e-9)
    assert density.sum() * (y[1] - y[0]) == pytest.approx(1.0, rel=1e-3)


def test_polynomials_are_orthogonal_and_are_written_as_powers():
    x = np.sort(np.random.default_rng(0).uniform(0.1, 1, 50))
    basis = Basis.of(x, 3)
    np.testing.assert_allclose(basis.q.T @ basis.q / len(x), np.eye(3), atol=1e-12)
    weights = np.array([0.3, -0.2, 0.1])
    for count in (1, 2, 3):
        powers = basis.coefficients(weights[:count])
        np.testing.assert_allclose(evaluate(powers, x), basis.at(weights[:count]), atol=1e-12)
        assert len(powers) == count
    assert (basis.q[:, 0] > 0).all()
    assert basis.coefficients(np.zeros(0)) == (0.0,)
    assert Basis.of(np.array([1.0, 2.0, 1.0, 2.0]), 4).count == 2  # two points tell a line


def test_the_scale_of_normal_numbers_in_spite_of_others():
    values = 3 * np.random.default_rng(0).normal(size=20000)
    assert normal_scale(values) == pytest.approx(3, abs=K * 3 * 1.17 / math.sqrt(20000))
    assert normal_scale(np.append(values, np.full(1000, 1e6))) == pytest.approx(3, rel=0.1)
    assert normal_scale(np.zeros(0)) == 0


def test_bins_hold_about_as_many_values_and_no_value_lies_in_two():
    values = np.repeat(np.arange(10.0), [1, 30, 2, 40, 5, 5, 5, 5, 50, 7])
    found = bins(values, 15, 30)
    assert all(len(set(found[values == one])) == 1 for one in range(10))
    assert (np.diff(found) >= 0).all()  # in order
    assert 4 <= len(set(found)) <= 10
    assert len(set(bins(np.arange(1000.0), 1, 20))) == 20
    assert set(bins(np.arange(5.0), 20, 30)) == {0}


def sampled(n=4000, mean=(0.2, 0.3), std=(0.1, 0.05), extra=0.1, seed=0):
    """Numbers of a normal law that changes with x, each with a known variance of its own added."""
    generator = np.random.default_rng(seed)
    x = np.linspace(-1, 1, n)
    known = (extra * generator.uniform(0.5, 1.5, n)) ** 2
    spread = np.sqrt(evaluate(std, x) ** 2 + known)
    return x, evaluate(mean, x) + spread * generator.normal(size=n), known


def test_the_most_likely_law_is_the_true_one_within_its_errors():
    x, y, known = sampled()
    law = NormalLaw(y, Basis.of(x, 3), known)
    found, _ = law.fit(np.ones(len(x)), (2, 2), law.rough())
    total = evaluate((0.1, 0.05), x) ** 2 + known
    # Fisher's information of the coefficients 1, x of the mean, and of those of the standard deviation.
    columns = np.stack((np.ones_like(x), x), 1)
    of_mean = np.linalg.inv(columns.T @ (columns / total[:, None]))
    slope = evaluate((0.1, 0.05), x) / total  # of half the logarithm of the variance
    of_std = np.linalg.inv(2 * columns.T @ (columns * (slope**2)[:, None]))
    for weights, true, spread in zip(found, ((0.2, 0.3), (0.1, 0.05)), (of_mean, of_std), strict=True):
        away = (np.array(law.basis.coefficients(weights)) - true) / np.sqrt(np.diag(spread))
        assert (abs(away) < K).all(), away
    residuals = law.residuals(found)
    assert residuals.std() == pytest.approx(1, abs=K / math.sqrt(2 * len(x)))


def test_a_weight_of_two_counts_twice_and_of_zero_not_at_all():
    x, y, known = sampled(60)
    law, weight = NormalLaw(y, Basis.of(x, 2), known), np.arange(60) % 3.0
    found, value = law.fit(weight, (2, 1), law.rough())
    place = np.repeat(np.arange(60), weight.astype(int))
    repeated = NormalLaw(y[place], Basis(law.basis.q[place], law.basis.r), known[place])
    again, same = repeated.fit(np.ones(len(place)), (2, 1), found)
    assert value == pytest.approx(same, abs=1e-3)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(again), atol=1e-3)


def test_what_lies_far_off_is_left_out_and_nothing_else():
    x, y, known = sampled(2000)
    odd = np.arange(2000) % 20 == 7
    away = 5 * np.sqrt(evaluate((0.1, 0.05), x) ** 2 + known)  # beyond four standard deviations, but within six
    away[np.arange(2000) % 40 == 7] = 5.0
    law = NormalLaw(np.where(odd, evaluate((0.2, 0.3), x) + away, y), Basis.of(x, 3), known)
    keep, found = law.settle((3, 2))
    assert not keep[odd].any()
    assert (~keep[~odd]).sum() <= 2  # beyond four standard deviations: 1 in 16,000
    clean, _ = NormalLaw(y, Basis.of(x, 3), known).fit((~odd).astype(float), (3, 2), found)
    np.testing.assert_allclose(np.concatenate(found), np.concatenate(clean), atol=0.01)


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [((0.0,), (0.1,), (0, 1)), ((0.2,), (0.1,), (1, 1)), ((0.2, 0.3), (0.1,), (2, 1)), ((0.2,), (0.1, 0.05), (1, 2))],
)
def test_as_many_coefficients_as_the_data_tell(mean, std, expected):
    x, y, known = sampled(1000, mean, std, extra=0.01)
    law = NormalLaw(y, Basis.of(x, 3), known)
    found = law.choose(np.ones(1000), (3, 3), law.rough(), least=0)
    assert tuple(len(part) for part in found) == expected
    # A mean that may not be zero is chosen by Akaike's criterion, which lets in what gains a little.
    assert len(law.choose(np.ones(1000), (3, 3), law.rough(), least=1)[0]) >= max(1, expected[0])


def test_a_coefficient_must_gain_what_it_costs():
    surprise = {(1, 1): 10.0, (2, 1): 8.5, (3, 1): 8.0}
    laws = {counts: (np.zeros(counts[0]), np.zeros(counts[1])) for counts in surprise}

    def chosen(cost):
        return len(select(lambda counts: (laws[counts], surprise[counts]), surprise, cost)[0])

    assert [chosen(cost) for cost in (0.5, 2.0, 4.0)] == [3, 2, 1]
    assert bayes(np.full(1000, 2.0)) == pytest.approx(math.log(2000))
    assert bayes(np.ones(2)) == pytest.approx(math.log(8))


def test_a_scale_may_be_nothing_at_all():
    values = np.random.default_rng(0).normal(size=500)

    def surprise(weights, truth):
        std = truth if not len(weights) else max(float(weights[0]), 1e-6)
        return float((np.log(std) + 0.5 * (values / std) ** 2).sum())

    for known, count in ((1.0, 0), (0.3, 1)):
        found = fit_scale(lambda weights, known=known: surprise(weights, known), range(2), np.array([0.5]), 2.0)
        assert len(found) == count
    assert found[0] == pytest.approx(values.std(), rel=0.01)
