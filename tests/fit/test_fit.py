"""Fits of measurements that were sampled from known models."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import DeviceModel, FitWarning, fit_device
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise
from analogsim.fit import sample_measurements
from tests.fit.conftest import (
    FITTED,
    GENERIC,
    TIMES,
    K,
    agree,
    changed,
    only,
    place,
    polynomial,
    quiet,
    standard_error,
    truth,
)


@pytest.mark.parametrize("model", [GENERIC, FITTED], ids=["generic", "fitted"])
def test_parameters_of_a_known_model_are_recovered(model):
    fit = fit_device(sample_measurements(model, cells=50, times=TIMES, seed=5), bootstrap=25)
    assert not fit.report.warnings
    assert len(fit.report.parameters) >= 4
    for parameter in fit.report.parameters:
        assert abs(parameter.value - truth(model, parameter)) < K * standard_error(parameter), parameter
    assert {type(effect) for effect in fit.effects} >= {FittedProgramming, FittedDrift, FittedReadNoise}
    assert all(check.p > 1e-3 for check in fit.report.checks)


def test_pcm_is_recovered_where_it_was_measured():
    with pytest.warns(FitWarning, match="repeated readings are all equal"):
        fit = fit_device(sample_measurements("pcm", cells=150, times=TIMES, seed=0), bootstrap=25)
    for parameter in fit.report.parameters:
        x = place(parameter)
        error = K * standard_error(parameter)
        if parameter.name.startswith("programming sd"):
            # A polynomial chosen from data need not be the source's: 3 % of room.
            expected = 0.26348 + 1.9650 * x - 1.1731 * x**2
            assert abs(parameter.value - expected) < error + 0.03 * expected, parameter
        elif parameter.name.startswith("drift exponent, mean") and " at " in parameter.name:
            expected = np.clip(-0.0155 * math.log(x) + 0.0244, 0.049, 0.100)
            assert abs(parameter.value - expected) < error + 0.03 * expected, parameter
        elif parameter.name.startswith("slow noise"):
            t = np.array([0, 60, 3600, 86400, 864000])
            q = 100 * 0.0088 / x**0.65 * np.sqrt(np.log((t + 20) / 5e-7)).mean()
            assert abs(parameter.value - q) < error + 0.15 * q, parameter


def test_what_is_not_there_is_not_found():
    still = DeviceModel((FittedProgramming((0.02,)), FittedReadNoise((0.005,))))
    columns = sample_measurements(still, cells=30, times=TIMES)
    with pytest.warns(FitWarning, match="no drift was found"):
        fit = fit_device(columns, bootstrap=0)
    assert [type(effect) for effect in fit.effects] == [FittedProgramming, FittedReadNoise]


@pytest.mark.slow
@pytest.mark.parametrize("model", [GENERIC, FITTED], ids=["generic", "fitted"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(model):
    inside = []
    for seed in range(12):
        columns = sample_measurements(model, cells=30, times=TIMES[:4], seed=100 + seed)
        fit = quiet(columns, bootstrap=60, seed=seed)
        inside += [one.low <= truth(model, one) <= one.high for one in fit.report.parameters]
    assert len(inside) > 50
    # 3 standard errors of 0.95 in 70, for numbers that are correlated by half.
    assert np.mean(inside) > 0.84, np.mean(inside)


def test_another_seed_gives_other_intervals_and_the_same_values(columns):
    few = {name: values[columns["cell"] % 3 == 0] for name, values in columns.items()}
    one, again, other = (quiet(few, bootstrap=5, seed=seed) for seed in (0, 0, 1))
    assert one.report.parameters == again.report.parameters
    assert one == again == other
    assert [a.low for a in one.report.parameters] != [b.low for b in other.report.parameters]


@pytest.mark.parametrize("model", [GENERIC, FITTED], ids=["generic", "fitted"])
def test_full_circle(model, tmp_path):
    fit = quiet(sample_measurements(model, cells=100, times=TIMES, seed=2))
    fit.save(tmp_path / "mine.toml")
    layer = nn.Linear(300, 300, bias=False)
    nn.init.uniform_(layer.weight, -1, 1)
    moments = []
    for device in (model, str(tmp_path / "mine.toml")):
        analog = analogsim.convert(layer, device=device).eval()
        analogsim.program(analog, seed=0)
        for t in ("1s", "1d"):
            analogsim.drift(analog, t)
            error = (analogsim.to_digital(analog, "programmed").weight - layer.weight).detach()
            moments.append((float(error.mean()), float(error.std())))
    for source, fitted in zip(moments[:2], moments[2:], strict=True):
        assert fitted[0] == pytest.approx(source[0], abs=2e-3)
        assert fitted[1] == pytest.approx(source[1], rel=0.09)  # 3 standard errors of a fit to 800 cells


def test_the_order_of_rows_does_not_matter(columns, clean):
    order = np.random.default_rng(0).permutation(len(columns["cell"]))
    fit = quiet({name: values[order] for name, values in columns.items()})
    agree(fit, clean, 1e-3)


def test_missing_times_of_some_cells(columns, clean):
    late = (columns["time"] > 1e4) & (columns["cell"] % 2 == 0)
    agree(quiet({name: values[~late] for name, values in columns.items()}), clean, 0.25)


def test_every_cell_may_have_its_own_times():
    columns = sample_measurements(FITTED, cells=30, times=TIMES, seed=3)
    generator = np.random.default_rng(0)
    jitter = np.where(columns["time"] > 20, 1 + 0.01 * generator.random(len(columns["time"])), 1.0)
    fit = quiet(changed(columns, time=columns["time"] * jitter))
    assert polynomial(fit.effects[1].nu, 0.0) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": {"target": "kS"}}, "unknown unit 'kS' of target; give one of nS, µS"),
        ({"units": {"cell": "1"}}, "units has 'cell'; it takes target, measured, time"),
        ({"t0": 0.0}, "t0 must be > 0 seconds, got 0.0"),
        ({"t0": "20s"}, "t0 must be a number"),
        ({"g_max": 10.0}, "targets reach 25 µS, above g_max=10"),
        ({"g_min": 30.0}, "need 0 <= g_min < g_max"),
        ({"g_max": float("nan")}, "g_max must be a number"),
        ({"bootstrap": 1}, "bootstrap must be 0 or an integer above 1, got 1"),
        ({"bootstrap": -1}, "bootstrap must be 0 or an integer above 1, got -1"),
    ],
)
def test_illegal_options(columns, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        fit_device(columns, **options)


def test_fitting_leaves_the_global_random_states_alone(columns):
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    quiet(only(columns, columns["cell"] % 3 == 0), bootstrap=3)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numbers)
