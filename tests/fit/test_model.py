"""The likelihoods of each part: what one part leaves is no bias of another."""

import math

import numpy as np
import pytest

from analogsim import DeviceModel
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.fit import sample_measurements
from analogsim.fit.model import Problem
from analogsim.fit.readings import Readings
from tests.fit.conftest import G_MAX, K, agree, changed, polynomial, quiet


def test_errors_of_the_slopes_are_no_spread_of_the_exponents():
    # Slow noise of 2 % within a factor of 16 in time: slopes scatter 1.4 times as much as exponents.
    drift, slow = FittedDrift((0.05,), (0.01,)), FittedSlowNoise((0.02,))
    model = DeviceModel((FittedProgramming((0.02,)), drift, slow, FittedReadNoise((0.002,))))
    times = (0, 20, 60, 120, 300)
    fit = quiet(sample_measurements(model, cells=800, levels=[10.0, 15.0, 20.0, 25.0], times=times, repeats=2))
    for x in (0.5, 0.9):
        assert polynomial(fit.effects[1].nu_std, math.log(x)) == pytest.approx(0.01, abs=0.0015)
        assert polynomial(fit.effects[2].std, math.log(x)) == pytest.approx(0.02, abs=0.0015)
        assert polynomial(fit.effects[0].sigma, x) == pytest.approx(0.02, abs=0.0015)


def test_censored_cells_at_zero_are_no_bias():
    # Half of the cells at target 0 are at zero: the sd of what is read there is 0.58 of that which was drawn.
    model = DeviceModel((FittedProgramming((0.05,)), FittedReadNoise((0.001,))))
    columns = sample_measurements(model, cells=400, levels=[0.0, 0.5, 25.0], times=(0,), repeats=3)
    fit = quiet(columns)
    assert fit.effects[0].offset == (0.0,)
    for x in (0.0, 1.0):
        sigma = polynomial(fit.effects[0].sigma, x)
        assert sigma == pytest.approx(0.05, abs=K * 0.05 / math.sqrt(400))


def test_cells_that_were_never_programmed_are_left_out_and_counted(columns, clean):
    dead = np.isin(columns["cell"], [100, 150, 201, 230])
    fit = quiet(changed(columns, measured=np.where(dead, 0.0, columns["measured"])))
    assert fit.report.checks[0].left_out == 4
    agree(fit, clean, 0.15)


@pytest.mark.parametrize(("slow", "white"), [((), (0.0, 0.1)), ((0.1,), (0.0, 0.01))], ids=["read noise", "slow noise"])
def test_noise_lowers_logarithms_but_no_conductance(slow, white):
    """Of a reading with 10 % of noise the logarithm is 0.5 % low on average: 25 standard errors of 3,000 cells."""
    effects = [FittedProgramming((0.02,)), FittedDrift((0.05,), (0.005,)), FittedReadNoise(white)]
    if slow:
        effects.insert(2, FittedSlowNoise(slow))
    times = (0, 60, 3600, 86400)
    model, levels = DeviceModel(tuple(effects)), [15.0, 25.0]
    columns = sample_measurements(model, cells=1500, levels=levels, times=times, repeats=2, seed=2)
    x, y = columns["target"] / G_MAX, columns["measured"] / G_MAX
    readings = Readings(y, np.log1p((columns["time"] - 20) / 20), columns["cell"].astype(int), x[:3000])
    problem = Problem(readings)
    law = problem.fit()
    errors = problem.errors(law)
    kept = problem.kept.programming
    one = np.sqrt((0.02**2 + errors.extra[kept].mean()) / kept.sum())
    assert abs(errors.y[kept].mean()) < 2 * one
    exponents = problem.exponents(law)
    kept = problem.kept.drift
    one = np.sqrt((0.005**2 + exponents.extra[kept].mean()) / kept.sum())
    assert abs(exponents.y[kept].mean() - 0.05) < 2 * one
