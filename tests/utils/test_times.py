import math

import numpy as np
import pytest

from analogsim import seconds
from analogsim.utils.times import DEFAULT_TIMES, label


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("1s", 1.0),
        ("5min", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1mo", 30 * 86400.0),
        ("1y", 365 * 86400.0),
        ("0s", 0.0),
        ("1.5 h", 5400.0),
        (" 2d ", 172800.0),
        ("1e-3s", 1e-3),
        ("1e+3s", 1e3),
        (".5s", 0.5),
        (0, 0.0),
        (30, 30.0),
        (2.5, 2.5),
        (np.float32(2.5), 2.5),
        (np.int64(7), 7.0),
        ("1", 1.0),  # without a unit: seconds
        (" 1e3 ", 1000.0),
        ("2.5", 2.5),
        ("1w", 7 * 86400.0),
        ("2 weeks", 14 * 86400.0),
        ("1day", 86400.0),
        ("3 days", 3 * 86400.0),
        ("1 hour", 3600.0),
        ("2hrs", 7200.0),
        ("90 sec", 90.0),
        ("5 minutes", 300.0),
        ("1 month", 30 * 86400.0),
        ("1yr", 365 * 86400.0),
        ("10 years", 3650 * 86400.0),
        ("10ms", 0.01),
        ("100us", 100 * 1e-6),
        ("100µs", 100 * 1e-6),
        ("1S", 1.0),
        ("1D", 86400.0),
        ("1h30min", 5400.0),
        ("1d 12h", 1.5 * 86400.0),
    ],
)
def test_seconds(time, expected):
    value = seconds(time)
    assert value == expected
    assert type(value) is float


@pytest.mark.parametrize(
    "time",
    [
        "",
        "s",
        "h1",
        "1m",
        "1x",
        "1 fortnight",
        "1h30",
        "1,5h",
        "--1s",
        "1e s",
        "nan s",
        "nan",
        "inf",
        "1h -5min",
        "1..5h",
    ],
)
def test_text_that_is_not_a_time(time):
    with pytest.raises(
        ValueError, match=f"time: cannot read '{time}'; give seconds or a number with one of the units s"
    ):
        seconds(time)


def test_what_may_be_a_minute_or_a_month_is_asked_back():
    for time in ("1m", "3M", "1h30m"):
        with pytest.raises(ValueError, match='"1m" may be a minute or a month: write 1min or 1mo'):
            seconds(time)


@pytest.mark.parametrize("time", [-1, "-1s", "-1", -1e-9, math.nan, math.inf, "1e999s"])
def test_times_when_there_is_no_chip(time):
    with pytest.raises(ValueError, match=f"time: must be finite and >= 0 seconds after programming, got {time!r}"):
        seconds(time)


@pytest.mark.parametrize("time", [None, True, [1], b"1s", 1j])
def test_what_is_not_a_time(time):
    with pytest.raises(TypeError, match='time: give seconds or text such as "1h", got'):
        seconds(time)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (0.0, "0s"),
        (1.0, "1s"),
        (90.0, "90s"),
        (300.0, "5min"),
        (5400.0, "90min"),
        (86400.0, "1d"),
        (30 * 86400.0, "1mo"),
        (365 * 86400.0, "1y"),
        (0.5, "0.5s"),
        (1e-9, "1e-09s"),
        (1234.5, "1234.5s"),
    ],
)
def test_label(time, expected):
    assert label(time) == expected
    assert seconds(label(time)) == time


def test_the_default_times_are_their_own_labels():
    assert tuple(label(seconds(t)) for t in DEFAULT_TIMES) == DEFAULT_TIMES
