import numpy as np
import pytest
import torch

from analogsim import Cells, DeviceModel, Drift
from analogsim.devices import ProgrammingNoise
from analogsim.devices.programming import check_range, one_of, polynomial
from analogsim.noise import KeyedNoise


@pytest.mark.parametrize("coefficients", [(1.0, 2.0), (0.5, -1.0, 3.0), (0.1, 0.2, 0.3, 0.4, 0.5)])
def test_polynomial(coefficients):
    x = torch.linspace(-1, 2, 50, dtype=torch.float64)
    before = x.clone()
    value = polynomial(x, coefficients)
    np.testing.assert_allclose(value, np.polynomial.polynomial.polyval(x.numpy(), coefficients))
    assert torch.equal(x, before)


def test_the_range_of_a_formula():
    device = DeviceModel((Drift(),), g_min=1.0, g_max=40.0)
    check_range("Fit", device, 1.0, 40.0)
    for low, high in ((1.1, 40.0), (1.0, 39.9)):
        with pytest.raises(
            ValueError, match=rf"Fit: the formula holds from {low:g} to {high:g} nA, got g_min=1 and g_"
        ):
            check_range("Fit", device, low, high, "nA")


def test_one_of_a_few():
    assert one_of("pcm", "fit", "a", {"a": 1, "b": 2}) == 1
    with pytest.raises(ValueError, match="pcm: fit must be one of 'a', 'b', got 'c'"):
        one_of("pcm", "fit", "c", {"a": 1, "b": 2})


def test_the_base_says_what_to_override():
    cells = Cells(torch.ones(2, 3), 0.0, 1.0)
    with pytest.raises(NotImplementedError, match="ProgrammingNoise does not say how large its error is"):
        ProgrammingNoise().program(cells.target, cells, KeyedNoise("x"))
