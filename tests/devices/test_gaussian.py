import math

import pytest
import torch

from analogsim import DeviceModel, Gaussian, Mapping
from analogsim.noise import GlobalNoise, KeyedNoise

K = 5  # standard errors
N = 400  # a weight of N x N
PAIR = Mapping("pair", "tensor")
KURTOSIS = {"normal": 3.0, "uniform": 1.8}


def weights(scale=1.0):
    return torch.empty(N, N).uniform_(-scale, scale, generator=torch.Generator().manual_seed(0))


def programmed(device, weight, key="gaussian"):
    written = device.program(weight, KeyedNoise(key))
    return device.to_weight(written.programmed, written)


def assert_moments(values, std, distribution="normal"):
    """Mean 0 and standard deviation ``std``, within K standard errors."""
    n = values.numel()
    assert abs(values.mean()) < K * std / math.sqrt(n)
    assert abs(values.std() - std) < K * std * math.sqrt((KURTOSIS[distribution] - 1) / n) / 2


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_constant_law_is_a_fraction_of_the_largest_weight(scale, distribution):
    # Trap: multiplicative noise that differs by a factor max|w| from one path to another.
    weight = weights(scale)
    error = programmed(DeviceModel((Gaussian(0.05, distribution=distribution),)), weight) - weight
    assert_moments(error, 0.05 * float(weight.abs().max()), distribution)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_proportional_law(distribution):
    weight = weights()
    weight[0] = 0
    gaussian = Gaussian(0.1, law="proportional", distribution=distribution)
    error = programmed(DeviceModel((gaussian,)), weight) - weight
    assert not error[0].any()
    assert_moments(error[1:] / weight[1:].abs(), 0.1, distribution)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_absolute_law_does_not_know_the_weights(distribution):
    for scale in (0.1, 3.0):
        weight = weights(scale)
        gaussian = Gaussian(0.02, law="absolute", distribution=distribution)
        assert_moments(programmed(DeviceModel((gaussian,)), weight) - weight, 0.02, distribution)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_inverse_law(distribution):
    gaussian = Gaussian(0.002, law="inverse", distribution=distribution)
    device = DeviceModel((gaussian,), g_min=5.0, g_max=25.0, mapping=PAIR)
    written = device.program(weights(), KeyedNoise("inverse"))
    target = written.cells.target
    assert_moments((written.programmed - target) * target / 25.0**2, 0.002, distribution)


def test_inverse_law_stops_growing_below_g_min():
    # The first error may carry a cell to zero, where 1/g has no value.
    device = DeviceModel((Gaussian(0.5), Gaussian(0.01, law="inverse")), g_min=1.0, mapping=PAIR)
    written = device.program(weights(), KeyedNoise("floor"))
    assert written.programmed.isfinite().all()
    assert written.programmed.max() < 25 + 6 * (0.5 * 25 + 0.01 * 25**2)


def test_uniform_errors_are_bounded_and_fill_their_range():
    weight = weights()
    largest = float(weight.abs().max())
    error = programmed(DeviceModel((Gaussian(0.05, distribution="uniform"),)), weight) - weight
    bound = math.sqrt(3) * 0.05 * largest
    assert 0.999 * bound < error.abs().max() <= bound * (1 + 1e-5)


def test_by_column_each_output_has_its_own_scale():
    weight = weights() * torch.logspace(-3, 0, N)[:, None]
    device = DeviceModel((Gaussian(0.05),), mapping=Mapping("signed", "column"))
    relative = (programmed(device, weight) - weight) / weight.abs().amax(1, keepdim=True)
    assert_moments(relative, 0.05)


def test_on_pairs_each_cell_errs_and_stops_at_zero():
    device = DeviceModel((Gaussian(0.05),), mapping=PAIR)
    weight = weights().abs()
    weight[0, 0] = 2.0  # keeps the others away from the top of the range
    written = device.program(weight, KeyedNoise("pair"))
    positive, negative = written.programmed.flatten(1)
    sigma = 0.05 * 25
    # Of cells at zero a half normal number is left: mean s/sqrt(2 pi), second moment s^2/2.
    n = negative.numel()
    assert negative.min() == 0
    assert abs(negative.mean() - sigma / math.sqrt(2 * math.pi)) < K * sigma * math.sqrt((0.5 - 0.5 / math.pi) / n)
    assert abs(negative.square().mean() - sigma**2 / 2) < K * sigma**2 * math.sqrt(1.25 / n)
    far = written.cells.target[0].flatten() > 6 * sigma
    assert_moments((positive - written.cells.target[0].flatten())[far], sigma)
    correlation = torch.corrcoef(torch.stack((positive[far], negative[far])))[0, 1]
    assert abs(correlation) < K / math.sqrt(int(far.sum()))


def test_nothing_stops_a_signed_weight_at_zero():
    error = programmed(DeviceModel((Gaussian(0.5),)), torch.ones(N, N)) - 1
    assert_moments(error, 0.5)


@pytest.mark.parametrize("law", ["constant", "proportional", "absolute"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_no_error_gives_the_weights_back(law, distribution):
    weight = weights()
    assert torch.equal(programmed(DeviceModel((Gaussian(0.0, law, distribution),)), weight), weight)


def test_error_is_fresh_at_every_call():
    # Trap: a fused kernel that adds the noise into the master weights, so that the error grows.
    weight = weights()
    kept = weight.clone()
    device = DeviceModel((Gaussian(0.05),))
    torch.manual_seed(0)
    for _ in range(3):
        written = device.program(weight, GlobalNoise())
        assert_moments(written.programmed[0] - weight, 0.05 * float(weight.abs().max()))
    assert torch.equal(weight, kept)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"std": -1}, ValueError, "Gaussian: std must be >= 0, got -1"),
        ({"std": math.nan}, ValueError, "Gaussian: std must be finite, got nan"),
        ({"std": "5%"}, TypeError, "Gaussian: std must be a number, got '5%'"),
        ({"std": True}, TypeError, "Gaussian: std must be a number, got True"),
        ({"law": "linear"}, ValueError, "Gaussian: law must be one of constant, .*, got 'linear'"),
        ({"distribution": None}, ValueError, "Gaussian: distribution must be one of normal, uniform, got None"),
    ],
)
def test_illegal_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Gaussian(**parameters)


@pytest.mark.parametrize(
    "model",
    [{}, {"mapping": PAIR}, {"g_min": 1.0}, {"g_min": 1.0, "mapping": Mapping("signed")}],
)
def test_the_inverse_law_needs_cells_that_never_reach_zero(model):
    with pytest.raises(ValueError, match=r"Gaussian: law='inverse' diverges at g = 0; .*Mapping\('pair'\) and a g_min"):
        DeviceModel((Gaussian(law="inverse"),), **model)


def test_the_absolute_law_needs_signed_weights():
    with pytest.raises(ValueError, match=r"law='absolute' is in units of the weight and needs Mapping\('signed'\)"):
        DeviceModel((Gaussian(law="absolute"),), mapping=PAIR)
