import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim.devices import equivalent_age

ROOM = {"reference": 25.0, "activation_energy": 1.0}


def test_arrhenius():
    # 1 eV between 25 and 85 °C: exp(11604.5 K (1/298.15 - 1/358.15))
    assert equivalent_age(1.0, celsius=85.0, **ROOM) == pytest.approx(math.exp(11604.518 * (1 / 298.15 - 1 / 358.15)))
    assert equivalent_age("1h", celsius=25.0, **ROOM) == 3600.0
    assert equivalent_age("1d", celsius=85.0, reference=25.0, activation_energy=0.0) == 86400.0
    assert equivalent_age(1.0, celsius=-20.0, **ROOM) < 1e-2


def test_there_and_back():
    hot = equivalent_age("1d", celsius=85.0, **ROOM)
    assert equivalent_age(hot, celsius=25.0, reference=85.0, activation_energy=1.0) == pytest.approx(86400.0)


def test_a_hot_chip_is_an_older_one():
    analog = analogsim.convert(nn.Sequential(nn.Linear(3, 2)), device="drift(nu_std=0)").eval()
    analogsim.program(analog, seed=0)
    weights = []
    for age in (equivalent_age("1h", celsius=85.0, **ROOM), "1h"):
        analogsim.drift(analog, age, compensation=None)
        weights.append(analogsim.to_digital(analog, "programmed")[0].weight)
    factor = ((equivalent_age("1h", celsius=85.0, **ROOM) + 20) / (3600 + 20)) ** -0.05
    torch.testing.assert_close(weights[0], weights[1] * factor)


def test_the_energy_has_no_default():
    with pytest.raises(TypeError, match="activation_energy"):
        equivalent_age("1h", celsius=85.0, reference=25.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"celsius": -273.15}, ValueError, "equivalent_age: celsius must be in °C and above -273.15, got -273.15"),
        ({"reference": math.nan}, ValueError, "equivalent_age: reference must be in °C and above -273.15, got nan"),
        ({"activation_energy": -1.0}, ValueError, "activation_energy must be in eV and >= 0, got -1.0"),
        ({"activation_energy": "1"}, TypeError, "activation_energy must be a number, got '1'"),
        ({"t": "yesterday"}, ValueError, "time: cannot read 'yesterday'"),
    ],
)
def test_illegal_parameters(change, error, message):
    arguments = {"t": "1h", "celsius": 85.0, **ROOM, **change}
    with pytest.raises(error, match=message):
        equivalent_age(**arguments)
