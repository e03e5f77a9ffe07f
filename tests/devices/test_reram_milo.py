import numpy as np
import pytest
import torch

from analogsim import Cells
from analogsim.devices import MiloProgramming, reram_milo


class One:
    """A noise that draws ones, so that a formula can be compared to the last digit."""

    def normal_like(self, like, std=1.0):
        return torch.full_like(like, std)


def test_formula_to_the_last_digit():
    g = np.linspace(50, 225, 60)
    target = torch.tensor(g)[None]
    programmed = MiloProgramming().program(target, Cells(target, 50.0, 225.0), One())[0]
    np.testing.assert_allclose(programmed, g + 4.782321 - 0.009107 * g, rtol=1e-12)


@pytest.mark.parametrize(("g_min", "g_max"), [(49.0, 225.0), (50.0, 226.0), (0.0, 100.0)])
def test_beyond_the_measured_range(g_min, g_max):
    with pytest.raises(ValueError, match=rf"from 50 to 225 µS, got g_min={g_min:g} and g_max={g_max:g}; give the"):
        reram_milo(g_min=g_min, g_max=g_max)


def test_a_range_within():
    assert (reram_milo(g_min=60, g_max=200).g_min, reram_milo().g_max) == (60.0, 225.0)
    assert not reram_milo().drifts
