"""What the column time counts from."""

import pytest

from analogsim import fit_device
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
