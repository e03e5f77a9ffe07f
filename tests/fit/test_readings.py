"""Which readings go with the others of their cell."""

from dataclasses import replace

import numpy as np
import pytest

from analogsim.fit.readings import Readings, follow_their_cell, grouped, rough_exponent, without_torn
from tests.fit.conftest import agree, changed, quiet


def test_outliers_are_left_out_and_counted(columns, clean):
    generator = np.random.default_rng(0)
    odd = generator.random(len(columns["cell"])) < 0.02
    fit = quiet(changed(columns, measured=np.where(odd, 10 * columns["measured"], columns["measured"])))
    (told,) = [note for note in fit.report.notes if "left out" in note]
    # Ten times a reading next to zero is no outlier.
    high = int((odd & (columns["target"] > 0)).sum())
    assert high - 5 <= int(told.split()[0]) <= odd.sum() + 5
    agree(fit, clean, 0.1)


@pytest.fixture
def drifting():
    """60 cells that lose 5 % for each unit of L, read three times at each of four times, with 1 % of noise."""
    generator = np.random.default_rng(0)
    cell = np.repeat(np.arange(60), 12)
    log_time = np.tile(np.repeat([0.0, 1.0, 3.0, 6.0], 3), 60)
    x = np.linspace(0.2, 1.0, 60)
    y = x[cell] * np.exp(-0.05 * log_time) * (1 + 0.01 * generator.normal(size=len(cell)))
    return Readings(y, log_time, cell, x)


def test_one_exponent_for_all_in_spite_of_outliers(drifting):
    y = drifting.y.copy()
    y[::30] *= 5
    found = rough_exponent(replace(drifting, y=y))
    spread = 0.01 / np.sqrt(len(y)) / drifting.log_time.std()
    assert found == pytest.approx(0.05, abs=4.5 * 2 * spread)  # medians and soft L1 cost up to a factor of 2
    assert rough_exponent(replace(drifting, log_time=np.ones(len(y)))) == 0
    assert rough_exponent(replace(drifting, x=np.full(60, 0.05))) == 0  # too low to tell


def test_a_reading_that_left_its_cell_is_seen_whatever_the_cell_lost_by_then(drifting):
    y = drifting.y.copy()
    y[[11, 200, 431]] *= [1.3, 0.7, 1.3]
    keep, level = follow_their_cell(replace(drifting, y=y))
    assert list(np.flatnonzero(~keep)) == [11, 200, 431]
    # What a cell had at L = 0: the median of twelve readings with 1 % of noise.
    np.testing.assert_allclose(level, drifting.x, rtol=4.5 * 0.01 * 1.2533 / np.sqrt(12) + 0.002)


def test_an_early_reading_is_judged_by_the_scatter_of_early_ones(drifting):
    generator = np.random.default_rng(1)
    late = drifting.log_time == 6
    y = np.where(late, drifting.y * (1 + 0.2 * generator.normal(size=len(late))), drifting.y)
    y[0] *= 1.2
    keep, _ = follow_their_cell(replace(drifting, y=y))
    assert not keep[0]
    assert (~keep).sum() <= 3


def test_two_readings_cannot_tell_which_is_odd(drifting):
    few = np.flatnonzero((drifting.cell > 0) | (np.arange(len(drifting.y)) < 2))
    y = drifting.y.copy()
    y[0] *= 3
    keep, _ = follow_their_cell(Readings(y[few], drifting.log_time[few], drifting.cell[few], drifting.x))
    assert keep.all()


def test_readings_of_one_cell_and_time_are_taken_together(drifting):
    order = np.random.default_rng(1).permutation(len(drifting.y))[:-5]  # in any order, and not all there
    some = Readings(drifting.y[order], drifting.log_time[order], drifting.cell[order], drifting.x)
    groups = grouped(some, drifting.x)
    assert groups.count.sum() == len(order)
    for place, (cell, log_time) in enumerate(zip(groups.cell, groups.log_time, strict=True)):
        own = some.y[(some.cell == cell) & (some.log_time == log_time)]
        assert groups.count[place] == len(own)
        assert groups.mean[place] == pytest.approx(own.mean())
        assert groups.squares[place] == pytest.approx(((own - own.mean()) ** 2).sum())
        assert groups.expected[place] == pytest.approx(drifting.x[cell] * np.exp(-0.05 * log_time), rel=0.01)


def test_a_cell_between_two_states_is_left_out_and_counted(columns, clean):
    """Telegraph noise: as many readings in one state as in the other, so that their median is neither."""
    measured, kept = columns["measured"].copy(), np.ones(len(columns["cell"]), dtype=bool)
    for cell in (201, 208):
        of_cell = np.flatnonzero(columns["cell"] == cell)[:-1]
        kept[columns["cell"] == cell] = False
        kept[of_cell] = True
        measured[of_cell] *= 1 + 0.5 * (-1.0) ** np.arange(len(of_cell))
        assert len(of_cell) % 2 == 0
    fit = quiet({name: values[kept] for name, values in changed(columns, measured=measured).items()})
    (told,) = [note for note in fit.report.notes if "contradict each other" in note]
    assert told.startswith("2 of 240 cells left out")
    agree(fit, clean, 0.1)


def test_cells_are_numbered_anew(drifting):
    y = drifting.y.copy()
    y[12:24] *= 1 + 0.9 * (-1.0) ** np.arange(12)
    kept, level, outliers, cells = without_torn(replace(drifting, y=y))
    assert (outliers, cells) == (0, 1)
    np.testing.assert_array_equal(kept.x, np.delete(drifting.x, 1))
    np.testing.assert_allclose(level, kept.x, rtol=0.02)
    np.testing.assert_array_equal(np.unique(kept.cell), np.arange(59))
