"""The fitted effects against their formulas, written here once more in numpy."""

import numpy as np
import pytest
import torch

from analogsim import Cells, DeviceModel
from analogsim.devices import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.noise import KeyedNoise
from analogsim.testing import DeviceContract

G_MAX = 40.0
X = np.linspace(0, 1, 101)

PROGRAMMING = FittedProgramming(sigma=(0.01, 0.08, -0.05), offset=(0.002, -0.01), x_min=0.1, x_max=0.9)
DRIFT = FittedDrift(nu=(0.03, -0.02), nu_std=(0.004, -0.01), t0=7.0, x_min=0.05, x_max=0.8)
SLOW = FittedSlowNoise(std=(0.02, -0.01, 0.001), x_min=0.05, x_max=0.8)
READ = FittedReadNoise(std=(0.005, 0.01), x_min=0.2, x_max=0.7)


class TestFittedProgramming(DeviceContract):
    device = PROGRAMMING


class TestFittedDrift(DeviceContract):
    device = DRIFT


class TestFittedSlowNoise(DeviceContract):
    device = SLOW


class TestFittedReadNoise(DeviceContract):
    device = READ


class TestFittedChain(DeviceContract):
    device = DeviceModel((PROGRAMMING, DRIFT, SLOW, READ), g_min=1.0, g_max=G_MAX, name="fitted")


class Always:
    """A noise that draws one number for ever, so that a formula can be compared to the last digit."""

    def __init__(self, xi):
        self.xi = xi

    def normal_like(self, like, std=1.0):
        return torch.full_like(like, self.xi * std)


@pytest.fixture
def target():
    return torch.tensor(G_MAX * X)[None]


@pytest.fixture
def cells(target):
    return Cells(target, 0.0, G_MAX, programmed=target)


@pytest.mark.parametrize("xi", [-9.0, -1.0, 0.0, 2.0])
def test_programming(xi, target, cells):
    x = X.clip(0.1, 0.9)
    sigma = 0.01 + 0.08 * x - 0.05 * x**2
    expected = np.maximum(0, G_MAX * (X + 0.002 - 0.01 * x + sigma * xi))
    np.testing.assert_allclose(PROGRAMMING.program(target, cells, Always(xi))[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("t", [0.0, 1.0, 3.15e7])
@pytest.mark.parametrize("xi", [-1.0, 0.0, 2.0])
def test_drift(t, xi, target, cells):
    log_x = np.log(X.clip(0.05, 0.8))
    nu = 0.03 - 0.02 * log_x + (0.004 - 0.01 * log_x) * xi
    drawn = DRIFT.draw(cells, Always(xi))
    np.testing.assert_allclose(drawn["nu"][0], nu, rtol=1e-12)
    np.testing.assert_allclose(DRIFT.age(target, t, cells, drawn)[0], G_MAX * X * ((t + 7) / 7) ** -nu, rtol=1e-12)


@pytest.mark.parametrize("xi", [-100.0, -1.0, 2.0])
def test_slow_noise_is_of_what_is_left(xi, target, cells):
    log_x = np.log(X.clip(0.05, 0.8))
    factor = 1 + (0.02 - 0.01 * log_x + 0.001 * log_x**2) * xi
    read = SLOW.read(target / 2, 3600.0, cells, Always(xi))
    np.testing.assert_allclose(read[0], np.maximum(0, G_MAX * X / 2 * factor), rtol=1e-12)


def test_read_noise_is_that_of_the_present_conductance(target, cells):
    std = READ.read_std(target / 2, cells)
    np.testing.assert_allclose(std[0], G_MAX * (0.005 + 0.01 * (X / 2).clip(0.2, 0.7)), rtol=1e-12)


def test_a_standard_deviation_is_never_negative(target, cells):
    below = (0.01, -0.1)  # negative above x = 0.1
    written = FittedProgramming(sigma=below).program(target, cells, Always(1.0))
    assert (written >= target).all()
    assert torch.equal(written[0, 50:], target[0, 50:])
    assert not FittedReadNoise(std=below).read_std(target, cells)[0, 50:].any()
    high = FittedDrift(nu=(0.05,), nu_std=(-0.1, -0.1)).draw(cells, Always(1.0))["nu"][0, 50:]
    np.testing.assert_allclose(high, 0.05)
    assert torch.equal(FittedSlowNoise(std=(-0.1,)).read(target, 1.0, cells, Always(1.0)), target)


def test_errors_are_fractions_of_the_range():
    weight = torch.linspace(-1, 1, 400).view(4, 100)
    chain = (PROGRAMMING, DRIFT, SLOW, READ)
    models = [DeviceModel(chain, g_max=g_max) for g_max in (10.0, 40.0)]
    read = []
    for model in models:
        written = model.program(weight, KeyedNoise("range"))
        g = model.read(written, 1e5, KeyedNoise("range"))
        read.append((model.to_weight(g, written), model.read_variance(g, written)))
    torch.testing.assert_close(read[0], read[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FittedProgramming(sigma=0.05), r"FittedProgramming: sigma must be a sequence of coefficients.* 0\.05"),
        (lambda: FittedProgramming(sigma=()), r"sigma must be a sequence of coefficients.*got \(\)"),
        (lambda: FittedProgramming(sigma=(0.1, "b")), r"sigma must hold numbers, got \(0.1, 'b'\)"),
        (lambda: FittedProgramming(offset=(True,)), r"offset must hold numbers, got \(True,\)"),
        (lambda: FittedDrift(nu=(0.1, float("nan"))), r"FittedDrift: nu must be finite, got \(0.1, nan\)"),
        (lambda: FittedDrift(t0=0.0), "FittedDrift: t0 must be > 0, got 0.0"),
        (lambda: FittedDrift(x_min=0.0), "FittedDrift: x_min must be > 0, got 0.0"),
        (lambda: FittedReadNoise(x_min=0.5, x_max=0.4), "x_min must be <= x_max, got x_min=0.5 and x_max=0.4"),
    ],
)
def test_illegal_parameters(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_lists_become_tuples():
    assert FittedProgramming(sigma=[1, 2]) == FittedProgramming(sigma=(1.0, 2.0))
    hash(FittedProgramming(sigma=[1, 2]))
