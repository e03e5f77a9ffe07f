"""The tools of the fit against the slow obvious way."""

import math

import numpy as np
import pytest

from analogsim.fit.estimate import Basis, NormalLaw, median_by


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
