"""What the column time counts from."""

import numpy as np
import pytest

from analogsim import fit_device
from analogsim.fit.clock import Clock, best_t0, set_clock
from analogsim.fit.measurements import Measurements
from tests.fit.conftest import changed, only, quiet, warned


def test_time_from_programming_and_from_the_first_reading(columns, clean):
    assert clean.effects[1].t0 == 20.0
    assert any("t0 = 20 s, the first reading" in note for note in clean.report.notes)
    assert quiet(changed(columns, time=columns["time"] - 20), t0=20) == clean
    _, told = warned(columns, t0=20)
    assert "leave t0 out if it counts from programming" in told


def test_an_unknown_t0_is_fitted_and_told(columns):
    fit, told = warned(changed(columns, time=columns["time"] - 20))
    assert "t0, the time between programming and the first reading, is not known" in told
    assert fit.effects[1].t0 == pytest.approx(20, rel=0.3)
    with pytest.raises(ValueError, match=r"the first time is 0.*give t0 in seconds"):
        fit_device(changed(only(columns, columns["time"] < 100), time=columns["time"][columns["time"] < 100] - 20))


def power_laws(t0, cells=150, noise=0.002, seed=0):
    """Readings of cells that drift since `t0` before the time 0, with exponents of their own: time, y and cell."""
    generator = np.random.default_rng(seed)
    cell, time = np.repeat(np.arange(cells), 7), np.tile([0.0, 10, 60, 600, 3600, 86400, 864000], cells)
    exponent = generator.normal(0.06, 0.01, cells)[cell]
    y = generator.uniform(5, 25, cells)[cell] * ((time + t0) / t0) ** -exponent
    return time, y * (1 + noise * generator.normal(size=len(cell))), cell


@pytest.mark.parametrize("t0", [3.0, 20.0, 300.0])
def test_the_time_since_programming_is_found_from_the_bend(t0):
    found = [np.log(best_t0(*power_laws(t0, seed=seed), 0.0) / t0) for seed in range(8)]
    error = np.std(found, ddof=1) / np.sqrt(8)
    assert error < 0.03
    assert abs(np.mean(found)) < 4.5 * error + 0.005  # found to half a percent by the search itself


def test_cells_that_follow_no_power_law_do_not_bend_the_clock():
    time, y, cell = power_laws(20.0)
    generator = np.random.default_rng(1)
    odd = cell < 12  # of 150: less than the tenth that is left out
    y = np.where(odd, y * np.exp(generator.normal(size=len(y))), y)
    assert best_t0(time, y, cell, 0.0) == pytest.approx(20, rel=0.1)


def test_times_may_start_anywhere():
    time, y, cell = power_laws(20.0)
    assert best_t0(time + 500, y, cell, 500.0) == pytest.approx(best_t0(time, y, cell, 0.0), rel=1e-6)


def test_the_clock_counts_from_the_first_reading():
    np.testing.assert_allclose(Clock(20.0, 20.0).log_time(np.array([20.0, 40.0])), [0, np.log(2)])
    np.testing.assert_allclose(Clock(20.0, 0.0).log_time(np.array([0.0, 20.0])), [0, np.log(2)])


def taken(times):
    """Readings of 20 cells at some times."""
    time, cell = np.tile(times, 20), np.repeat(np.arange(20), len(times))
    return Measurements(np.full(len(time), 20.0), time, 20 * ((time + 30) / 30) ** -0.05, cell)


@pytest.mark.parametrize(
    ("times", "t0", "expected", "said"),
    [
        ((30.0, 90.0), None, (30.0, 30.0), "notes"),  # counts from programming
        ((30.0, 90.0), 5.0, (5.0, 0.0), None),  # t0 stands for what is before the column's zero
        ((30.0, 90.0), 40.0, (40.0, 0.0), "warnings"),  # as large as the first time: counted twice?
        ((0.0, 60.0), 30.0, (30.0, 0.0), None),
        ((0.0,), None, (1.0, 0.0), None),  # one time shows no drift
    ],
)
def test_what_the_column_counts_from(times, t0, expected, said):
    clock = set_clock(taken(times), t0, 25.0)
    assert (clock.t0, clock.start) == expected
    assert {name for name in ("notes", "warnings") if getattr(clock, name)} == ({said} if said else set())


def test_a_clock_that_starts_at_zero_needs_a_bend_to_be_seen():
    with pytest.raises(ValueError, match="give t0 in seconds"):
        set_clock(taken((0.0, 60.0)), None, 25.0)
    clock = set_clock(taken((0.0, 60.0, 600.0, 6000.0)), None, 25.0)
    assert clock.t0 == pytest.approx(30, rel=0.02)
    assert "fitted as 30 s" in clock.warnings[0]


@pytest.mark.parametrize("zero", [1.7e9, 1.7e12, 45000 * 86400.0])
def test_clocks_that_nobody_set_to_zero(columns, clean, zero):
    """Seconds and milliseconds since 1970, and a spreadsheet's days."""
    stamped = changed(columns, time=columns["time"] - 20 + zero)
    with pytest.raises(ValueError, match=r"it is a clock's\. Give the time since the cell was programmed, or t0"):
        fit_device(stamped)
    fit = quiet(stamped, t0=20)
    assert any("from which it is counted" in note for note in fit.report.notes)
    assert fit.effects[1].nu[0] == pytest.approx(clean.effects[1].nu[0], rel=1e-3)


def test_a_series_of_years_is_no_clock():
    assert set_clock(taken((1e8, 2e8, 1e9)), None, 25.0).t0 == 1e8
    assert set_clock(taken((1e6, 1.001e6)), None, 25.0).t0 == 1e6
