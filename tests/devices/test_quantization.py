import math

import pytest
import torch

from analogsim import DeviceModel, Gaussian, Mapping, Quantization
from analogsim.noise import KeyedNoise

K = 5  # standard errors
PAIR = Mapping("pair", "tensor")


def programmed(quantization, weight, key="levels", **model):
    device = DeviceModel((quantization,), mapping=PAIR, **model)
    return device, device.program(weight, KeyedNoise(key))


@pytest.mark.parametrize("g_min", [0.0, 5.0])
@pytest.mark.parametrize("levels", [2, 3, 16, 255])
@pytest.mark.parametrize("stochastic", [False, True])
def test_cells_stand_on_levels(levels, g_min, stochastic):
    weight = torch.linspace(-1, 1, 1001).double()
    _, written = programmed(Quantization(levels, stochastic), weight, g_min=g_min)
    level = (written.programmed - g_min) / (25.0 - g_min) * (levels - 1)
    torch.testing.assert_close(level, level.round())
    assert level.round().min() == 0
    assert level.round().max() == levels - 1
    step = (25.0 - g_min) / (levels - 1)
    furthest = (written.programmed - written.cells.target).abs().max()
    assert furthest <= step * (1 if stochastic else 0.5) * (1 + 1e-6)


@pytest.mark.parametrize("levels", [2, 5, 16])
def test_a_pair_holds_twice_the_levels_but_one(levels):
    device, written = programmed(Quantization(levels), torch.linspace(-3, 3, 5001))
    values = device.to_weight(written.programmed, written).unique()
    torch.testing.assert_close(values, torch.linspace(-3, 3, 2 * levels - 1))


def test_two_levels_are_the_ends_of_the_range():
    _, written = programmed(Quantization(levels=2), torch.tensor([-1.0, -0.51, -0.49, 0.0, 0.49, 0.51, 1.0]))
    assert written.programmed.tolist() == [[0, 0, 0, 0, 0, 25, 25], [25, 25, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("stochastic", [False, True])
def test_weights_on_levels_are_kept(stochastic):
    weight = torch.linspace(-1, 1, 31)  # the signed values of 16 levels
    device, written = programmed(Quantization(16, stochastic), weight.repeat(100, 1))
    # In float32 a level may come out a rounding error too low and then fall: at most once in a million.
    kept = (device.to_weight(written.programmed, written) - weight).abs() < 1e-5
    assert kept.all()


@pytest.mark.parametrize("x", [0.01, 0.25, 0.5, 0.9])
def test_stochastic_rounding_keeps_the_mean(x):
    levels, n = 4, 200_000
    weight = torch.full((n,), x).double()
    weight[0] = 1.0
    _, written = programmed(Quantization(levels, stochastic=True), weight)
    position = x * (levels - 1)
    up = position - math.floor(position)
    level = written.programmed[0, 1:] / 25.0 * (levels - 1)
    assert abs(level.mean() - position) < K * math.sqrt(up * (1 - up) / n)
    assert level.round().unique().tolist() == [math.floor(position), math.floor(position) + 1]


def test_there_is_no_level_beyond_the_range():
    device = DeviceModel((Gaussian(0.5), Quantization(levels=4)), g_min=5.0, mapping=PAIR)
    written = device.program(torch.linspace(-1, 1, 1001), KeyedNoise("beyond"))
    assert written.programmed.amin() == 5.0
    assert written.programmed.amax() == 25.0


def test_nearest_rounding_draws_nothing():
    weight = torch.linspace(-1, 1, 1001)
    one, other = (programmed(Quantization(7), weight, key)[1].programmed for key in ("a", "b"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"levels": 1}, ValueError, "Quantization: levels must be >= 2, got 1"),
        ({"levels": 15.5}, TypeError, "Quantization: levels must be an integer, got 15.5"),
        ({"levels": True}, TypeError, "Quantization: levels must be an integer, got True"),
        ({"stochastic": 1}, TypeError, "Quantization: stochastic must be True or False, got 1"),
    ],
)
def test_illegal_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Quantization(**parameters)


def test_signed_weights_have_no_levels():
    with pytest.raises(ValueError, match=r"Quantization acts on conductances and needs Mapping\('pair'\)"):
        DeviceModel((Quantization(),), mapping=Mapping("signed"))
