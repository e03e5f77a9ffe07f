"""What the data cannot tell is told."""

import numpy as np
import pytest

from analogsim.devices import FittedProgramming, FittedReadNoise
from tests.fit.conftest import changed, only, warned


def test_one_time_tells_no_drift(columns):
    fit, told = warned(only(columns, columns["time"] == 20))
    assert "one reading time only: no drift" in told
    assert [type(effect) for effect in fit.effects] == [FittedProgramming, FittedReadNoise]


def test_two_times_do_not_tell_slow_noise_from_spread(columns):
    _, told = warned(only(columns, columns["time"] < 100))
    assert "two reading times" in told
    assert "the readings span a factor of 4.0 in time" in told


def test_no_repeats(columns):
    first = np.unique(columns["cell"] + 1j * columns["time"], return_index=True)[1]
    fit, told = warned(only(columns, first))
    assert "no reading is repeated: read noise cannot be told apart from slow noise" in told
    assert FittedReadNoise not in map(type, fit.effects)
    _, told = warned(only(columns, first[columns["time"][first] == 20]))
    assert "cannot be told apart from programming error" in told


def test_few_cells_and_a_narrow_range(columns):
    _, told = warned(only(columns, np.isin(columns["cell"] % 30, [0, 1, 2])))
    assert "24 cells are few: standard deviations are known to 14 % at best" in told
    fit, told = warned(only(columns, columns["target"] > 20))
    assert "the targets span 21.4286 to 25 µS in 2 steps" in told
    assert (fit.g_min, fit.effects[0].x_min) == (pytest.approx(21.4286, rel=1e-4), pytest.approx(0.857143))
    _, told = warned(only(columns, columns["target"] > 4), g_min=0.0)
    assert "no target below 7.14286 µS was measured: cells at g_min = 0 µS" in told


def test_errors_that_are_not_normal():
    generator = np.random.default_rng(0)
    target = np.repeat(np.linspace(5, 25, 5), 100)
    error = generator.exponential(1.0, len(target)) - 1
    cell = np.arange(len(target))
    data = {"target": target, "time": np.full(len(target), 20), "measured": target + error, "cell": cell}
    _, told = warned(data)
    assert "programming: what is left is not normal" in told


def test_a_wrong_t0_is_seen(columns):
    _, told = warned(changed(columns, time=columns["time"] - 20), t0=0.01)
    assert "off the power law: is t0 = 0.01 s the time between programming and the first reading?" in told


def test_laws_are_shown_at_the_smallest_the_middle_and_the_largest_target(clean, columns):
    shown = [one.name for one in clean.report.parameters if one.name.startswith("programming sd at ")]
    told = [float(name.split("at ")[1].split()[0]) for name in shown]
    targets = np.unique(columns["target"])  # an even number, of which one of the two in the middle is shown
    assert told == pytest.approx([targets[0], targets[len(targets) // 2], targets[-1]], rel=1e-2)


def test_a_law_that_is_zero_is_not_shown():
    generator = np.random.default_rng(0)
    target = np.repeat(np.linspace(5, 25, 5), 100)
    measured = target + generator.normal(0.0, 0.5, len(target))
    data = {"target": target, "time": np.full(len(target), 20), "measured": measured, "cell": np.arange(len(target))}
    fit, _ = warned(data)
    names = [one.name for one in fit.report.parameters]
    assert any(name.startswith("programming sd") for name in names)
    assert not any(name.startswith("programming mean error") for name in names)


def test_the_read_noise_that_is_drawn_is_the_one_that_was_put_in(clean):
    """`FITTED` has 0.003 + 0.01 x of g_max = 25 µS: at most 0.325 µS."""
    (panel,) = (panel for panel in clean.report.panels if panel.title.startswith("read noise"))
    wanted = 25 * (0.003 + 0.01 * panel.curve / 25)
    assert panel.mean == pytest.approx(wanted, rel=0.15)
