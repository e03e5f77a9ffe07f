"""reram-wan2022 against the published polynomials, to the last digit, and its limits."""

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import Cells
from analogsim.devices import WanProgramming, WanProgrammingCrossSim, WanRelaxation, reram_wan2022

DAY = 86400.0
C = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}
X = np.linspace(0.025, 1, 79)


def sigma(t, x=X):
    return sum(c * x**i for i, c in enumerate(C[t]))


class Always:
    """A noise that draws one number for ever, so that a formula can be compared to the last digit."""

    def __init__(self, xi):
        self.xi = xi

    def normal_like(self, like, std=1.0):
        return torch.full_like(like, self.xi * std)


@pytest.mark.parametrize("g_max", [40.0, 25.0])
def test_formulas_to_the_last_digit(g_max):
    # Trap: coefficients fitted at 40 µS applied unscaled at 25 µS.
    target = torch.tensor(X * g_max)[None]
    cells = Cells(target, g_max / 40, g_max, programmed=target)
    programmed = WanProgramming().program(target, cells, Always(1.0))[0]
    np.testing.assert_allclose(programmed, g_max * X + sigma(1.0) * g_max / 40, rtol=1e-12)
    relaxation = WanRelaxation()
    for t in (DAY, 2 * DAY):
        aged = relaxation.age(target, t, cells, relaxation.draw(cells, Always(1.0)))[0]
        growth = np.sqrt(sigma(t) ** 2 - sigma(1.0) ** 2) * g_max / 40
        np.testing.assert_allclose(aged, g_max * X + growth, rtol=1e-12)


def test_between_the_times_the_variance_is_linear_in_log_time():
    target = torch.tensor([[20.0]], dtype=torch.float64)
    cells = Cells(target, 1.0, 40.0, programmed=target)
    share = np.log(3600) / np.log(DAY)
    want = np.sqrt(share * (sigma(DAY, 0.5) ** 2 - sigma(1.0, 0.5) ** 2))
    aged = WanRelaxation().age(target, 3600.0, cells, {"xi": torch.ones_like(target)})
    assert float(aged) - 20.0 == pytest.approx(want)
    for t in (0.0, 0.3, 1.0):
        assert float(WanRelaxation().age(target, t, cells, {"xi": torch.ones_like(target)})) == 20.0


def test_the_published_spread_is_not_monotonic_and_never_below_that_of_programming():
    # What rules out independent steps from each time to the next, and allows one number per cell.
    x = np.linspace(0, 1, 10_001)
    fall = sigma(DAY, x) - sigma(2 * DAY, x)
    assert fall.max() == pytest.approx(0.0639, abs=1e-4)
    assert (fall > 0).mean() == pytest.approx(0.53, abs=0.01)
    assert (sigma(DAY, x) > sigma(1.0, x)).all()
    assert (sigma(2 * DAY, x) > sigma(1.0, x)).all()


def test_second_fit():
    g = np.linspace(1, 39.26, 50)
    target = torch.tensor(g)[None]
    cells = Cells(target, 1.0, 39.26)
    want = g + 1.536e-4 * g**3 - 1.167e-2 * g**2 + 0.2374 * g + 1.053
    np.testing.assert_allclose(WanProgrammingCrossSim().program(target, cells, Always(1.0))[0], want, rtol=1e-12)
    device = reram_wan2022(fit="crosssim", g_max=39.26)
    assert device.effects == (WanProgrammingCrossSim(), *reram_wan2022().effects[1:])
    with pytest.raises(ValueError, match=r"the formula holds from 0 to 39\.26 µS, got g_min=1 and g_max=40"):
        reram_wan2022(fit="crosssim")
    with pytest.raises(ValueError, match="reram-wan2022: fit must be one of 'wan', 'crosssim', got 'mine'"):
        reram_wan2022(fit="mine")


def test_the_range_begins_at_a_fortieth():
    assert (reram_wan2022().g_min, reram_wan2022().g_max) == (1.0, 40.0)
    assert reram_wan2022(g_max=20.0).g_min == 0.5


def test_later_than_two_days_is_an_error():
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 3)), device="reram-wan2022").eval()
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "2d")
    with pytest.raises(ValueError, match="WanRelaxation is valid from 0s to 2d after programming, got 3d"):
        analogsim.drift(analog, "3d")


def test_read_noise_is_one_percent_of_the_range():
    device = reram_wan2022()
    target = torch.full((2, 3), 20.0)
    std = device.effects[2].read_std(target, Cells(target, 1.0, 40.0))
    torch.testing.assert_close(std, torch.full_like(target, 0.4))
