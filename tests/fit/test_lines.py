"""The power laws of many cells at once against one regression after the other."""

import numpy as np
import pytest

from analogsim.fit.lines import Lines


@pytest.fixture
def readings():
    """ln g, L, variance and cell of 3 to 6 readings of each of 40 cells, in no order."""
    generator = np.random.default_rng(0)
    cell = generator.permutation(np.repeat(np.arange(40), generator.integers(3, 7, 40)))
    log_time = generator.uniform(0, 10, len(cell))
    variance = generator.uniform(0.5, 2, len(cell)) * 0.01**2
    z = generator.normal(size=40)[cell] - generator.uniform(0.01, 0.1, 40)[cell] * log_time
    return z + generator.normal(size=len(cell)) * np.sqrt(variance), log_time, variance, cell


def regression(z, log_time, covariance):
    """Height and slope by generalised least squares, and their covariance."""
    columns, weight = np.stack((np.ones_like(log_time), log_time), 1), np.linalg.inv(covariance)
    spread = np.linalg.inv(columns.T @ weight @ columns)
    return spread @ columns.T @ weight @ z, spread


def test_slopes_and_rests_are_those_of_weighted_least_squares(readings):
    z, log_time, variance, cell = readings
    lines = Lines.through(z, log_time, variance, cell, 40)
    for one in range(40):
        own = cell == one
        found, spread = regression(z[own], log_time[own], np.diag(variance[own]))
        assert lines.slope[one] == pytest.approx(found[1], rel=1e-6)
        assert lines.slope_variance[one] == pytest.approx(spread[1, 1], rel=1e-6)
        rest = ((z[own] - found[0] - found[1] * log_time[own]) ** 2 / variance[own]).sum()
        assert lines.rest[one] == pytest.approx(rest, rel=1e-6, abs=1e-6)
        assert lines.log_variance[one] == pytest.approx(np.log(variance[own]).sum())


@pytest.mark.parametrize("spread", [0.0, 0.003, 1.0])
def test_heights_know_how_far_exponents_scatter(readings, spread):
    """The exponent of a cell is a normal number of known mean and spread: what it adds is correlated over the times."""
    z, log_time, variance, cell = readings
    height, height_variance = Lines.through(z, log_time, variance, cell, 40).intercept(
        np.full(40, 0.05), np.full(40, spread)
    )
    for one in range(40):
        own = cell == one
        covariance = np.diag(variance[own]) + spread**2 * np.outer(log_time[own], log_time[own])
        weight = np.linalg.inv(covariance).sum(0)
        assert height[one] == pytest.approx(weight @ (z[own] + 0.05 * log_time[own]) / weight.sum(), abs=1e-6)
        assert height_variance[one] == pytest.approx(1 / weight.sum(), rel=1e-4)


def test_an_outlier_of_large_variance_moves_no_line(readings):
    z, log_time, variance, cell = readings
    z = np.append(z, np.full(40, 50.0))
    log_time, variance = np.append(log_time, np.full(40, 12.0)), np.append(variance, np.full(40, 1e9))
    lines = Lines.through(z, log_time, variance, np.append(cell, np.arange(40)), 40)
    np.testing.assert_allclose(lines.slope, Lines.through(*readings, 40).slope, atol=1e-6)


def test_lines_through_all_readings_are_the_true_ones_within_their_errors():
    generator = np.random.default_rng(1)
    cell, log_time = np.repeat(np.arange(2000), 4), np.tile([0.0, 2.0, 5.0, 9.0], 2000)
    nu = generator.normal(0.05, 0.01, 2000)
    z = generator.normal(size=2000)[cell] - nu[cell] * log_time + generator.normal(0, 0.02, len(cell))
    lines = Lines.through(z, log_time, np.full(len(cell), 0.02**2), cell, 2000)
    away = (lines.slope + nu) / np.sqrt(lines.slope_variance)
    assert abs(away.mean()) < 4.5 / np.sqrt(2000)
    assert away.std() == pytest.approx(1, abs=4.5 / np.sqrt(4000))
    assert lines.rest.mean() == pytest.approx(2, abs=4.5 * 2 / np.sqrt(2000))  # chi square of 4 - 2 degrees


def test_a_cell_with_one_time_has_no_slope():
    one = np.ones(3)
    assert Lines.through(one, 2 * one, one, np.zeros(3, dtype=int), 1).determinant == pytest.approx(0)
