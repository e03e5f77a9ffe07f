"""What instruments write behind a number."""

import numpy as np
import pytest

from analogsim.fit.units import UNITS, unit_of

VALUES = np.array([0.5, 2.0])


@pytest.mark.parametrize(
    ("written", "microsiemens"),
    [
        ("nS", VALUES / 1e3),
        ("uS", VALUES),
        ("μS", VALUES),  # the Greek letter; the sign of its own stands in the table
        ("S", VALUES * 1e6),
        ("ohm", 1e6 / VALUES),
        ("Ohm", 1e6 / VALUES),
        ("\u2126", 1e6 / VALUES),  # the sign of its own; the Greek letter stands in the table
        ("kΩ", 1e3 / VALUES),
        ("k\u2126", 1e3 / VALUES),
        ("KOHM", 1e3 / VALUES),
        (" MΩ ", 1 / VALUES),
        ("GΩ", 1e-3 / VALUES),
        ("%", VALUES / 4),
        ("percent", VALUES / 4),
    ],
)
@pytest.mark.parametrize("column", ["target", "measured"])
def test_conductances(column, written, microsiemens):
    np.testing.assert_allclose(unit_of(column, written).convert(VALUES, 25.0), microsiemens, rtol=1e-12)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("sec", 1), ("S", 1), ("hr", 3600), ("days", 86400)],
)
def test_times(written, seconds):
    np.testing.assert_allclose(unit_of("time", written).convert(VALUES, None), seconds * VALUES, rtol=1e-12)


def test_every_unit_knows_its_own_name():
    for column, known in UNITS.items():
        for unit in known.values():
            assert unit_of(column, unit.name) is unit


def test_a_wire_that_is_cut_does_not_conduct():
    np.testing.assert_array_equal(unit_of("measured", "kΩ").convert(np.array([np.inf, 100.0]), None), [0, 10])


@pytest.mark.parametrize(
    ("column", "written", "message"),
    [
        ("time", "fortnight", "unknown unit 'fortnight' of time; give one of ns, µs, ms, s, min, h, d$"),
        ("measured", "ms", "unknown unit 'ms' of measured; give one of nS, µS, mS, S, Ω, kΩ, MΩ, GΩ, %$"),
        ("measured", "mohm", "unknown unit 'mohm' of measured.*write MΩ or Mohm for megaohm"),
        ("measured", 3, "unknown unit 3 of measured"),
    ],
)
def test_units_that_there_are_not(column, written, message):
    with pytest.raises(ValueError, match=message):
        unit_of(column, written)


def test_what_a_unit_cannot_take():
    with pytest.raises(ValueError, match="say how many µS that is: g_max=25"):
        unit_of("target", "%").convert(VALUES, None)
    with pytest.raises(ValueError, match="a resistance must be above 0 kΩ, got -1"):
        unit_of("measured", "kohm").convert(np.array([3.0, -1.0]), None)
