"""What no memory cell does is refused, what hardly one does is told."""

import numpy as np
import pytest

from analogsim import fit_device
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.fit import sample_measurements
from analogsim.fit.measurements import read
from analogsim.fit.sanity import check_effects, check_follow
from tests.fit.conftest import changed, quiet, warned


def test_readings_that_follow_their_targets_are_not_told(columns):
    assert check_follow(read(columns)) == ()


def test_readings_that_do_not_follow_their_targets(columns):
    # Each cell has one target still, but that of another one.
    mixed = np.random.default_rng(0).permutation(np.unique(columns["cell"])).astype(int)
    of_cell = np.zeros(len(mixed))
    of_cell[columns["cell"].astype(int)] = columns["target"]
    with pytest.raises(ValueError, match="as by chance: the readings do not follow the targets"):
        fit_device(changed(columns, target=of_cell[mixed[columns["cell"].astype(int)]]))


def test_readings_that_follow_their_targets_loosely(columns):
    generator = np.random.default_rng(0)
    off = generator.normal(0, 10, len(np.unique(columns["cell"])))[columns["cell"].astype(int)]
    measured = read(changed(columns, measured=columns["measured"] + off))
    assert "they follow them loosely" in check_follow(measured)[0]


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_resistances_that_are_taken_for_conductances(columns, scale):
    high = columns["target"] > 5
    resistance = {name: values[high] for name, values in columns.items()}
    resistance["measured"] = scale / resistance["measured"]
    with pytest.raises(ValueError, match=r"readings fall where targets rise|wrong units"):
        fit_device(resistance)
    assert quiet(resistance, units={"measured": "kΩ" if scale == 1e3 else "Ω"}).g_max == 25.0


GOOD = (
    FittedProgramming((0.03,), (0.01,)),
    FittedDrift((0.05,), (0.01,)),
    FittedSlowNoise((0.02,)),
    FittedReadNoise((0.01,)),
)


def test_what_memory_cells_do_is_not_told():
    assert check_effects(GOOD) == ()


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (FittedProgramming((1.5,)), "programming sd of 1.5 g_max"),
        (FittedProgramming((0.03,), (9.0,)), "programming mean error of 9 g_max.*in one unit"),
        (FittedProgramming((0.03,), (-1.2,)), "programming mean error of -1.2 g_max"),
        (FittedDrift((5960.0,), (0.01,)), "drift exponent of 5.96e.03.*seconds since programming"),
        (FittedDrift((0.05,), (1.5,)), "spread of the drift exponents of 1.5"),
        (FittedSlowNoise((2.0,)), "slow noise sd of 2 of g"),
        (FittedReadNoise((1.2,)), "read noise sd of 1.2 g_max"),
    ],
)
def test_what_no_memory_cell_does(effect, message):
    with pytest.raises(ValueError, match=message):
        check_effects((effect,))


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        (FittedProgramming((0.4,)), "a programming sd of 0.4 g_max is doubtful"),
        (FittedProgramming((0.03,), (-0.6,)), "a programming mean error of -0.6 g_max"),
        (FittedDrift((0.5,), (0.01,)), "a drift exponent of 0.5 is doubtful"),
        (FittedDrift((-0.2,), (0.01,)), "a drift exponent of -0.2"),
        (FittedSlowNoise((0.6,)), "a slow noise sd of 0.6 of g"),
        (FittedReadNoise((0.4,)), "a read noise sd of 0.4 g_max"),
    ],
)
def test_what_is_doubtful(effect, message):
    assert message in check_effects((effect,))[0]


def test_a_wrong_unit_of_less_than_powers_of_ten_is_refused(columns):
    with pytest.raises(ValueError, match=r"programming mean error of .* g_max, which no memory cell has"):
        fit_device(changed(columns, measured=columns["measured"] * 4), bootstrap=0)


def test_doubts_stand_in_the_report():
    loose = sample_measurements("gaussian(std=0.45)", cells=60, times=(0, "1h"))
    fit, told = warned(loose, bootstrap=0)
    assert "is doubtful" in told
    assert any("is doubtful" in text for text in fit.report.warnings)
