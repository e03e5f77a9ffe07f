"""sonos against the published formulas, to the last digit."""

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import Cells
from analogsim.devices import SonosProgramming, SonosReadNoise, SonosRetention, sonos
from benchmarks.harness import published

DAY = 86400.0
A_B = {
    0.0: (19.887, 176.31),
    DAY: (25.591, 186.86),
    2 * DAY: (28.728, 193.57),
    3 * DAY: (31.043, 198.90),
    4 * DAY: (33.762, 204.77),
    5 * DAY: (34.579, 207.34),
}
# Mean shift in nA at 0, 160, 800 and 1600 nA, worked out from the published polynomials in decimal numbers.
SHIFT = {
    DAY: (0.172684, 1.268298, -3.826779, -11.532229),
    2 * DAY: (0.250712, 1.927711, -8.001621, -22.372338),
    3 * DAY: (-0.017530, 3.325409, -9.312552, -26.905870),
    4 * DAY: (0.040334, 2.957210, -13.890641, -38.271501),
    5 * DAY: (0.319927, 3.390344, -15.173107, -40.698450),
}
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
    for t, shifts in SHIFT.items():
        growth = np.sqrt(sigma(t) ** 2 - sigma(0.0) ** 2)
        aged = retention.age(cells.target, t, cells, retention.draw(cells, One()))[0].numpy()
        np.testing.assert_allclose(aged, np.maximum(0, CURRENT + growth + aged_mean(t)), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose((aged - CURRENT - growth)[[16, 80, 160]], shifts[1:], atol=1e-6)
    std = SonosReadNoise().read_std(cells.target, cells)[0]
    np.testing.assert_allclose(std, 12.580 * (1 - np.exp(-CURRENT / 215.37)), rtol=1e-12)


def aged_mean(t, current=CURRENT):
    """The published shift of the mean, by numpy."""
    return published.sonos_shift(current, round(t / DAY))


def test_the_published_means_are_met_on_a_chip():
    """Issue 18: 1600 nA reads 1559.3 nA after five days, 160 nA some 3.3 nA more; within 5 standard errors."""
    cells = 100_000
    weight = torch.tensor([[1.0], [0.1]]).expand(2, cells).contiguous()
    device = sonos().replace(mapping=analogsim.Mapping("pair", "tensor"))
    written = device.program(weight, analogsim.noise.KeyedNoise("mean"))
    after = device.age(written, 5 * DAY)[0].double()
    for row, mean, spread in zip(after, (1559.3, 163.39), (34.58, 18.6), strict=True):
        assert float(row.mean()) == pytest.approx(mean, abs=5 * spread / cells**0.5 + 0.01)


def test_between_the_days_mean_and_variance_are_interpolated_in_the_logarithm():
    target = torch.tensor([[1600.0]], dtype=torch.float64)
    cells, t = Cells(target, 0.0, 1600.0), 2.5 * DAY
    share = (np.log(3.5) - np.log(3)) / (np.log(4) - np.log(3))
    for at in (t, torch.tensor(t, dtype=torch.float64)):
        shift, growth = SonosRetention().shift(at, cells), SonosRetention().growth(at, cells)
        expected = (1 - share) * SHIFT[2 * DAY][-1] + share * SHIFT[3 * DAY][-1]
        assert float(shift) == pytest.approx(expected, rel=1e-6)
        variances = [sigma(day * DAY, 1600.0) ** 2 for day in (0, 2, 3)]
        expected = (1 - share) * variances[1] + share * variances[2] - variances[0]
        assert float(growth) == pytest.approx(expected, rel=1e-9)


def test_float32_keeps_the_shift():
    target = torch.linspace(0, 1600, 1601)[None]
    for t in SHIFT:
        single, double = (SonosRetention().shift(t, Cells(g, 0.0, 1600.0)) for g in (target, target.double()))
        torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_a_cell_without_current_comes_to_carry_a_little(cells):
    """The mean of such a cell moves as published and has no spread: an assertion that it stays empty was wrong."""
    written = sonos().program(torch.zeros(5, 5), analogsim.noise.KeyedNoise("zero"))
    assert not sonos().age(written, 0.0).any()
    for t, shifts in SHIFT.items():
        aged = sonos().age(written, t)
        torch.testing.assert_close(aged, torch.full_like(aged, max(0.0, shifts[0])), atol=1e-4, rtol=0)


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
