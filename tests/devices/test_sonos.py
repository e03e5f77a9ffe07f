"""sonos against the published formulas, to the last digit."""

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import Cells
from analogsim.devices import SonosProgramming, SonosReadNoise, SonosRetention, sonos

DAY = 86400.0
A_B = {0.0: (19.887, 176.31), DAY: (25.591, 186.86), 5 * DAY: (34.579, 207.34)}
CURRENT = np.linspace(0, 1600, 161)


def sigma(t, current=CURRENT):
    a, b = A_B[t]
    return a * (1 - np.exp(-current / b))


class One:
    """A noise that draws ones, so that a formula can be compared to the last digit."""

    def normal_like(self, like, std=1.0):
        return torch.full_like(like, std)


@pytest.fixture
def cells():
    target = torch.tensor(CURRENT)[None]
    return Cells(target, 0.0, 1600.0, programmed=target)


def test_formulas_to_the_last_digit(cells):
    programmed = SonosProgramming().program(cells.target, cells, One())[0]
    np.testing.assert_allclose(programmed, CURRENT + sigma(0.0), rtol=1e-12)
    retention = SonosRetention()
    for t in (DAY, 5 * DAY):
        aged = retention.age(cells.target, t, cells, retention.draw(cells, One()))[0]
        np.testing.assert_allclose(aged, CURRENT + np.sqrt(sigma(t) ** 2 - sigma(0.0) ** 2), rtol=1e-12)
    std = SonosReadNoise().read_std(cells.target, cells)[0]
    np.testing.assert_allclose(std, 12.580 * (1 - np.exp(-CURRENT / 215.37)), rtol=1e-12)


@pytest.mark.parametrize(("day", "published"), [(2, 28.72753), (3, 31.04318), (4, 33.76214)])
def test_the_days_between_are_met_by_the_interpolation(day, published):
    # The spread at the top of the range on days that the interpolation was not given, from CrossSim's fits of the
    # same figure: within 2 %.
    target = torch.tensor([[1600.0]], dtype=torch.float64)
    cells = Cells(target, 0.0, 1600.0)
    variance = SonosRetention().growth(torch.tensor(day * DAY, dtype=torch.float64), cells) + sigma(0.0, 1600.0) ** 2
    assert float(variance.sqrt()) == pytest.approx(published, rel=0.02)


def test_a_cell_without_current_has_no_error(cells):
    written = sonos().program(torch.zeros(5, 5), analogsim.noise.KeyedNoise("zero"))
    assert not sonos().age(written, DAY).any()


def test_later_than_five_days_is_an_error():
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 3)), device="sonos").eval()
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "5d")
    with pytest.raises(ValueError, match="SonosRetention is valid from 0s to 5d after programming, got 6d"):
        analogsim.drift(analog, "6d")


def test_currents_are_in_nanoamperes_and_end_at_1600():
    assert (sonos().unit, sonos().g_max, sonos().g_min) == ("nA", 1600.0, 0.0)
    for effect in sonos().effects:
        with pytest.raises(ValueError, match=rf"{type(effect).__name__}: the formula holds from 0 to 1600 nA"):
            sonos().replace(effects=(effect,), g_max=1700.0)
